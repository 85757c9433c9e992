"""Settings of combined rows: which values win, and that each kind has its own settings only."""

from __future__ import annotations

from hellm_recbole.config.combined_settings import merge_combined_layers
from hellm_recbole.config.request import Override
from hellm_recbole.config.row_names import CombinedName, parse_combined_name
from tests.toy_combined import SETTINGS_WITHOUT_TRAINING


def take_apart(name: str) -> CombinedName:
    found = parse_combined_name(name)
    assert found is not None
    return found


def test_each_kind_has_its_own_settings_and_those_of_selection() -> None:
    keys = {
        name: set(merge_combined_layers(take_apart(name), "paper", []).values) - SETTINGS_WITHOUT_TRAINING
        for name in ("Transitions", "Priors", "Fusion(A,B)")
    }
    assert keys["Transitions"] == {"transition_form", "transition_decay", "prior_floor"}
    assert keys["Fusion(A,B)"] == {"fusion_steps"}
    assert keys["Priors"] > keys["Transitions"] | {"text_weights", "item_knn_weights", "transition_weights"}


def test_later_layers_win() -> None:
    name = take_apart("SASRec-priors-directed")
    resolved = merge_combined_layers(name, "quick", [])
    assert resolved.values["transition_form"] == "directed"
    assert resolved.origin["transition_form"] == "combined.yaml, variants: directed"
    assert "epochs" not in resolved.values  # the preset sets them, but nothing is trained
    overrides = [
        Override(None, "text_decay", 0.5, "--set text_decay=0.5"),
        Override(None, "dropout", 0.5, "--set dropout=0.5"),
        Override("SASRec-priors", "text_decay", 0.1, "of another row"),
        Override("SASRec-priors-directed", "transition_form", "symmetric", "of this row"),
    ]
    resolved = merge_combined_layers(name, "paper", overrides)
    assert (resolved.values["text_decay"], resolved.values["transition_form"]) == (0.5, "symmetric")
    assert "dropout" not in resolved.values
