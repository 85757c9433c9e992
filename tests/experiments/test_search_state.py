"""The state of a search on disk."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.experiments.search_state import copy_state, needs_lock, remove_state, restore_state


def test_the_folder_of_a_removed_checkpoint_is_made_again(tmp_path: Path) -> None:
    """Ray gives up a trial whose checkpoint has no folder."""
    trial = tmp_path / "ray" / "train_trial_ab_00000"
    (trial / "checkpoint_000002").mkdir(parents=True)
    (tmp_path / "ray" / "tuner.pkl").touch()
    (tmp_path / "staging").mkdir()
    copy_state(tmp_path / "staging", tmp_path / "ray")
    assert restore_state(tmp_path / "state", tmp_path / "ray")
    assert sorted(path.name for path in trial.iterdir()) == [f"checkpoint_00000{number}" for number in range(3)]


def test_there_is_nothing_to_restore_if_the_search_was_killed_before_its_first_trial(tmp_path: Path) -> None:
    assert not restore_state(tmp_path / "state", tmp_path / "ray")


def test_a_finished_search_is_locked_only_until_its_state_is_removed(tmp_path: Path) -> None:
    assert needs_lock(tmp_path)
    (tmp_path / "sweep.json").touch()
    assert not needs_lock(tmp_path)
    (tmp_path / "ray").mkdir()
    assert needs_lock(tmp_path)
    remove_state(tmp_path, tmp_path.parent)
    assert not needs_lock(tmp_path)
