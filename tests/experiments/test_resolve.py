from __future__ import annotations

from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments import resolve as plan

PRESET = """
overall: {epochs: 3, patience: 2}
models: {SASRec: {epochs: 4, batch_size: 16}}
datasets: {tiny: {SASRec: {epochs: 5}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings, with a preset `brief` of our own."""
    real = plan.find_properties()
    for part in real.iterdir():
        if part.name != "preset":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "brief.yaml").write_text(PRESET)
    monkeypatch.setattr(plan, "find_properties", lambda: tmp_path)
    return tmp_path


def epochs(model: str, dataset: str) -> tuple[int, str]:
    (row,) = plan.resolve_runs([model], dataset, REGISTRY, "brief", [])
    return row.train.epochs, row.resolved.origin["epochs"]


@pytest.mark.usefixtures("folder")
def test_a_preset_may_differ_by_model_and_by_dataset() -> None:
    assert epochs("LightGCN", "tiny") == (3, "preset/brief.yaml")
    assert epochs("SASRec", "large") == (4, "preset/brief.yaml")
    assert epochs("SASRec", "tiny") == (5, "preset/brief.yaml, datasets: tiny")


def test_an_unknown_section_of_a_preset_is_refused(folder: Path) -> None:
    (folder / "preset" / "brief.yaml").write_text("model: {SASRec: {epochs: 4}}")
    with pytest.raises(SettingsError, match="unknown section 'model'; a preset has overall, models and datasets"):
        epochs("SASRec", "tiny")


def refuse(model: str, *settings: str) -> str:
    overrides = [plan.parse_override(text, "--set ") for text in settings]
    with pytest.raises(SettingsError) as caught:
        plan.resolve_runs([model], "tiny", REGISTRY, "paper", overrides)
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
def test_a_value_that_no_run_can_have_is_refused(model: str, setting: str, said: str) -> None:
    message = refuse(model, setting)
    assert said in message
    assert setting.partition("=")[0] in message


def test_recboles_own_values_are_accepted() -> None:
    from hellm_recbole.bridge.learner import list_recbole_models
    from hellm_recbole.errors import ModelError

    done = 0
    for name in list_recbole_models():
        try:
            plan.resolve_runs([f"RecBole-{name}"], "tiny", REGISTRY, "paper", [])
        except ModelError:
            continue  # trained by a procedure of its own
        done += 1
    assert done > 40


def test_missing_settings_of_a_model_come_in_one_message_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = plan.find_properties()
    for part in real.iterdir():
        if part.name != "model":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "LightGCN.yaml").write_text("n_layers: 3\nlearning_rate: fast\n")
    monkeypatch.setattr(plan, "find_properties", lambda: tmp_path)
    message = refuse("LightGCN")
    file = tmp_path / "model" / "LightGCN.yaml"
    assert f"batch_size, weight_decay, emb_dim, l2_weight, init_std, sampling are not set; add to {file}" in message
    assert "learning_rate = 'fast'" in message
