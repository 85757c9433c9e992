"""RecBole finds our models, their variants and its own models in our harness by name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from hellm_recbole.bridge import register
from hellm_recbole.errors import ModelError


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_our_models_are_found_and_recboles_keep_their_names() -> None:
    from recbole.utils import get_model

    assert get_model("VBPR").__module__ == "recbole.model.general_recommender.vbpr"
    for name in ("LightGCN", "SASRec"):
        assert not hasattr(get_model(name), "offered")
        assert get_model(f"Hellm{name}").offered.spec is register.load_registry()[name]
    for name in ("Pop", "ItemKNN", "EASE", "BPR"):
        assert not hasattr(get_model(name), "offered")
        assert get_model(f"Hellm{name}").offered.spec is register.load_registry()[name]
    assert importlib.util.find_spec("recbole.model.general_recommender.vbprx") is None


def test_recboles_own_models_are_offered_under_the_prefix() -> None:
    offered = register.list_offered_models()
    assert {"HellmNeuMF", "HellmGRU4Rec"} <= offered.keys()
    assert (offered["HellmNeuMF"].name, offered["HellmNeuMF"].spec) == ("NeuMF", None)
    assert offered["HellmLightGCN"].spec is not None


@pytest.mark.parametrize("name", [name for name, model in register.list_offered_models().items() if model.spec])
def test_every_registered_model_and_variant_is_a_recbole_model(name: str) -> None:
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.utils import get_model

    assert issubclass(get_model(name), AbstractRecommender)
    assert get_model(name).__name__ == name


def test_a_name_of_the_command_is_found() -> None:
    found = [register.find_offered_model(name) for name in ("SASRec", "HeLLM-no-llm", "Pop", "Nothing")]
    assert [model and model.recbole_name for model in found] == ["HellmSASRec", "HeLLM-no-llm", "HellmPop", None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HeLLM-without-prefx", "HeLLM has no variant 'without-prefx'; did you mean 'without-prefix'"),
        ("HellmSASRec-x", "HellmSASRec has no variant 'x'; it has no variants"),
    ],
)
def test_an_unknown_variant_is_refused_in_one_sentence(name: str, message: str) -> None:
    from recbole.quick_start import run_recbole

    with pytest.raises(ModelError, match=message):
        run_recbole(model=name, dataset="ml-100k")
