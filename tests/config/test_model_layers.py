from __future__ import annotations

from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from hellm_recbole.config import model_layers
from hellm_recbole.config.model_layers import list_presets, split_variant
from hellm_recbole.config.request import parse_override
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments import resolve

PRESET = """
overall: {epochs: 3, patience: 2}
models: {SASRec: {epochs: 4, batch_size: 16}}
datasets: {tiny: {SASRec: {epochs: 5}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the settings folder whose only preset is `brief`."""
    real = find_properties()
    for part in real.iterdir():
        if part.name != "preset":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "brief.yaml").write_text(PRESET)
    monkeypatch.setattr(model_layers, "find_properties", lambda: tmp_path)
    return tmp_path


def resolve_epochs(model: str, dataset: str) -> tuple[int, str]:
    (config,) = resolve.resolve_runs([model], dataset, REGISTRY, "brief", [])
    return config.train.epochs, config.resolved.origin["epochs"]


@pytest.mark.usefixtures("folder")
def test_a_preset_can_have_values_for_a_model_and_for_a_dataset() -> None:
    assert resolve_epochs("LightGCN", "tiny") == (3, "preset/brief.yaml")
    assert resolve_epochs("SASRec", "large") == (4, "preset/brief.yaml")
    assert resolve_epochs("SASRec", "tiny") == (5, "preset/brief.yaml, datasets: tiny")


def test_an_unknown_section_of_a_preset_is_refused(folder: Path) -> None:
    (folder / "preset" / "brief.yaml").write_text("model: {SASRec: {epochs: 4}}")
    with pytest.raises(SettingsError, match="unknown section 'model'; a preset has overall, models and datasets"):
        resolve_epochs("SASRec", "tiny")


def test_a_name_is_taken_apart_into_model_and_variant() -> None:
    variant = list_variants("HeLLMPre")[0]
    assert split_variant(variant, REGISTRY) == ("HeLLMPre", variant.removeprefix("HeLLMPre-"))
    assert split_variant("HeLLMPre", REGISTRY) == ("HeLLMPre", None)
    assert split_variant("HeLLMPre-unknown", REGISTRY) == ("HeLLMPre-unknown", None)


def test_a_later_layer_wins() -> None:
    (config,) = resolve.resolve_runs(["LightGCN"], "toy", REGISTRY, "quick", [])
    origin = config.resolved.origin
    assert origin["emb_dim"] == "model/LightGCN.yaml"
    assert origin["epochs"] == "preset/quick.yaml"
    given = [parse_override(text, "--set ") for text in ("epochs=3", "LightGCN.epochs=4", "SASRec.epochs=5")]
    (config,) = resolve.resolve_runs(["LightGCN"], "toy", REGISTRY, "quick", given[:2])
    assert (config.train.epochs, config.resolved.origin["epochs"]) == (4, "--set LightGCN.epochs=4")


def test_an_unknown_preset_is_refused() -> None:
    assert {"paper", "quick"} <= {*list_presets()}
    with pytest.raises(SettingsError, match="unknown preset 'quik'; did you mean 'quick'"):
        resolve.resolve_runs(["LightGCN"], "toy", REGISTRY, "quik", [])
