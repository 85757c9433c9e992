"""A storage in a folder; what a real S3 server does is in `tests/benchmarks/test_storage_on_s3.py`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.system import storage as module
from hellm_recbole.system.storage import Storage, StorageError, check_uri, open_storage

# Messages of pyarrow 26 against moto 5, an endpoint without a server, and a user without rights.
NO_BUCKET = (
    "When initiating multiple part upload for key 'a/x' in bucket 'nobucket': AWS Error NO_SUCH_BUCKET during "
    "CreateMultipartUpload operation: The specified bucket does not exist"
)
NO_SERVER = (
    "When initiating multiple part upload for key 'a/x' in bucket 'b': AWS Error NETWORK_CONNECTION during "
    "CreateMultipartUpload operation: curlCode: 7, Could not connect to server; Details: Failed to connect to x"
)
NO_RIGHTS = "When listing objects under key '' in bucket 'b': AWS Error ACCESS_DENIED during ListObjectsV2 operation"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "store").as_uri())


def test_files_are_written_completely_listed_read_and_removed(storage: Storage, tmp_path: Path) -> None:
    storage.write("runs/a/one", b"1")
    (tmp_path / "local").write_bytes(b"22")
    storage.upload(tmp_path / "local", "runs/a/two")
    assert storage.list_files("runs/a").keys() == {"one", "two"}
    assert storage.list_folders("runs") == ["a"]
    assert storage.list_files("runs/none") == {}
    assert (storage.read("runs/a/one"), storage.read("runs/a/none")) == (b"1", None)
    storage.download("runs/a/two", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"22"
    storage.remove("runs/a/one")
    storage.remove("runs/a/one")
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == ["two"]


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("results/x", "is no URI; write file:///FOLDER or s3://BUCKET/FOLDER"),
        ("s3://", "names no folder or bucket"),
        ("file:///", "names no folder or bucket"),
        ("s3://AK:hush@bucket/x", "contains a key"),
        ("s3://bucket/x?secret_key=hush", "contains a key"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_repeating_a_secret(uri: str, sentence: str) -> None:
    with pytest.raises(StorageError) as refused:
        check_uri(uri)
    assert sentence in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("uri", ["foo://a/b", "s3://bucket/x?foo=1"])
def test_a_uri_that_pyarrow_does_not_know_is_refused_in_one_sentence(uri: str) -> None:
    with pytest.raises(StorageError, match="is not understood"):
        open_storage(uri)


def test_a_pyarrow_without_s3_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        @staticmethod
        def from_uri(uri: str) -> None:
            raise NotImplementedError("Got S3 URI but Arrow compiled without S3 support")

    monkeypatch.setattr("pyarrow.fs.FileSystem", Without)
    with pytest.raises(StorageError, match=r"the installed pyarrow cannot open it \(Got S3 URI"):
        open_storage("s3://bucket/x")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write \.probe.*Not a directory; choose another --storage"):
        open_storage((tmp_path / "file" / "store").as_uri())


class Broken:
    """A file system that fails a number of times."""

    type_name = "s3"

    def __init__(self, files: Any, error: OSError, times: int) -> None:
        self._files, self._error, self.left = files, error, times

    def open_input_stream(self, path: str) -> Any:
        if self.left:
            self.left -= 1
            raise self._error
        return self._files.open_input_stream(path)


def break_storage(storage: Storage, monkeypatch: pytest.MonkeyPatch, error: OSError, times: int) -> list[float]:
    """Let a storage fail a number of times, with a clock that only pauses move. Return the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(pauses))
    storage._files = Broken(storage._files, error, times)
    return pauses


@pytest.mark.parametrize("error", [OSError(NO_SERVER), OSError(errno.ECONNRESET, "Connection reset by peer")])
def test_an_operation_that_nothing_answers_is_repeated_with_growing_pauses(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError
) -> None:
    storage.write("x", b"1")
    pauses = break_storage(storage, monkeypatch, error, 6)
    assert storage.read("x") == b"1"
    assert pauses == [1, 2, 4, 8, 15, 15]
    assert capsys.readouterr().err.count("does not answer") == 1


def test_it_ends_when_nothing_answers_for_long(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = break_storage(storage, monkeypatch, OSError(NO_SERVER), 10**6)
    with pytest.raises(StorageError, match=r"did not answer for 180 s \(Could not connect to server\)"):
        storage.read("x")
    assert 150 < sum(pauses) <= 180


@pytest.mark.parametrize(
    ("message", "sentence"), [(NO_BUCKET, "there is no such bucket"), (NO_RIGHTS, "access is denied")]
)
def test_a_refusal_is_not_repeated(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, message: str, sentence: str
) -> None:
    pauses = break_storage(storage, monkeypatch, OSError(message), 1)
    with pytest.raises(StorageError, match=sentence):
        storage.read("x")
    assert pauses == []
