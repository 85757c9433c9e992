from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.extra_files import (
    RatedScores,
    SampledRanks,
    locate_rated,
    locate_sampled,
    read_rated,
    read_sampled,
    write_rated,
    write_sampled,
)

CANDIDATES = Candidates("popularity", 100, 2024)
USER, ITEM, RANK = np.array(["u1", "u\u00e9"]), np.array(["a", "b c"]), np.array([3, 101], dtype=np.int32)
SAMPLED = SampledRanks(CANDIDATES, "d1", "d2", 1, USER, ITEM, RANK)
RATED = RatedScores("both", "d2", 0, USER, ITEM, np.array([4.0, 2.5]), np.array([0.1, -np.inf]), RANK)


def assert_equal(one: Any, other: Any) -> None:
    for spec in fields(one):
        a, b = getattr(one, spec.name), getattr(other, spec.name)
        assert type(a) is type(b)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_sampled(tmp_path, CANDIDATES, "d2") is None
    assert read_rated(tmp_path, "both", "d2") is None
    assert write_sampled(tmp_path, SAMPLED).name == "sampled_popularity_100_seed2024.npz"
    assert write_rated(tmp_path, RATED).name == "native_auc_both.npz"
    sampled, rated = read_sampled(tmp_path, CANDIDATES, "d2"), read_rated(tmp_path, "both", "d2")
    assert_equal(sampled, SAMPLED)
    assert_equal(rated, RATED)
    assert read_sampled(tmp_path, replace(CANDIDATES, seed=1), "d2") is None
    assert read_rated(tmp_path, "test", "d2") is None


def test_a_file_of_an_earlier_run_is_refused(tmp_path: Path) -> None:
    write_sampled(tmp_path, SAMPLED)
    write_rated(tmp_path, RATED)
    with pytest.raises(
        ResultError, match="made beside another run in this folder; give the command hellm-recbole sampl"
    ):
        read_sampled(tmp_path, CANDIDATES, "d3")
    with pytest.raises(
        ResultError, match="made beside another run in this folder; give the command hellm-recbole nativ"
    ):
        read_rated(tmp_path, "both", "d3")


def test_damaged_and_renamed_files_are_refused(tmp_path: Path) -> None:
    path = write_sampled(tmp_path, SAMPLED)
    content = path.read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2], content.replace(b"u", b"v", 40)):
        path.write_bytes(damaged)
        with pytest.raises(ResultError, match=r"sampled_popularity_100_seed2024.npz .*; give the command"):
            read_sampled(tmp_path, CANDIDATES, "d2")
    other = Candidates("uniform", 100, 2024)
    locate_sampled(tmp_path, other).write_bytes(content)
    with pytest.raises(ResultError, match="does not hold what its name says"):
        read_sampled(tmp_path, other, "d2")
    locate_rated(tmp_path, "test").write_bytes(write_rated(tmp_path, RATED).read_bytes())
    with pytest.raises(ResultError, match="does not hold what its name says"):
        read_rated(tmp_path, "test", "d2")
    np.savez(path, about=np.array("{}"), user=USER, item=ITEM, rank=RANK.astype(np.float64))
    with pytest.raises(ResultError, match="has an array of another type"):
        read_sampled(tmp_path, CANDIDATES, "d2")
    np.savez(path, about=np.array("{}"), user=USER, item=ITEM, rank=RANK[:1])
    with pytest.raises(ResultError, match="has arrays of different lengths"):
        read_sampled(tmp_path, CANDIDATES, "d2")
    np.savez(path, about=np.array('{"ranks_sha256": "d2"}'), user=USER, item=ITEM, rank=RANK)
    with pytest.raises(ResultError, match="is damaged"):
        read_sampled(tmp_path, CANDIDATES, "d2")
