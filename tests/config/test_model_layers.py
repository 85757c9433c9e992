from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config import model_layers, properties_files
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
    for module in (model_layers, properties_files):
        monkeypatch.setattr(module, "find_properties", lambda: tmp_path)
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


def test_a_registered_name_is_no_variant() -> None:
    assert split_variant("SASRec-text-llm", REGISTRY) == ("SASRec-text-llm", None)
    variant = list_variants("HeLLMPre")[0]
    assert split_variant(variant, [*REGISTRY, variant]) == (variant, None)


@pytest.fixture
def inheriting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the settings folder in which VBPR's file has all sections, for models that inherit from it."""
    real = find_properties()
    for part in real.iterdir():
        if part.name != "model":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "model").mkdir()
    parent = (real / "model" / "VBPR.yaml").read_text()
    sections = "overrides: {epochs: 7, patience: 3}\ndatasets: {tiny: {patience: 4}, large: {patience: 5}}\n"
    (tmp_path / "model" / "VBPR.yaml").write_text(parent + sections)
    for module in (model_layers, properties_files):
        monkeypatch.setattr(module, "find_properties", lambda: tmp_path)
    return tmp_path / "model"


def resolve_child(folder: Path, text: str, dataset: str = "tiny") -> tuple[dict[str, object], dict[str, str]]:
    """Resolve a model with VBPR's settings class and a settings file of its own."""
    (folder / "Child.yaml").write_text(text)
    (config,) = resolve.resolve_runs(["Child"], dataset, {"Child": REGISTRY["VBPR"]}, "paper", [])
    return dict(config.resolved.values), dict(config.resolved.origin)


def test_a_model_file_can_inherit_from_another(inheriting: Path) -> None:
    child = "inherits: VBPR\noverrides: {l2_weight: 0.5, patience: 9}\ndatasets: {large: {epochs: 8}}\n"
    values, origin = resolve_child(inheriting, child)
    assert (values["emb_dim"], origin["emb_dim"]) == (64, "model/VBPR.yaml")
    assert (values["epochs"], origin["epochs"]) == (7, "model/VBPR.yaml, overrides")
    assert (values["l2_weight"], origin["l2_weight"]) == (0.5, "model/Child.yaml, overrides")
    assert (values["patience"], origin["patience"]) == (9, "model/Child.yaml, overrides")
    values, origin = resolve_child(inheriting, child, "large")
    assert (values["epochs"], origin["epochs"]) == (8, "model/Child.yaml, datasets: large")


def test_values_for_a_dataset_are_inherited(inheriting: Path) -> None:
    assert resolve_child(inheriting, "inherits: VBPR", "large")[0]["patience"] == 5
    assert resolve_child(inheriting, "inherits: VBPR", "other")[0]["patience"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inherits: VBRP", r"Child.yaml: inherits = 'VBRP', but there is no file .*VBRP.yaml"),
        ("inherits: Middle", r"Child.yaml: inherits = 'Middle', whose file inherits from another one itself"),
        ("inherits: VBPR\nemb_dim: 8", r"model/Child.yaml and model/VBPR.yaml both set 'emb_dim'"),
    ],
)
def test_a_wrong_inheritance_is_refused(inheriting: Path, text: str, said: str) -> None:
    (inheriting / "Middle.yaml").write_text("inherits: VBPR")
    with pytest.raises(SettingsError, match=said):
        resolve_child(inheriting, text)


def test_the_language_models_row_differs_in_its_modalities_only() -> None:
    text, llm = (
        resolve.resolve_run(name, "Beauty", REGISTRY, "paper", []) for name in ("SASRec-text", "SASRec-text-llm")
    )
    assert llm.resolved.values == {**text.resolved.values, "modalities": ["text", "text_llm"]}
    assert text.resolved.values["modalities"] == ["text"]


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


def resolve_language_model_row(folder: Path, text: str) -> dict[str, object]:
    """Resolve a model with the settings class and the settings file of HeLLM-plus, and `text` added to the file."""
    real = (find_properties() / "model" / "HeLLM-plus.yaml").read_text()
    (folder / "Child.yaml").write_text(real.replace("without: [", f"without: [{text}"))
    (config,) = resolve.resolve_runs(["Child"], "tiny", {"Child": REGISTRY["HeLLM-plus"]}, "paper", [])
    return dict(config.resolved.values)


def test_a_model_can_leave_out_shared_settings_of_language_models(inheriting: Path) -> None:
    values = resolve_language_model_row(inheriting, "")
    assert "prompt" in values
    assert not {"head", "tuning", "without"} & values.keys()
    with pytest.raises(SettingsError, match=r"model/Child.yaml: without lists 'haed', which llm.yaml does not set"):
        resolve_language_model_row(inheriting, "haed, ")
    with pytest.raises(SettingsError, match="prompt is not set"):
        resolve_language_model_row(inheriting, "prompt, ")
