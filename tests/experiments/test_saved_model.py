from __future__ import annotations

import pytest

from hellm_recbole.experiments.saved_model import format_model_card
from hellm_recbole.llm.packaged import PACKAGE, SHA256
from tests.toy_records import toy_record


@pytest.mark.parametrize(
    ("llm", "weights", "mentioned"),
    [("auto", "pretrained", True), ("auto", "random", False), ("google/gemma-3-270m", "pretrained", False)],
)
def test_a_card_says_that_the_packaged_model_is_a_repack(llm: str, weights: str, mentioned: bool) -> None:
    values = {"llm": llm, "llm_layers": None, "llm_weights": weights, "valid_metric": "N@20"}
    settings = {key: {"value": value, "origin": "x.yaml"} for key, value in values.items()}
    card = format_model_card(toy_record(settings=settings))
    for part in ("4-bit repack", "Q4_K_M", PACKAGE, SHA256, "Gemma's terms of use"):
        assert (part in card) is mentioned
