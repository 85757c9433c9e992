"""The manifest `hellm.json` of a pushed run: which files it has, with their SHA-256, and what it is.

It is sealed with the SHA-256 of its content, and names JSON and safetensors files only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hellm_recbole.config.schema import describe_fault
from hellm_recbole.errors import HubError
from hellm_recbole.system.files import check_seal, seal, sha256_file

MANIFEST = "hellm.json"
SCHEMA = 1
RUNS, TABLES, ADAPTER = "runs", "pretrained", "adapter"  # folders of a repository
_PART = r"[^/\\\x00-\x1f]+"
_LOADED = re.compile(
    rf"{RUNS}/{_PART}/{_PART}/\d+/(?:record\.json|checkpoint/state\.json|checkpoint/{_PART}\.safetensors)"
    rf"|{TABLES}/{_PART}\.safetensors"
)
WHAT = "a run that hellm-recbole push has written"


class _Entries(BaseModel):
    """A JSON object with known keys and exact types, which cannot be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RunManifest(_Entries):
    """Content of `hellm.json`.

    Attributes:
        version: version of the format; its key in the file is `schema`.
        kind: what the repository holds.
        hellm_recbole: version of this project that has written it.
        run: folder of the run in the repository, `runs/DATASET/MODEL/SEED`.
        split_sha256: hash of the split of its dataset.
        files: file that is read to load the run -> SHA-256.
    """

    version: int = Field(alias="schema")
    kind: Literal["run"]
    hellm_recbole: str
    run: str
    split_sha256: str
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file, with its seal."""
        return seal(self.model_dump(mode="json", by_alias=True))


def parse_manifest(content: Any, name: object, cache: Path | None = None) -> RunManifest:
    """Check the content of a manifest from the hub, which anybody may have written.

    Args:
        content: parsed JSON.
        name: name of the repository, for messages.
        cache: folder of the repository in the cache, for messages.

    Raises:
        HubError: it is not one, was changed, is of another version, or names a file of another kind.
    """
    if not isinstance(content, dict) or "schema" not in content or content.get("kind") != "run":
        raise HubError(f"{name} is not {WHAT}: its {MANIFEST} is of something else; check the name")
    if content["schema"] != SCHEMA:
        raise HubError(
            f"the {MANIFEST} of {name} is of version {content['schema']!r}, and this version of the project reads "
            f"{SCHEMA}; install the version of the project that pushed it"
        )
    try:
        manifest = RunManifest.model_validate(check_seal(content))
    except ValidationError as error:
        raise HubError(f"the {MANIFEST} of {name}: {describe_fault(error)}; push the run again") from error
    except ValueError as error:
        advice = "" if cache is None else f"remove {cache} and load it again, or "
        raise HubError(
            f"the {MANIFEST} of {name} has changed since it was pushed ({error}); {advice}push it again"
        ) from error
    for file in (*manifest.files, f"{manifest.run}/record.json"):
        if not is_loaded(file):
            raise HubError(
                f"the {MANIFEST} of {name} names {file!r}, which is not a file of a run; such a file is not fetched"
            )
    return manifest


def is_loaded(file: str) -> bool:
    """Return whether a file of a repository is one that loading reads: a record, a checkpoint, or a table.

    >>> is_loaded("runs/Beauty/SASRec/2024/record.json"), is_loaded("runs/Beauty/SASRec/2024/checkpoint/best.pt")
    (True, False)
    """
    return _LOADED.fullmatch(file) is not None and not {".", ".."} & {*file.split("/")}


def check_files(manifest: RunManifest, folder: Path, name: object) -> None:
    """Compare fetched files with their digests.

    Raises:
        HubError: a file differs.
    """
    for file, digest in manifest.files.items():
        if sha256_file(folder / file) != digest:
            raise HubError(
                f"{file} of {name} is not the file that its {MANIFEST} names (SHA-256 differs); remove "
                f"{folder.parents[1]} and load it again, or push the run again"
            )
