"""Raw files of published datasets: where they are fetched, and what of them is there already."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.config.layers import Resolved, build_settings, find_properties, load_yaml
from hellm_recbole.data.download.fetch import DownloadSettings, Fetched, download
from hellm_recbole.data.importers.sources import find_amazon_files
from hellm_recbole.system.files import ensure_folder

MIRRORS = "mirrors.yaml"


def read_download_settings() -> DownloadSettings:
    """How files are fetched, from `properties/download.yaml`."""
    path = find_properties() / "download.yaml"
    layer = load_yaml(path)
    return build_settings(DownloadSettings, Resolved(layer, dict.fromkeys(layer, str(path))))


def list_fetched_kinds() -> list[str]:
    """Kinds of source whose raw files can be fetched."""
    return list(load_yaml(find_properties() / MIRRORS))


def fetch_raw(kind: str, category: str, folder: Path, *, progress: bool) -> list[Fetched]:
    """Fetch what is missing of a category's reviews and metadata; what is there is checked, not fetched again.

    Args:
        kind: one of `list_fetched_kinds`.
        category: Amazon's name of it.
        folder: of the raw files.
        progress: show progress bars.

    Raises:
        DataError: a file cannot be had from any address, or one that is there is broken.
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
