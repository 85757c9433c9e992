"""Download the raw files of published datasets that a folder lacks, after saying what and how large they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import Settings, build_settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.download.connection import FetchFailed, open_session, read_content_length, request_url
from hellm_recbole.data.download.fetch import DownloadSettings, Fetched, download
from hellm_recbole.errors import DataError
from hellm_recbole.system.disk import format_megabytes, measure_size, refuse_too_small_disk
from hellm_recbole.system.files import ensure_folder

MIRRORS = "mirrors.yaml"
RAW = ".raw"  # folder of the raw files, in the folder of the prepared datasets
ARCHIVE_ENDING = ".zip"
Report = Callable[[str], object]  # prints a line


class RawFile(Settings):
    """A published file.

    Attributes:
        name: its name; `{category}` and `{name}` stand for the values of the dataset.
        alternatives: names of the same content in another form, such as unpacked; it is not fetched if one exists.
        folders: addresses of the folders that serve it, best first.
        size_bytes: its size; None if it is not known.
        sha256: its SHA-256; None if it is not known.
    """

    name: str
    alternatives: tuple[str, ...]
    folders: tuple[str, ...]
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class RawSource:
    """Where the raw files of a kind of source, or of one dataset, are published.

    Attributes:
        verified: whether this version of the project has fetched a file from its addresses.
        terms: terms of use, as its publishers state them.
        files: its files.
    """

    verified: bool
    terms: str
    files: tuple[RawFile, ...]


@dataclass(frozen=True)
class _MissingFile:
    """A file to fetch.

    Attributes:
        path: path that it will have.
        urls: its addresses, best first.
        sha256: its SHA-256; None if it is not known.
        size_bytes: its size; None if it is not known.
    """

    path: Path
    urls: tuple[str, ...]
    sha256: str | None
    size_bytes: int | None


def read_download_settings() -> DownloadSettings:
    """Read the download settings from `properties/download.yaml`."""
    path = find_properties() / "download.yaml"
    layer = load_yaml(path)
    return build_settings(DownloadSettings, Resolved(layer, dict.fromkeys(layer, str(path))))


def list_fetched_kinds() -> list[str]:
    """Return the kinds of sources whose raw files can be downloaded, for all datasets or for some."""
    return list(dict.fromkeys(key.partition("/")[0] for key in load_yaml(find_properties() / MIRRORS)))


def find_raw_source(kind: str, name: str) -> RawSource | None:
    """Find where the raw files of a dataset are published; None if they cannot be downloaded.

    Args:
        kind: kind of source.
        name: name of the dataset.

    Raises:
        SettingsError: `mirrors.yaml` has a wrong value.
    """
    path = find_properties() / MIRRORS
    sources = load_yaml(path)
    layer = sources.get(f"{kind}/{name}", sources.get(kind))
    if layer is None:
        return None
    files = (build_settings(RawFile, Resolved(file, dict.fromkeys(file, str(path)))) for file in layer["files"])
    return RawSource(layer["verified"], layer["terms"], tuple(files))


def locate_raw(source: RawSource, name: str, category: str | None, folder: Path) -> Path | None:
    """Return the folder or archive with the raw files if all of them exist, else None."""
    if not all(_find_existing(file, name, category, folder) for file in source.files):
        return None
    first = folder / source.files[0].name.format(name=name, category=category)
    return first if first.name.endswith(ARCHIVE_ENDING) and first.is_file() else folder


def fetch_raw(
    kind: str,
    name: str,
    category: str | None,
    folder: Path,
    *,
    progress: bool,
    report: Report = print,
) -> tuple[Path, list[Fetched]]:
    """Download the missing raw files of a dataset; existing files are only checked.

    Before anything is downloaded, the files, their sizes and hosts, the folder and the terms are reported.

    Args:
        kind: kind of source, of which `find_raw_source` knows the files.
        name: name of the dataset.
        category: Amazon's name of the category; None for other kinds.
        folder: folder of the raw files.
        progress: whether to show progress bars.
        report: function that prints a line.

    Returns:
        The folder or archive of the raw files, and the published files, downloaded or checked.

    Raises:
        DataError: no address serves a file, or an existing file is broken.
        OutputError: `folder` cannot be written to, or its disk is too small.
    """
    source, settings = find_raw_source(kind, name), read_download_settings()
    assert source is not None
    missing = _list_missing(source, name, category, folder, settings)
    if missing:
        for line in _describe(name, kind, source, missing, folder):
            report(line)
        needed = sum(max((file.size_bytes or 0) - _measure_part(file.path), 0) for file in missing)
        what = f"the raw files of {name}"
        refuse_too_small_disk(folder, needed, what)
    fetched = []
    for file in source.files:
        path, urls = folder / file.name.format(name=name, category=category), _list_urls(file, name, category)
        if path.is_file() or not _find_existing(file, name, category, folder):
            ensure_folder(folder, "--raw")
            fetched.append(download(urls, path, settings, progress=progress, sha256=file.sha256))
    located = locate_raw(source, name, category, folder)
    assert located is not None
    return located, fetched


def _find_existing(file: RawFile, name: str, category: str | None, folder: Path) -> Path | None:
    """Return the file, or the same content in another form, if one of them exists."""
    paths = (folder / text.format(name=name, category=category) for text in (file.name, *file.alternatives))
    return next((path for path in paths if path.is_file()), None)


def _list_urls(file: RawFile, name: str, category: str | None) -> tuple[str, ...]:
    """Return the addresses of a file, best first."""
    return tuple(f"{folder}/{file.name}".format(name=name, category=category) for folder in file.folders)


def _list_missing(
    source: RawSource, name: str, category: str | None, folder: Path, settings: DownloadSettings
) -> list[_MissingFile]:
    """List the files to fetch, with their sizes if a server tells them.

    Raises:
        DataError: no server of a file answers, so that there is probably no network.
    """
    missing = []
    for file in source.files:
        if _find_existing(file, name, category, folder) is None:
            path, urls = folder / file.name.format(name=name, category=category), _list_urls(file, name, category)
            size = file.size_bytes if file.size_bytes is not None else _ask_size(urls, path, settings)
            missing.append(_MissingFile(path, urls, file.sha256, size))
    return missing


def _ask_size(urls: Sequence[str], path: Path, settings: DownloadSettings) -> int | None:
    """Ask for the size of a file; None if no server tells it.

    Raises:
        DataError: no server answers.
    """
    reasons: dict[str, str] = {}
    with open_session(0, settings.backoff_s, time.sleep, retry_unanswered=False) as session:
        for url in urls:
            try:
                with request_url(session, url, {}, settings.size_timeout_s, "HEAD") as response:
                    return read_content_length(response)
            except FetchFailed as failure:
                if failure.again == "later":
                    reasons[_name_host(url)] = str(failure)
    if len(reasons) < len({_name_host(url) for url in urls}):
        return None
    answers = ", ".join(f"{host} ({reason})" for host, reason in reasons.items())
    raise DataError(
        f"cannot fetch {path.name}: no answer from {answers}; connect to the network and run again, or put the file "
        f"into {path.parent} by hand (--no-download names other files that would do, too)"
    )


def _describe(name: str, kind: str, source: RawSource, missing: Sequence[_MissingFile], folder: Path) -> list[str]:
    """Describe a download in lines: files, sizes, hosts, folder, terms."""
    sizes = [file.size_bytes for file in missing]
    known = sum(size for size in sizes if size is not None)
    total = (
        format_megabytes(known)
        if None not in sizes
        else f"at least {format_megabytes(known)}"
        if known
        else "size not known"
    )
    lines = [f"{name}: downloading its raw files of kind {kind} ({total}) to {folder}"]
    for file in missing:
        size = "size not known" if file.size_bytes is None else format_megabytes(file.size_bytes)
        part = _measure_part(file.path)
        resumed = f", {format_megabytes(part)} of it already here" if part else ""
        hosts = ", or ".join(dict.fromkeys(map(_name_host, file.urls)))
        lines.append(f"  {file.path.name}: {size}{resumed}, from {hosts}")
    lines.append(f"  terms: {source.terms}")
    if not source.verified:
        lines.append("  unverified: these addresses have not been tried with this version; the files may have moved")
    lines.append("  (--no-download refuses this; a download that is stopped is resumed by the same command)")
    return lines


def _name_host(url: str) -> str:
    """Return the scheme and host of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _measure_part(path: Path) -> int:
    """Return the size of the part of a file that an earlier download left."""
    return measure_size(path.with_name(f"{path.name}.part"))
