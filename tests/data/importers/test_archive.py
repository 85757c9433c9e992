from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from hellm_recbole.data.importers import archive
from hellm_recbole.data.importers.archive import unpack_source
from hellm_recbole.errors import DataError


def write_zip(path: Path, entries: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as stream:
        for name, content in entries.items():
            stream.writestr(name, content)
    return path


def write_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as stream:
        for member in members:
            stream.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, **changes: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = 1
    for key, value in changes.items():
        setattr(found, key, value)
    return found


def check_refused(path: Path, tmp_path: Path, message: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message) as caught, unpack_source(path):
        pytest.fail("it was unpacked")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack archives in a folder that the test can see."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(archive.tempfile, "mkdtemp", lambda **names: str(_make_folder(folder / "one")))
    return folder


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_an_archive_of_one_folder_yields_this_folder_and_removes_it(tmp_path: Path, temporary: Path) -> None:
    with unpack_source(write_zip(tmp_path / "data.zip", {"Toy/a.txt": "1", "Toy/b.txt": "2"})) as folder:
        assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.txt": "1", "b.txt": "2"}
    assert not list(temporary.iterdir())
    with unpack_source(write_tar(tmp_path / "data.tar.gz", member("a.txt"), member("b.txt"))) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]
    assert not list(temporary.iterdir())


def test_a_folder_is_yielded_as_it_is(tmp_path: Path) -> None:
    with unpack_source(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "..\\out.txt", "C:\\out.txt"])
def test_paths_that_lead_out_of_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    check_refused(write_zip(tmp_path / "data.zip", {"fine.txt": "1", name: "2"}), tmp_path, "leads out of the archive")
    check_refused(
        write_tar(tmp_path / "data.tgz", member("fine.txt"), member(name)), tmp_path, "leads out of the archive"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    evil = member("link", type=kind, linkname="/etc/passwd", size=0)
    check_refused(write_tar(tmp_path / "data.tar.gz", evil), tmp_path, "'link' is a link or a device")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as stream:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        stream.writestr(link, "/etc/passwd")
    check_refused(path, tmp_path, "'link' is a link or a device")


def test_a_huge_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    check_refused(write_zip(tmp_path / "data.zip", {"a": "x" * (1 << 19), "b": "x" * (1 << 20)}), tmp_path, "more than")
    check_refused(write_tar(tmp_path / "d.tar.gz", member("a", size=1 << 20), member("b")), tmp_path, "more than")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data.tar"])
def test_a_cut_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("zip"):
        write_zip(path, {"a": "x" * 1000})
    else:
        write_tar(path, member("a", size=1000))
    path.write_bytes(path.read_bytes()[:60])
    check_refused(path, tmp_path, "cannot be unpacked: .* download it again")


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.xz"])
def test_an_archive_with_changed_bytes_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"data.{ending}"
    content = bytes(random.Random(0).choices(range(64), k=5000))
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
            stream.writestr("a", content)
    else:
        with tarfile.open(path, f"w:{ending[-2:]}") as tar:
            entry = tarfile.TarInfo("a")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    whole = bytearray(path.read_bytes())
    middle = slice(len(whole) // 2, len(whole) // 2 + 100)
    whole[middle] = b"\xff" * 100
    path.write_bytes(whole)
    check_refused(path, tmp_path, rf"data\.{ending} cannot be unpacked: .*; download it again")


def test_errors_inside_the_folder_name_the_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {"Toy/a.txt": "1"})
    with pytest.raises(DataError, match=rf"^{path}/a\.txt is broken$"), unpack_source(path) as folder:
        raise DataError(f"{folder}/a.txt is broken")


def test_folders_that_killed_processes_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f".hellm-unpacked-x.tmp-{ended.pid}", f".hellm-unpacked-y.tmp-{os.getppid()}", ".hellm-unpacked-z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    source = write_zip(tmp_path / "source.zip", {"a.txt": "a"})
    with unpack_source(source) as folder:
        assert (folder / "a.txt").read_text() == "a"
    assert {path.name for path in tmp_path.glob(".hellm-*")} == {
        f".hellm-unpacked-y.tmp-{os.getppid()}",
        ".hellm-unpacked-z",
    }
