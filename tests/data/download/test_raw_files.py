"""The raw files of published datasets: what is said before they are downloaded, and what is refused."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.download import raw_files as module
from hellm_recbole.data.download.raw_files import fetch_raw, find_raw_source, list_fetched_kinds, locate_raw
from hellm_recbole.data.importers.sources import KINDS, find_amazon_files
from hellm_recbole.data.known_datasets import list_datasets, list_kinds
from hellm_recbole.data.prepare import read_dataset_settings
from hellm_recbole.errors import DataError, OutputError
from tests.data.download.server import Server, breaking, plain
from tests.data.download.small import BODY, GZIP, NO_RETRY, OTHER

Fetch = Callable[..., tuple[Path, list[str]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def fetch(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Serve files from `/pub`, and fetch them as the dataset Toy of kind amazon2014; return the lines, too."""
    monkeypatch.setattr(module, "read_download_settings", lambda: NO_RETRY)

    def run(*files: dict[str, Any], url: str | None = None) -> tuple[Path, list[str]]:
        default = {"alternatives": [], "folders": [url or server.url("/pub")], "size_bytes": None, "sha256": None}
        source = {"verified": False, "terms": "for tests", "files": [{**default, **file} for file in files]}
        monkeypatch.setattr(module, "load_yaml", lambda path: {"amazon2014": source})
        lines: list[str] = []
        path, _ = fetch_raw("amazon2014", "Toy", "Toys", folder, progress=False, report=lines.append)
        return path, lines

    return run


def test_files_sizes_hosts_folder_and_terms_are_said_before(server: Server, folder: Path, fetch: Fetch) -> None:
    server.add("/pub/Toys.gz", plain(GZIP))
    server.add("/pub/more.txt", plain(OTHER))
    server.sizes["/pub/Toys.gz"] = len(GZIP)
    path, lines = fetch({"name": "{category}.gz"}, {"name": "more.txt"})
    host = server.url("")
    assert (path, (folder / "Toys.gz").read_bytes()) == (folder, GZIP)
    assert lines == [
        f"Toy: downloading its raw files of kind amazon2014 (at least 0.1 MB) to {folder}",
        f"  Toys.gz: 0.1 MB, from {host}",
        f"  more.txt: size not known, from {host}",
        "  terms: for tests",
        "  unverified: these addresses have not been tried with this version; the files may have moved",
        "  (--no-download refuses this; a download that is stopped is resumed by the same command)",
    ]
    assert fetch({"name": "{category}.gz"}, {"name": "more.txt"})[1] == []  # nothing is missing


def test_an_interrupted_download_is_resumed(server: Server, folder: Path, fetch: Fetch) -> None:
    server.add("/pub/a.bin", breaking(BODY, 1))
    with pytest.raises(DataError, match=r"cannot fetch a\.bin"):
        fetch({"name": "a.bin"})
    half = len(BODY) // 2
    _, lines = fetch({"name": "a.bin", "size_bytes": len(BODY)})
    assert lines[1] == f"  a.bin: 0.1 MB, 0.1 MB of it already here, from {server.url('')}"
    assert server.ranges("/pub/a.bin") == [None, f"bytes={half}-"]
    assert (folder / "a.bin").read_bytes() == BODY


def test_another_form_of_a_file_is_used(server: Server, folder: Path, fetch: Fetch) -> None:
    folder.mkdir()
    (folder / "Toys.txt").write_bytes(BODY)
    assert fetch({"name": "Toys.gz", "alternatives": ["Toys.txt"]}) == (folder, [])
    assert server.asked == []


def test_an_archive_is_the_source_itself(server: Server, folder: Path, fetch: Fetch) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inner/ratings.dat", "x")
    server.add("/pub/toy.zip", plain(stream.getvalue()))
    assert fetch({"name": "toy.zip"})[0] == folder / "toy.zip"


def test_a_wrong_checksum_is_refused(server: Server, folder: Path, fetch: Fetch) -> None:
    server.add("/pub/a.bin", plain(OTHER))
    expected = hashlib.sha256(BODY).hexdigest()
    with pytest.raises(DataError, match=f"its SHA-256 is .*, not {expected}"):
        fetch({"name": "a.bin", "sha256": expected})
    assert list(folder.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_the_download(server: Server, folder: Path, fetch: Fetch) -> None:
    server.add("/pub/a.bin", plain(BODY))
    server.sizes["/pub/a.bin"] = 10**18
    message = r"^the raw files of Toy need 1,000,000,000,000\.0 MB, but .* has [\d,.]+ MB free; free some space"
    with pytest.raises(OutputError, match=message):
        fetch({"name": "a.bin"})
    assert (server.asked, folder.exists()) == ([], False)


def test_without_a_network_the_hosts_are_named_at_once(server: Server, folder: Path, fetch: Fetch) -> None:
    server.server_close()
    with pytest.raises(DataError) as caught:
        fetch({"name": "a.bin"})
    message = str(caught.value)
    assert message.startswith(f"cannot fetch a.bin: no answer from {server.url('')} (no connection); connect to")
    assert f"put the file into {folder} by hand" in message
    assert not folder.exists()


def test_every_published_source_loads_and_claims_nothing_that_was_not_tried() -> None:
    sources = load_yaml(find_properties() / "mirrors.yaml")
    assert set(list_fetched_kinds()) <= KINDS.keys()
    for key in sources:
        kind, _, name = key.partition("/")
        source = find_raw_source(kind, name or "any")
        assert source is not None
        assert not source.verified
        assert source.terms
        for file in source.files:
            assert all(address.startswith(("https://", "http://snap.stanford.edu/")) for address in file.folders)


def test_the_raw_files_of_each_dataset_are_those_that_its_importer_reads(tmp_path: Path) -> None:
    for name in list_datasets():
        for kind in list_kinds(name):
            source, category = find_raw_source(kind, name), read_dataset_settings(name, kind, {}).category
            if source is None:
                continue
            names = [file.name.format(name=name, category=category) for file in source.files]
            main = [file.format(name=name, category=category) for file in KINDS[kind].main_files]
            others = [text.format(name=name, category=category) for text in source.files[0].alternatives]
            assert names[0] in main or set(others) <= set(main)
            if kind.startswith("amazon"):
                assert category is not None
                assert names == [files[0] for files in find_amazon_files(kind, category)]
            assert locate_raw(source, name, category, tmp_path) is None


def test_only_named_datasets_of_a_kind_can_be_fetched() -> None:
    assert find_raw_source("movielens", "ml-1m") is not None
    assert find_raw_source("movielens", "mine") is None
    assert find_raw_source("sequences", "Beauty") is None
