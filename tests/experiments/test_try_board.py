from __future__ import annotations

from hellm_recbole.experiments.try_board import TryBoard


def test_each_block_has_a_count_of_its_own() -> None:
    board = TryBoard()
    assert [board.begin(4), board.begin(0), board.begin(4)] == [1, 1, 2]
