"""Results of earlier versions, whose Pop was RecBole's, keep their meaning."""

from __future__ import annotations

import pytest

from hellm_recbole.experiments.earlier_names import describe_renamed, name_as_today
from tests.toy_records import toy_record


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("Pop", "recbole", "RecBole-Pop"),
        ("Pop", "hellm_recbole", "Pop"),
        ("GRU4Rec", "recbole", "GRU4Rec"),
        ("RecBole-BPR", "recbole", "RecBole-BPR"),
        ("Fusion(Pop,GRU4Rec)", "recbole", "Fusion(Pop,GRU4Rec)"),
    ],
)
def test_a_run_of_recboles_model_gets_the_name_of_today(model: str, source: str, name: str) -> None:
    result = toy_record(model=model, source=source)
    assert name_as_today(result).model == name
    assert (describe_renamed(result) == "") == (name == model)


def test_the_name_of_today_is_said_in_words() -> None:
    said = describe_renamed(toy_record(model="ItemKNN", source="recbole"))
    assert said == "RecBole's ItemKNN, which is now called RecBole-ItemKNN, while ItemKNN is a model of this project"
