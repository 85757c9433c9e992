from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from hellm_recbole.data.encoding_blocks import Block, Encode, FoundEncoder, encode_here
from hellm_recbole.data.encoding_cache import encode_with_cache
from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.prepare import read_feature_settings
from hellm_recbole.errors import DataError, HellmError, SettingsError
from hellm_recbole.experiments.ray_cluster import connect_cluster
from hellm_recbole.experiments.ray_encoding import MAX_TRIES, RemoteEncoder, SentEncoder, encode_on_ray

TEXTS = [letter * length for length in range(9, 0, -1) for letter in "abc"]  # [27], the longest first
SETTINGS = {"encode_batch_size": 2, "encode_block_batches": 1, "encode_device": "cpu"}


def make_settings(**changes: object) -> FeatureSettings:
    return read_feature_settings({**SETTINGS, **changes})


def make_found(load: Callable[[], Encode], part: int = 4) -> FoundEncoder:
    return FoundEncoder({"encoder": "toy"}, ["toy"], part, load)


def make_sent(load: Callable[[], Encode] | None, find: Callable[[], FoundEncoder] | None = None) -> SentEncoder:
    return SentEncoder("toy", ["toy"], find, load, reads_files=False, folder=Path.cwd(), n_cpus=1)


def load_lengths() -> Encode:
    return lambda texts: np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def encode_one(encoder: RemoteEncoder, texts: str = '["aa", "b"]') -> dict[str, object]:
    (row,) = encoder(pa.table({"start": [4], "stop": [6], "inputs": [texts]})).to_pylist()
    return dict(row)


def raise_it(error: BaseException) -> Callable[[], Encode]:
    def load() -> Encode:
        raise error

    return load


def test_an_actor_returns_the_bytes_of_its_block() -> None:
    row = encode_one(RemoteEncoder(make_sent(load_lengths), lambda start: 1))
    assert (row["start"], row["stop"], row["problem"]) == (4, 6, "")
    assert np.frombuffer(row["values"], np.float32).tolist() == [2, 97, 1, 98]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (DataError("encoder 'toy' cannot be loaded from /m; pass a whole model"), "DataError", "from /m; pass a whole"),
        (MemoryError(), "HellmError", "encoder 'toy' ran out of memory; give fewer --encode-actors"),
        (torch.OutOfMemoryError("CUDA out of memory"), "HellmError", "encoder 'toy' ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "HellmError", "encoder 'toy' ran out of memory"),
        (FileNotFoundError(2, "No such file", "/p/1.jpg"), "HellmError", "cannot read /p/1.jpg (No such file); all"),
        (ValueError("shapes differ"), "HellmError", "failed on the Ray cluster (ValueError: shapes differ)"),
    ],
)
def test_what_an_actor_cannot_do_is_one_sentence(error: BaseException, kind: str, part: str) -> None:
    row = encode_one(RemoteEncoder(make_sent(raise_it(error)), lambda start: 1))
    assert (row["kind"], row["values"]) == (kind, b"")
    assert part in str(row["problem"])
    assert "(node " in str(row["problem"])
    assert str(row["problem"]).endswith("; the same command continues from the blocks that are finished")


def test_a_block_is_given_up_after_some_tries() -> None:
    encoder = RemoteEncoder(make_sent(load_lengths), lambda start: MAX_TRIES + 1)
    assert "the Ray actor that encodes inputs 4 to 5 died 4 times" in str(encode_one(encoder)["problem"])
    assert encode_one(RemoteEncoder(make_sent(load_lengths), lambda start: MAX_TRIES))["problem"] == ""


def test_another_version_of_the_encoder_on_a_node_is_refused() -> None:
    def find(key: str) -> Callable[[], FoundEncoder]:
        return lambda: FoundEncoder({}, [key], 4, load_lengths)

    assert encode_one(RemoteEncoder(make_sent(None, find("toy")), lambda start: 1))["problem"] == ""
    row = encode_one(RemoteEncoder(make_sent(None, find("other")), lambda start: 1))
    assert "the files of encoder 'toy' differ from those on the machine of the command" in str(row["problem"])


def test_blocks_are_whole_batches_and_ray_chooses_the_gpu() -> None:
    assert encode_on_ray(make_settings(encode_batch_size=64, encode_block_batches=4)).largest == 256
    with pytest.raises(SettingsError, match="--encode-device cuda:1: on a Ray cluster the device must be auto, cpu or"):
        encode_on_ray(make_settings(encode_device="cuda:1"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    encode_on_ray(make_settings())
    with connect_cluster("local", 2):
        yield


def encode(found: FoundEncoder, folder: Path, **changes: object) -> tuple[np.ndarray, int]:
    where = encode_on_ray(make_settings(**{"encode_actors": 2, **changes}))
    rows, speed = encode_with_cache(TEXTS, found, folder / "cache", progress=False, unit="text", encoding=where)
    return rows, speed.n_encoded


def make_killer(folder: Path, *, once: bool) -> Callable[[], Encode]:
    """Make the loader of an encoder whose process is killed at the text "aaaaa", once or each time."""
    folder.mkdir()

    def load() -> Encode:
        def encode(texts: Sequence[str]) -> np.ndarray:
            (folder / f"{os.getpid()}").touch()
            killed = folder / "killed"
            if "aaaaa" in texts and not (once and killed.exists()):
                killed.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)

        return encode

    return load


@pytest.mark.slow
def test_a_killed_actor_is_restarted_and_the_matrix_is_the_same(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, n_encoded = encode(make_found(make_killer(tmp_path / "pids", once=True)), tmp_path)
    ((_, expected),) = encode_here([Block(0, 27)], [TEXTS], make_found(load_lengths))
    assert n_encoded == 27
    assert rows.tobytes() == expected.tobytes()
    pids = {path.name for path in (tmp_path / "pids").iterdir() if path.name.isdecimal()}
    killed = (tmp_path / "pids" / "killed").read_text()
    assert not Path(f"/proc/{killed}").exists()
    assert len(pids) == 3  # two actors, and the one that took the place of the killed one
    assert killed in pids
    assert "a Ray actor died, so 2 inputs were encoded 2 times" in capsys.readouterr().err


@pytest.mark.slow
def test_an_actor_that_always_dies_ends_the_encoding_and_finished_blocks_are_kept(
    cluster: None, tmp_path: Path
) -> None:
    with pytest.raises(HellmError, match="the Ray actor that encodes inputs 12 to 13 died 4 times, most often because"):
        encode(make_found(make_killer(tmp_path / "pids", once=False)), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.suffix == ".npy")
    assert kept
    assert "000000012-2.npy" not in kept
    rows, speed = encode_with_cache(
        TEXTS, make_found(load_lengths), tmp_path / "cache", progress=False, unit="text"
    )  # in this process
    assert speed.n_encoded == 27 - sum(int(name.removesuffix(".npy").partition("-")[2]) for name in kept)
    assert rows[:, 0].tolist() == [len(text) for text in TEXTS]


@pytest.mark.slow
def test_faults_on_the_cluster_are_one_sentence(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no such model \(node .*\); the same command goes on with"):
        encode(make_found(raise_it(DataError("no such model"))), tmp_path)
    with pytest.raises(HellmError, match=r"failed on the Ray cluster \(RuntimeError: shapes"):
        encode(make_found(raise_it(RuntimeError("shapes differ"))), tmp_path)
    with pytest.raises(
        SettingsError, match="encoding with 3 actors needs 1 CPUs for each, and the Ray cluster has room"
    ):
        encode(make_found(load_lengths), tmp_path, encode_actors=3)
    with pytest.raises(SettingsError, match="encode_cpus is 64, but the largest node of the Ray cluster has 2 CPUs"):
        encode(make_found(load_lengths), tmp_path, encode_cpus=64)
