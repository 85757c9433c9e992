"""Download the raw files of published datasets that are missing in a folder."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import build_settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.download.fetch import DownloadSettings, Fetched, download
from hellm_recbole.data.importers.sources import find_amazon_files
from hellm_recbole.system.files import ensure_folder

MIRRORS = "mirrors.yaml"


def read_download_settings() -> DownloadSettings:
    """Read the download settings from `properties/download.yaml`."""
    path = find_properties() / "download.yaml"
    layer = load_yaml(path)
    return build_settings(DownloadSettings, Resolved(layer, dict.fromkeys(layer, str(path))))


def list_fetched_kinds() -> list[str]:
    """Return the kinds of sources whose raw files can be downloaded."""
    return list(load_yaml(find_properties() / MIRRORS))


def fetch_raw(kind: str, category: str, folder: Path, *, progress: bool) -> list[Fetched]:
    """Download the missing files of a category's reviews and metadata; existing files are only checked.

    Args:
        kind: one of `list_fetched_kinds`.
        category: Amazon's name of the category.
        folder: folder of the raw files.
        progress: whether to show progress bars.

    Returns:
        The published files, downloaded or checked.

    Raises:
        DataError: no address serves a file, or an existing file is broken.
        OutputError: `folder` cannot be written to.
    """
    mirrors, settings = load_yaml(find_properties() / MIRRORS)[kind], read_download_settings()
    fetched = []
    for part, names in zip(("reviews", "metadata"), find_amazon_files(kind, category), strict=True):
        published, *others = names
        if not any((folder / name).is_file() for name in others):
            urls = [f"{mirror}/{published}" for mirror in mirrors[part]]
            fetched.append(download(urls, ensure_folder(folder, "--raw") / published, settings, progress=progress))
    return fetched
