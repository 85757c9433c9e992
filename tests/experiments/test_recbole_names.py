from __future__ import annotations

import pytest

from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.recbole_names import find_recbole_name

OWN = ("SASRec", "Pop", "VBPR")


def test_the_prefix_selects_a_model_of_recbole() -> None:
    assert find_recbole_name("RecBole-Pop", OWN) == "Pop"
    assert find_recbole_name("GRU4Rec", OWN) == "GRU4Rec"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sasrec", "did you mean 'SASRec'?"),
        ("RecBole-Popp", "did you mean 'RecBole-Pop'?"),
        ("recbole-pop", "did you mean 'RecBole-Pop'?"),
        ("RecBole-qqqq", "`hellm-recbole run --list` shows all names"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_recbole_name(name, OWN)
    assert str(caught.value) == f"unknown model {name!r}; {hint}"
