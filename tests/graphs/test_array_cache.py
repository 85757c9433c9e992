from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.errors import DataError
from hellm_recbole.graphs.array_cache import load_or_compute

FEATURES = np.arange(6, dtype=np.float32).reshape(3, 2)


class Compute:
    """Computes an array and counts how often."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self) -> np.ndarray:
        self.n_calls += 1
        return np.array([[self.n_calls, 1], [2, 3], [4, 5]])


def test_an_array_is_computed_once_for_the_same_inputs(tmp_path: Path) -> None:
    compute = Compute()
    one = load_or_compute(tmp_path / "cache", "codes", __name__, "seed 1", FEATURES, compute)
    again = load_or_compute(tmp_path / "cache", "codes", __name__, "seed 1", FEATURES.copy(), compute)
    assert (compute.n_calls, one.tolist()) == (1, again.tolist())
    for inputs, features in (("seed 2", FEATURES), ("seed 1", FEATURES + 1), ("seed 1", FEATURES.reshape(3, 2, 1))):
        load_or_compute(tmp_path / "cache", "codes", __name__, inputs, features, compute)
    assert compute.n_calls == 4


def test_without_a_folder_it_is_computed_each_time() -> None:
    compute = Compute()
    for _ in range(2):
        load_or_compute(None, "codes", __name__, "seed 1", FEATURES, compute)
    assert compute.n_calls == 2


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    compute = Compute()
    for _ in range(2):
        load_or_compute(tmp_path / "file" / "cache", "codes", __name__, "seed 1", FEATURES, compute)
    assert compute.n_calls == 2
    assert capsys.readouterr().err.count("warning: codes cannot be cached, so that each run computes them") == 1


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    load_or_compute(tmp_path, "codes", __name__, "seed 1", FEATURES, Compute())
    (path,) = tmp_path.glob("codes-*.npz")
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(DataError, match=r"the cached codes in .* are broken .*; delete that file"):
        load_or_compute(tmp_path, "codes", __name__, "seed 1", FEATURES, Compute())


def test_an_array_of_another_length_is_refused(tmp_path: Path) -> None:
    load_or_compute(tmp_path, "codes", __name__, "seed 1", FEATURES, lambda: np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(DataError, match="do not fit the features; delete that file"):
        load_or_compute(tmp_path, "codes", __name__, "seed 1", FEATURES, Compute())
