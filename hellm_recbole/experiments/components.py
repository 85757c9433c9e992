"""The finished runs that a combined run combines: their results, and their part of its identity."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError, ResultError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, digest_run, read_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.parts import CombinedRunIdentity, list_code_digests, list_feature_digests


def is_finished(folder: Path) -> bool:
    """Return whether the folder of a run holds the result of a successful run."""
    try:
        return read_result(folder / RECORD_FILE).status == "success"
    except ResultError:
        return False


def read_component(config: RunConfig, split: Split, context: RunContext) -> RunResult:
    """Read the result of a run that another one combines.

    Args:
        config: run config of the run.
        split: split of the dataset.
        context: output folder and seed of the run that combines it, which it shares.

    Raises:
        ModelError: the run is missing, has not succeeded, or used another split.
    """
    folder = context.locate_run(config, split.dataset)
    needs = f"needs the scores of {config.label}, but its run {folder}"
    try:
        result = read_result(folder / RECORD_FILE)
    except ResultError as error:
        raise ModelError(
            f"{needs} has no usable result; run {config.model} first (hellm-recbole run does this itself)"
        ) from error
    if result.status != "success":
        raise ModelError(f"{needs} is {result.status}")
    if result.split_hash != split.sha256:
        raise ModelError(f"{needs} used another split; run {config.model} again with --fresh")
    if result.evaluated and result.ranks_sha256 is None:
        raise ModelError(f"{needs} was made by a version that did not record the digest of ranks; run it with --fresh")
    return result


def identify_components(config: RunConfig, split: Split, context: RunContext) -> dict[str, CombinedRunIdentity]:
    """Collect the identities of the runs that a run combines: label -> identity. Other runs combine none.

    Raises:
        ModelError: such a run is missing, has not succeeded, or used another split.
    """
    return {row.label: _identify(read_component(row, split, context)) for row in config.combined_runs}


def _identify(result: RunResult) -> CombinedRunIdentity:
    """Collect the identity of a combined run."""
    run = digest_run(result)
    scores = result.ranks_sha256 if result.evaluated else run  # a model that was trained on all data has no ranks
    assert scores is not None
    origin = result.identity
    code = (
        {}
        if origin is None
        else {key: value for part in list_code_digests(origin)[::-1] for key, value in part.items()}
    )
    return {
        "ranks_sha256": scores,
        "run_sha256": run,
        "features": None if origin is None else dict(list_feature_digests(origin)),
        "code": None if origin is None else code,
    }
