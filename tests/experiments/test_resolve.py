from __future__ import annotations

from pathlib import Path

import pytest

from baselines.registry import REGISTRY
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
    real = resolve.find_properties()
    for part in real.iterdir():
        if part.name != "preset":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "brief.yaml").write_text(PRESET)
    monkeypatch.setattr(resolve, "find_properties", lambda: tmp_path)
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


def find_refusal(model: str, *settings: str) -> str:
    overrides = [resolve.parse_override(text, "--set ") for text in settings]
    with pytest.raises(SettingsError) as caught:
        resolve.resolve_runs([model], "tiny", REGISTRY, "paper", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "setting", "said"),
    [
        ("LightGCN", "learning_rate=.inf", "must be a finite number"),
        ("LightGCN", "learning_rate=1e300", "must be <= 1e+30"),
        ("LightGCN", "clip_norm=1e400", "must be a finite number"),
        ("LightGCN", "epochs=1:30", "must be of type int"),
        ("LightGCN", "cutoffs=[20,20]", "contains a value twice"),
        ("LightGCN", "cutoffs=[]", "valid_metric"),
        ("LightGCN", "cutoffs=[2000000000]", "must be <= 1000000"),
        ("LightGCN", "batch_size=1e23", "must be of type int"),
        ("LightGCN", "batch_size=100000000000000000000000", "must be at most"),
        ("SASRec", "n_heads=3", "--set n_heads=3: emb_dim = 64 must be a multiple of n_heads = 3"),
        ("BPR", "embedding_size=0", "must be a whole number of at least 1"),
        ("BPR", "embedding_size=-3", "must be a whole number of at least 1"),
        ("BPR", "embedding_size=wide", "must be a number"),
        ("RecBole-SASRec", "n_heads=3", "hidden_size = 64 must be a multiple of n_heads = 3"),
        ("RecBole-SASRec", "hidden_dropout_prob=1.5", "must be >= 0 and < 1"),
        ("RecBole-SASRec", "layer_norm_eps=.nan", "must be a finite number"),
        ("ItemKNN", "k=0", "must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_an_unusable_value_is_refused(model: str, setting: str, said: str) -> None:
    message = find_refusal(model, setting)
    assert said in message
    assert setting.partition("=")[0] in message


def test_recboles_default_values_are_accepted() -> None:
    from hellm_recbole.bridge.recbole_models import list_recbole_models
    from hellm_recbole.errors import ModelError

    done = 0
    for name in list_recbole_models():
        try:
            resolve.resolve_runs([f"RecBole-{name}"], "tiny", REGISTRY, "paper", [])
        except ModelError:
            continue  # RecBole trains it by a procedure of its own
        done += 1
    assert done > 40


def test_all_missing_settings_of_a_model_are_in_one_message_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = resolve.find_properties()
    for part in real.iterdir():
        if part.name != "model":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "LightGCN.yaml").write_text("n_layers: 3\nlearning_rate: fast\n")
    monkeypatch.setattr(resolve, "find_properties", lambda: tmp_path)
    message = find_refusal("LightGCN")
    file = tmp_path / "model" / "LightGCN.yaml"
    assert (
        f"batch_size, weight_decay, emb_dim, l2_weight, init_std, sampling are not set; add them to {file}" in message
    )
    assert "learning_rate = 'fast'" in message
