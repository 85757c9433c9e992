"""One trial of a search."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from ray import tune as ray_tune

from hellm_recbole.experiments.trial import restore_checkpoint
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress


def test_a_trial_whose_checkpoint_was_being_removed_starts_from_scratch(tmp_path: Path) -> None:
    progress = Progress({"seed": "1"}, 2, 1, 0.5, 1, False, 1.0, 1.0, ())
    CheckpointFolder(tmp_path / "whole").save(progress, {"w": torch.ones(2)}, {"w": torch.zeros(2)})
    whole = {path.name for path in (tmp_path / "whole").iterdir()}
    assert whole == {"best-00002.safetensors", "last-00002.safetensors", "state.json"}
    for missing in (None, *sorted(whole)):
        earlier = shutil.copytree(tmp_path / "whole", tmp_path / "earlier", dirs_exist_ok=True)
        if missing is not None:
            (earlier / missing).unlink()
        copied = CheckpointFolder(tmp_path / f"copied-{missing}")
        found_checkpoint: Any = ray_tune.Checkpoint.from_directory(str(earlier))
        restore_checkpoint(found_checkpoint, copied, {"seed": "1"})
        found = copied.load({"seed": "1"})
        assert (found is None) == (missing is not None)
    copied = CheckpointFolder(tmp_path / "nothing")
    removed: Any = ray_tune.Checkpoint.from_directory(str(tmp_path / "removed"))
    restore_checkpoint(removed, copied, {"seed": "1"})
    assert copied.load({"seed": "1"}) is None
