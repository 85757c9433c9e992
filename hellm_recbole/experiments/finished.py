"""Find runs that are already finished, and refuse those that something they depend on has changed for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError, shorten, strip_controls
from hellm_recbole.experiments.components import identify_components
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.earlier_names import describe_renamed
from hellm_recbole.experiments.external_embeddings import OPTION, find_external
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, list_result_parts, read_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.code import find_changed_modules
from hellm_recbole.identity.compare import CODE, FILE, describe_changes, list_names, list_parts
from hellm_recbole.identity.parts import Identity, list_code_digests, list_embedding_files, list_unknown_parts
from hellm_recbole.training.checkpoint import CheckpointFolder


def find_finished_run(config: RunConfig, split: Split, context: RunContext, store: PretrainedStore) -> RunResult | None:
    """Return the result of this run if it is already finished, else None.

    A finished run is also returned if only its code has changed since; `describe_finished_run` reports the change. What
    an earlier version of this project did not record is not compared.

    Args:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        store: pretrained embeddings that the command has loaded.

    Raises:
        ResultError: the run is finished, but something that it depends on has changed since; the message says what.
            Or its result cannot be read, or is of a model that was trained on all data.
        ModelError: pretrained embeddings that the run reads, or runs that it combines, are missing.
        DataError: the language model cannot be loaded.
    """
    path = context.locate_run(config, split.dataset) / RECORD_FILE
    if not path.exists():
        return None
    result = read_result(path)
    if result.status != "success":
        return None
    if config.source != result.source and (renamed := describe_renamed(result)):
        raise ResultError(f"{path} is a run of {renamed}; run with --fresh to replace it, or choose another --output")
    if not result.evaluated:
        raise ResultError(f"{path} is of a model that was trained on all data for use; choose another --output")
    changes = describe_input_changes(result, config, split, context, store)
    if changes:
        raise ResultError(f"{path} was made with {changes}; run with --fresh to replace it, or choose another --output")
    return result


def describe_input_changes(
    result: RunResult, config: RunConfig, split: Split, context: RunContext, store: PretrainedStore
) -> str:
    """Describe what a finished run depended on and what has changed since; "" if nothing has. Code is not compared.

    Args:
        result: result of the run.
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        store: pretrained embeddings that the command has loaded.

    Raises:
        ModelError: pretrained embeddings that the run reads, or runs that it combines, are missing.
        DataError: the language model cannot be loaded.
    """
    embeddings = store.load(context.output, split, config.pretrained_tables, context.seed)
    old = list_result_parts(result)
    if old is None:  # an earlier version recorded only settings, split and embeddings
        old = list_parts(
            _identify_only_embeddings(result.stages), _list_settings(result), result.split_hash, result.seed
        )
        identity = _identify_only_embeddings(embeddings.digests)
    else:
        identity = identify_run(config, split, embeddings.identities, identify_components(config, split, context))
    new = list_parts(identity, json.loads(json.dumps(config.reproducibility_settings())), split.sha256, context.seed)
    return describe_changes(*({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (old, new)))


def describe_finished_run(result: RunResult, files: Mapping[str, str] | None = None) -> str:
    """Describe a finished run that is not run again, and whether everything it depends on is still the same.

    Args:
        result: result of the run.
        files: pretrained model -> name of the file that the command names for its embeddings. A run that has read the
            same embeddings from another run is kept, and stays without the mark of embeddings from files.
    """
    parts = ["finished before, kept"]
    read = list_embedding_files(result.identity)
    for model, file in (files or {}).items():
        if model not in read:
            parts.append(f"{file} holds the same embeddings of {model} as the run that this one has read")
    unknown = list_unknown_parts(result.identity, result.backbone is not None)
    if result.identity is None or unknown:
        parts.append(f"{', '.join(unknown)}: unknown (recorded by an earlier version)")
    elif changed := find_changed_modules(*list_code_digests(result.identity)):
        parts.append(f"its code has changed since ({list_names(changed)}; --fresh runs it again)")
    return "; ".join(parts)


def refuse_changed_checkpoint(config: RunConfig, split: Split, context: RunContext) -> None:
    """Refuse to resume a run if something that it depends on has changed since its checkpoint was written.

    Pretrained embeddings of other runs may not exist yet; they are compared when the run starts.

    Raises:
        CheckpointError: something has changed; the message says what.
        DataError: the language model cannot be loaded.
    """
    folder = context.locate_run(config, split.dataset) / CHECKPOINT
    if folder.is_dir():
        external = find_external(split, config.pretrained_models)
        identity = identify_run(config, split, {name: found.identity for name, found in external.items()})
        parts = list_run_parts(config, split, context.seed, identity)
        unknown = [f"embeddings of {name}" for name in config.pretrained_models if name not in external]
        CheckpointFolder(folder).refuse_changed(parts, unknown=unknown)


def refuse_lost_files(folder: Path, models: Collection[str]) -> None:
    """Refuse to train pretrained models for an earlier run that has read their embeddings from files.

    Args:
        folder: folder of the earlier run, which is finished or has a checkpoint.
        models: pretrained models that would be trained first.

    Raises:
        ResultError: the earlier run has read embeddings of such a model from a file.
    """
    held = {RECORD_FILE: _list_record_files(folder), CHECKPOINT: _list_checkpoint_files(folder)}
    for name, files in held.items():
        for model in models:
            if model in files:
                file = shorten(strip_controls(files[model]))
                raise ResultError(
                    f"{folder / name} was made with embeddings of {model} from the file {file}; "
                    f"name it again ({OPTION} {model}=FILE), run with --fresh to train {model} instead, or choose "
                    "another --output"
                )


def _list_record_files(folder: Path) -> dict[str, str]:
    """List the files of embeddings in the record of an earlier run: pretrained model -> name of its file."""
    try:
        files = list_embedding_files(read_result(folder / RECORD_FILE).identity)
    except ResultError:  # there is none, or it is broken, which is reported when its turn comes
        return {}
    return {model: file["file"] for model, file in files.items()}


def _list_checkpoint_files(folder: Path) -> dict[str, str]:
    """List the files of embeddings in the checkpoint of an earlier run, which has no record if it was killed."""
    run = CheckpointFolder(folder / CHECKPOINT).read_run()
    return {key.removeprefix(FILE): file for key, file in run.items() if key.startswith(FILE)}


def _list_settings(result: RunResult) -> dict[str, Any]:
    """List the recorded settings of a run that can change its numbers."""
    return {key: entry["value"] for key, entry in result.settings.items() if key not in NEUTRAL_KEYS}


def _identify_only_embeddings(embeddings: Mapping[str, str]) -> Identity:
    """Build the identity of a run from all that an earlier version recorded: the digests of its embeddings.

    Args:
        embeddings: pretrained model -> SHA-256 of its item embeddings.
    """
    return {
        "features": {},
        "item_texts": None,
        "language_model": None,
        "embeddings": {
            name: {"sha256": digest, "run_sha256": None, "features": None, "code": None}
            for name, digest in embeddings.items()
        },
        "code": {"sha256": "", "modules": {}},
    }
