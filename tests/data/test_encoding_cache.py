from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data import encoders
from hellm_recbole.data.features import FeatureSettings, encode_texts
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import append_checksum
from tests.data.small_encoders import (
    CountingEncoder,
)


def test_the_cache_is_used_until_texts_or_encoder_change(
    counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path
) -> None:
    def run(texts: list[str]) -> tuple[list[list[float]], int]:
        matrix, speed = encode_texts(["i", "j"], texts, settings, tmp_path / "cache", progress=False)
        return matrix.values.tolist(), speed.n_encoded

    first = run(["aa", "b"])
    assert run(["aa", "b"]) == (first[0], 0)
    assert run(["b", "cc"]) == ([[1, 98], [2, 99]], 2)
    (Path(settings.encoder) / "config.json").write_text("[]")  # another encoder with the same name
    assert run(["aa", "b"])[1] == 2
    assert len(counting.batches) == 3


def test_a_stopped_encoding_is_resumed(
    settings: FeatureSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppingEncoder(CountingEncoder):
        def __call__(self, *settings: object) -> Callable[[Sequence[str]], np.ndarray]:
            encode = super().__call__(settings)

            def encode_twice(texts: Sequence[str]) -> np.ndarray:
                if len(self.batches) == 2:
                    raise KeyboardInterrupt
                return encode(texts)

            return encode_twice

    texts = ["ddddd", "cccc", "bbb", "aa", "z"]
    ids = list("ijklm")
    monkeypatch.setattr(encoders, "load_text_encoder", StoppingEncoder())
    with pytest.raises(KeyboardInterrupt):
        encode_texts(ids, texts, settings, tmp_path / "cache", progress=False)
    rest = CountingEncoder()
    monkeypatch.setattr(encoders, "load_text_encoder", rest)
    matrix, speed = encode_texts(ids, texts, settings, tmp_path / "cache", progress=False)
    assert (rest.batches, speed.n_encoded) == ([["z"]], 1)
    assert matrix.values[:, 0].tolist() == [5, 4, 3, 2, 1]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]  # the parts became one file


def test_a_broken_cache_is_an_error(counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path) -> None:
    encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"is broken .*; delete that file"):
        encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    append_checksum(path)
    with pytest.raises(DataError, match="do not fit the inputs; delete that file"):
        encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
