"""Requests to the Hugging Face hub through `huggingface_hub`, each fault as one sentence.

Token, endpoint and cache are those of `huggingface_hub`: `hf auth login` or `HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`. Large
files go through its Xet storage if `hf_xet` is installed, which it is on most platforms.
"""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hellm_recbole import __version__
from hellm_recbole.errors import HubError
from hellm_recbole.hub.faults import find_transport_error, is_connection_fault, take_text, translate_errors
from hellm_recbole.hub.names import HubName

Kind = Literal["model", "dataset"]
LIBRARY = "hellm-recbole"
CARD = "README.md"
_IGNORED = frozenset({".gitattributes"})  # the hub makes this file
_NOTHING_LOST = "nothing was pushed"


@dataclass(frozen=True)
class Pushed:
    """What a push has made.

    Attributes:
        url: address of the repository.
        commit: hash of the commit.
        is_private: whether only its owners see the repository.
        is_new: whether the push has made the repository.
    """

    url: str
    commit: str
    is_private: bool
    is_new: bool


def push_folder(
    folder: Path,
    repository: str,
    kind: Kind,
    *,
    message: str,
    private: bool,
    replaced: Sequence[str],
    check: Callable[[str | None, Sequence[str]], None],
    manifest: str,
) -> Pushed:
    """Upload a folder in one commit: the repository has all of its files afterwards, or is what it was before.

    Args:
        folder: folder to upload, with a card.
        repository: id of the repository, which is made if it does not exist.
        kind: kind of the repository.
        message: message of the commit.
        private: whether a new repository is private. An existing one must be what is asked for, if that is private.
        replaced: patterns of earlier files that the commit removes.
        check: called with the text of the manifest of an existing repository, None if it has none, and with the names
            of its files; it raises an error if they may not be replaced.
        manifest: name of the manifest.

    Raises:
        HubError: there is no network, no token or no right to push, or the hub refuses the card or the files.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name=LIBRARY, library_version=__version__)
    with translate_errors(HubName(repository), f"push to {repository}", _NOTHING_LOST):
        _refuse_missing_token(api, repository)
        _validate_card((folder / CARD).read_text(encoding="utf-8"), kind)
        existing = _find_repository(api, repository, kind)
        if existing is not None:
            names = sorted({file.rfilename for file in existing.siblings or ()} - _IGNORED)
            check(_read_manifest(api, repository, kind, manifest) if manifest in names else None, names)
            _refuse_public(api, repository, kind, is_private=bool(existing.private), wanted=private)
        else:
            api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
    try:
        with translate_errors(HubName(repository), f"push to {repository}"):
            commit = api.upload_folder(
                repo_id=repository,
                repo_type=kind,
                folder_path=folder,
                commit_message=message,
                delete_patterns=list(replaced),
            )
    except HubError as error:
        raise HubError(f"{error}; {_describe_outcome(api, repository, kind, existing)}") from error.__cause__
    with translate_errors(HubName(repository), f"ask for {repository}", f"all files were pushed (commit {commit.oid})"):
        info = api.repo_info(repository, repo_type=kind)
    return Pushed(_make_url(api.endpoint, repository, kind), str(commit.oid), bool(info.private), existing is None)


def _describe_outcome(api: Any, repository: str, kind: Kind, before: Any | None) -> str:
    """Describe what a failed commit has left, as the hub answers now. Its answer may be lost though it was made.

    Args:
        api: client of the hub.
        repository: id of the repository.
        kind: kind of the repository.
        before: what the hub has said about the repository before; None if this push has made it.
    """
    url = _make_url(api.endpoint, repository, kind)
    try:
        with translate_errors(HubName(repository), f"ask for {repository}"):
            now = api.repo_info(repository, repo_type=kind)
    except HubError:
        return f"it is not known whether the files were pushed; look at {url}, or give the same command again"
    names = {file.rfilename for file in now.siblings or ()} - _IGNORED
    if names if before is None else now.sha != before.sha:
        return f"{url} has a new commit ({now.sha}), so it is not known whether this push made it; look there"
    if before is not None:
        return _NOTHING_LOST
    seen = "private" if now.private else "public"
    return (
        f"{_NOTHING_LOST}; the new, empty repository {repository} stays ({seen}): the same command fills it, or delete "
        f"it at {url}/settings"
    )


def _make_url(endpoint: str, repository: str, kind: Kind) -> str:
    """Return the address of a repository."""
    return f"{endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}"


def _refuse_missing_token(api: Any, repository: str) -> None:
    """Refuse to push without a token, or with one that the hub does not know.

    Raises:
        HubError: there is no token.
        HfHubHTTPError: the hub does not know it.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise HubError(
            f"cannot push to {repository}: no token of the Hugging Face hub was found; log in with `hf auth login`, or "
            f"set HF_TOKEN; {_NOTHING_LOST}"
        )
    api.whoami()


def _validate_card(text: str, kind: Kind) -> None:
    """Let the hub check the front matter of a card, before a repository is made. The commit checks it again.

    Raises:
        HubError: the front matter is refused.
    """
    from huggingface_hub import DatasetCard, ModelCard

    transport = find_transport_error()
    try:
        (DatasetCard if kind == "dataset" else ModelCard)(text, ignore_metadata_errors=True).validate(kind)
    except transport as error:
        if not is_connection_fault(error):  # releases before 2 ask huggingface.co, even if HF_ENDPOINT is another hub
            raise
    except ValueError as error:
        raise HubError(f"the hub refuses the card ({take_text(error)}); {_NOTHING_LOST}") from error


def _find_repository(api: Any, repository: str, kind: Kind) -> Any | None:
    """Return what the hub says about a repository; None if there is none, or the token may not see it."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.repo_info(repository, repo_type=kind)
    except RepositoryNotFoundError:
        return None


def _read_manifest(api: Any, repository: str, kind: Kind, manifest: str) -> str:
    """Return the text of the manifest of an existing repository."""
    return Path(api.hf_hub_download(repository, manifest, repo_type=kind)).read_text(encoding="utf-8", errors="replace")


def _refuse_public(api: Any, repository: str, kind: Kind, *, is_private: bool, wanted: bool) -> None:
    """Refuse to push something private into a repository that everybody sees.

    Raises:
        HubError: the repository is public.
    """
    if wanted and not is_private:
        raise HubError(
            f"{repository} exists and is public; make it private at {_make_url(api.endpoint, repository, kind)}"
            f"/settings, leave --private out, or push to another repository; {_NOTHING_LOST}"
        )


@dataclass(frozen=True)
class Fetched:
    """A repository whose manifest was fetched.

    Attributes:
        name: name of the repository.
        kind: kind of the repository.
        manifest: content of its manifest.
        is_offline: whether only the local cache is read.
        cache: folder of the repository in the cache.
    """

    name: HubName
    kind: Kind
    manifest: Any
    is_offline: bool
    cache: Path


def fetch_manifest(name: HubName, kind: Kind, manifest: str, advice: str) -> Fetched:
    """Fetch the manifest of a repository, or read it from the cache if the hub cannot be reached.

    Args:
        name: the repository.
        kind: kind of the repository.
        manifest: name of its manifest, a JSON file.
        advice: what is not one of ours, for the message about a repository without a manifest.

    Raises:
        HubError: there is no such repository or revision, it has no manifest, it may not be read, or the hub cannot be
            reached and the cache does not have it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    is_offline = not _can_reach(name, kind)
    try:
        with translate_errors(name, f"fetch {name}"):
            path = hf_hub_download(
                name.repository,
                manifest,
                repo_type=kind,
                revision=name.revision,
                library_name=LIBRARY,
                library_version=__version__,
                local_files_only=is_offline,
            )
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except HubError as error:
        if isinstance(error.__cause__, RemoteEntryNotFoundError):
            raise HubError(f"{name} is not {advice}: it has no {manifest}; check the name") from error
        if is_offline and isinstance(error.__cause__, LocalEntryNotFoundError):
            raise _make_offline_error(name) from error
        raise
    except (ValueError, RecursionError) as error:
        raise HubError(
            f"{name} is not {advice}, or its copy in the cache is damaged: its {manifest} is not JSON; check the name, "
            f"or remove {find_cache_folder(path)} and load it again"
        ) from error
    return Fetched(name, kind, content, is_offline, find_cache_folder(path))


def find_cache_folder(path: str) -> Path:
    """Return the folder `models--ORG--NAME` of a cached file `models--ORG--NAME/snapshots/COMMIT/FILE`."""
    return Path(path).parents[2]


def fetch_files(fetched: Fetched, files: Sequence[str]) -> Path:
    """Fetch some files of a repository, and no others; what the cache has already is not fetched again.

    Args:
        fetched: the repository, from `fetch_manifest`.
        files: names of the files.

    Returns:
        Folder of these files, in the cache of `huggingface_hub`.

    Raises:
        HubError: a file cannot be fetched, or is missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = fetched.name
    try:
        with translate_errors(name, f"fetch {name}"):
            folder = snapshot_download(
                name.repository,
                repo_type=fetched.kind,
                revision=name.revision,
                allow_patterns=[glob.escape(file) for file in files],
                library_name=LIBRARY,
                library_version=__version__,
                local_files_only=fetched.is_offline,
            )
    except HubError as error:
        if fetched.is_offline and isinstance(error.__cause__, LocalEntryNotFoundError):
            raise _make_offline_error(name) from error
        raise
    for file in files:
        if not (Path(folder) / file).is_file():
            raise HubError(f"{name} lacks {file}, which its manifest names; push it again")
    return Path(folder)


def _can_reach(name: HubName, kind: Kind) -> bool:
    """Return whether the hub answers about a repository. If not, a line says that the cache is read.

    Raises:
        HubError: it answers that there is no such repository or revision, or that it may not be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi(library_name=LIBRARY, library_version=__version__)
    try:
        with translate_errors(name, f"fetch {name}"):
            api.repo_info(name.repository, repo_type=kind, revision=name.revision, files_metadata=False)
    except HubError as error:
        cause = error.__cause__
        if isinstance(cause, OfflineModeIsEnabled):
            return False
        if cause is None or not is_connection_fault(cause):
            raise
        print(f"note: {api.endpoint} cannot be reached; {name} is read from the cache", file=sys.stderr)
        return False
    return True


def _make_offline_error(name: HubName) -> HubError:
    """Make the error about a repository that only the hub has, which cannot be reached."""
    return HubError(
        f"{name} is not in the cache, and the hub cannot be reached; check the network (and HF_HUB_OFFLINE, "
        "HF_ENDPOINT), or load the run from its folder"
    )
