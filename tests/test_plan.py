from __future__ import annotations

from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from hellm_recbole import plan
from hellm_recbole.errors import SettingsError

PRESET = """
overall: {epochs: 3, patience: 2}
models: {SASRec: {epochs: 4, batch_size: 16}}
datasets: {tiny: {SASRec: {epochs: 5}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings, with a preset `brief` of our own."""
    real = plan.properties_dir()
    for part in real.iterdir():
        if part.name != "preset":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "brief.yaml").write_text(PRESET)
    monkeypatch.setattr(plan, "properties_dir", lambda: tmp_path)
    return tmp_path


def epochs(model: str, dataset: str) -> tuple[int, str]:
    (row,) = plan.plan_rows([model], dataset, REGISTRY, "brief", [])
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
