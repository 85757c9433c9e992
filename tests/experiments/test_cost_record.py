from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.cost_record import Costs
from hellm_recbole.experiments.results import digest_run, read_result, write_result
from tests.toy_records import rewrite, toy_record

COSTS = Costs(resident_bytes=5, row_bytes=7, examples_per_epoch=24, tokens_per_epoch=None)


def test_costs_are_written_and_read(tmp_path: Path) -> None:
    path = write_result(tmp_path, toy_record(costs=COSTS))
    assert read_result(path).costs == COSTS


def test_a_record_without_costs_does_not_have_the_key(tmp_path: Path) -> None:
    path = write_result(tmp_path, toy_record())
    assert "costs" not in path.read_text()
    assert read_result(path).costs is None


def test_costs_are_no_part_of_what_a_number_depends_on() -> None:
    assert digest_run(toy_record()) == digest_run(replace(toy_record(), costs=COSTS))


def test_wrong_costs_are_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path, toy_record(costs=COSTS))
    rewrite(path, lambda content: content["costs"].update(row_bytes="much"))
    with pytest.raises(ResultError, match="row_bytes"):
        read_result(path)
