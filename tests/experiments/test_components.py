"""Runs that others combine: which are refused, and what of them is part of the identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.components import identify_components, is_finished, read_component
from hellm_recbole.experiments.results import RunResult, digest_run, write_result
from tests.toy_combined import build_context, resolve_combined
from tests.toy_records import toy_identity, toy_record


def write(output: Path, split: Split, **changes: object) -> RunResult:
    """Write the result of a run of SASRec."""
    result = toy_record(model="SASRec", dataset="toy", seed=7, split_hash=split.sha256, ranks_sha256="12ab", **changes)  # type: ignore[arg-type]
    write_result(output / "toy" / "SASRec" / "7", result)
    return result


def test_runs_that_cannot_be_combined_are_refused_in_one_sentence(tmp_path: Path, toy_split: Split) -> None:
    (row,) = resolve_combined("SASRec-priors").rows
    context = build_context(tmp_path)
    with pytest.raises(
        ModelError, match=r"^needs the scores of SASRec, but its run .* has no usable result; run SASRec"
    ):
        read_component(row, toy_split, context)
    write(tmp_path, toy_split, status="failed", reason="loss is NaN", metrics={"valid": {}, "test": {}})
    assert not is_finished(tmp_path / "toy" / "SASRec" / "7")
    with pytest.raises(ModelError, match=r"is failed$"):
        read_component(row, toy_split, context)
    result = write(tmp_path, toy_split)
    assert is_finished(tmp_path / "toy" / "SASRec" / "7")
    assert read_component(row, toy_split, context).ranks_sha256 == "12ab"
    with pytest.raises(ModelError, match="used another split; run SASRec again with --fresh"):
        read_component(row, replace(toy_split, sha256="other"), context)
    write_result(tmp_path / "toy" / "SASRec" / "7", replace(result, ranks_sha256=None))
    with pytest.raises(ModelError, match="did not record the digest of ranks"):
        read_component(row, toy_split, context)


def test_the_identity_has_ranks_features_and_code_of_the_run_and_of_those_behind_it(
    tmp_path: Path, toy_split: Split
) -> None:
    inner = {"ranks_sha256": "0", "run_sha256": "1", "features": {"image": "b"}, "code": {"x.inner": "2"}}
    code = {"sha256": "", "modules": {"x.own": "3"}}
    result = write(tmp_path, toy_split, identity=toy_identity("a", code=code, runs={"Pop": inner}))
    found = identify_components(resolve_combined("SASRec-priors"), toy_split, build_context(tmp_path))
    assert found == {
        "SASRec": {
            "ranks_sha256": "12ab",
            "run_sha256": digest_run(result),
            "features": {"text": "a", "image": "b"},
            "code": {"x.own": "3", "x.inner": "2"},
        }
    }
    assert identify_components(resolve_combined("Priors"), toy_split, build_context(tmp_path)) == {}
