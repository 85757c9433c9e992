"""A registered model that lacks a part is refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import Field
from torch import nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.models.base import ModelSpec, check_module, check_spec


class WholeSettings(Settings):
    """Settings of the model below."""

    emb_dim: int = Field(ge=1)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.max_history = 0

    @classmethod
    def build(cls, settings: Any, data: Any) -> Whole:
        return cls()

    def loss(self, batch: Any) -> Any: ...

    def encode(self) -> Any: ...

    def query(self, encoded: Any, batch: Any) -> Any: ...


SPEC = ModelSpec(Whole, WholeSettings, "collaborative", "pairs")


def without(*names: str) -> type[Any]:
    own = {name: value for name, value in vars(Whole).items() if name not in names and name != "__init__"}
    return type("Part", (nn.Module,), own if "max_history" in names else {**own, "max_history": 0})


@pytest.mark.parametrize("name", list(REGISTRY))
def test_registered_models_are_complete(name: str) -> None:
    check_spec(name, REGISTRY[name])


@pytest.mark.parametrize("name", [name for name in REGISTRY if "modalities" in REGISTRY[name].settings.model_fields])
def test_further_encodings_of_the_texts_are_read_only_if_they_are_named(name: str) -> None:
    features = {"image": 1, "text": 2, "text_llm": 3, "text_2": 4}
    settings = resolve_runs([name], "toy", REGISTRY, "paper", [])[0].model_settings  # type: ignore[attr-defined]
    if settings.modalities is None:
        assert REGISTRY[name].choose_features(settings, features) == {"image": 1, "text": 2}
    named = settings.model_copy(update={"modalities": ("text_llm", "text")})
    assert REGISTRY[name].choose_features(named, features) == {"text_llm": 3, "text": 2}
    # The model is given what there is, and its error lists it.
    unread = settings.model_copy(update={"modalities": None})
    assert REGISTRY[name].choose_features(unread, {"text_llm": 3}) == {"text_llm": 3}


def test_a_model_that_scores_all_items_has_a_score_in_place_of_vectors() -> None:
    spec = replace(SPEC, scores_items=True)
    with pytest.raises(ModelError, match=r"score\(batch\), the method that returns the scores of all items") as caught:
        check_spec("Whole", spec)
    assert "encode" not in str(caught.value)
    part = type("Part", (without("encode", "query"),), {"score": lambda self, batch: None})
    check_spec("Part", replace(spec, cls=part))
    with pytest.raises(ModelError, match=r"loss\(batch\)"):
        check_spec(
            "Part", replace(spec, cls=type("Part", (without("encode", "query", "loss"),), {"score": part.score}))
        )


def test_a_complete_model_passes() -> None:
    check_spec("Whole", SPEC)
    check_spec("Part", replace(SPEC, cls=without()))
    check_module("Whole", Whole())


@pytest.mark.parametrize("missing", ["build", "loss", "encode", "query", "max_history"])
def test_what_a_class_lacks_is_one_sentence(missing: str) -> None:
    with pytest.raises(ModelError, match=rf"^model Part \(Part\) is not complete: {missing}[^\n]*$"):
        check_spec("Part", replace(SPEC, cls=without(missing)))


def test_all_that_is_missing_is_in_one_message() -> None:
    spec: Any = ModelSpec(without("loss", "encode"), dict, "graph", "pair")  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        check_spec("Part", spec)
    for part in (
        "loss",
        "encode",
        "not a subclass of hellm_recbole.config.settings.Settings",
        "family 'graph'",
        "batches 'pair'",
    ):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="registered as type; register a ModelSpec"):
        check_spec("Part", Whole)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, -1, 1.5, True, "10"])
def test_a_value_that_is_not_a_history_length_is_refused(value: object) -> None:
    module = Whole()
    module.max_history = value  # type: ignore[assignment]
    with pytest.raises(ModelError, match="has max_history = "):
        check_module("Whole", module)


def test_a_run_of_an_incomplete_model_is_refused() -> None:
    registry = {**REGISTRY, "LightGCN": replace(REGISTRY["LightGCN"], cls=without("loss"))}
    with pytest.raises(ModelError, match=r"model LightGCN .* loss"):
        resolve_runs(["SASRec", "LightGCN"], "tiny", registry, "paper", [])
