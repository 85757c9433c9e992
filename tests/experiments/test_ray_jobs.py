"""The board of runs on a Ray cluster; runs on a real cluster are in `tests/benchmarks/test_tune.py`."""

from __future__ import annotations

from hellm_recbole.experiments.ray_jobs import ProgressBoard


def test_the_board_keeps_the_latest_line_of_each_run_and_the_first_warning_of_each_tracker() -> None:
    board = ProgressBoard()
    for line in ("starting", "epoch 1 of at most 9"):
        board.set_line("LightGCN on toy, seed 3", line)
    board.set_line("Pop on toy, seed 3", "starting")
    for sentence in ("it failed", "it failed again"):
        board.add_warning("wandb", sentence)
    assert board.get_lines() == {"LightGCN on toy, seed 3": "epoch 1 of at most 9", "Pop on toy, seed 3": "starting"}
    assert board.get_warnings() == {"wandb": "it failed"}
