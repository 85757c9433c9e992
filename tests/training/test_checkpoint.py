from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hellm_recbole.errors import CheckpointError
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress, separate_shared

PROGRESS = Progress({}, 1, 1, 0.5, 0, False, 0.0, 0.0, ())


def build_shared_tensors() -> dict[str, torch.Tensor]:
    weight, other = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    return {"a": weight, "b": weight, "c": weight.T, "d": weight[1:], "e": other, "f": torch.empty(0), "g": weight}


def test_shared_tensors_are_written_once_and_read_under_all_their_names(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(PROGRESS, build_shared_tensors(), build_shared_tensors())
    loaded = folder.load({})
    assert loaded is not None
    for tensors in (loaded[1], folder.load_best()):
        assert tensors.keys() == build_shared_tensors().keys()
        for name, value in build_shared_tensors().items():
            assert torch.equal(tensors[name], value), name
    entry = json.loads((tmp_path / "state.json").read_text())["files"]["last"]
    assert entry["aliases"] == {"b": "a", "g": "a"}


def test_tensors_without_shared_memory_have_no_aliases() -> None:
    own, aliases = separate_shared({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.empty(0), "d": torch.empty(0)})
    assert (list(own), aliases) == (["a", "b", "c", "d"], {})


@pytest.mark.parametrize("aliases", [{"b": "z"}, 3, ["b"]])
def test_damaged_aliases_are_refused(tmp_path: Path, aliases: object) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(PROGRESS, build_shared_tensors(), None)
    state = json.loads((tmp_path / "state.json").read_text())
    state["files"]["last"]["aliases"] = aliases
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="is corrupt"):
        folder.load({})


def test_a_checkpoint_from_before_a_setting_existed_has_its_old_value(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(replace(PROGRESS, run={"seed": "1"}), build_shared_tensors(), None)
    assert folder.load({"seed": "1", "setting decay_epochs": "50"}) is not None
    with pytest.raises(CheckpointError, match="was made with decay_epochs = 50 and now it is 60"):
        folder.refuse_changed({"seed": "1", "setting decay_epochs": "60"})
