"""The packaged language model is converted whole or not at all, and nothing is left of conversions that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hellm_recbole.errors import OutputError
from hellm_recbole.llm import packaged

FINAL = f"gemma-3-270m-{packaged.SHA256[:12]}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, with a package whose conversion writes one small file."""

    def convert(parts: list[Path], folder: Path) -> None:
        (folder / "model.safetensors").write_text("")

    monkeypatch.setenv("HELLM_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "_find_parts", lambda: [tmp_path] * packaged.N_PARTS)
    monkeypatch.setattr(packaged, "_convert", convert)
    return tmp_path


def test_leftovers_of_killed_conversions_are_removed(cache: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old, new = cache / "gemma-3-270m-abcd1234", cache / "gemma-3-270m-abcd12_4"  # named by an earlier version
    for folder in (old, new, cache / f".{FINAL}.tmp-{gone.pid}", cache / f".{FINAL}.tmp-{os.getppid()}"):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert packaged.unpack_model() == cache / FINAL
    assert sorted(path.name for path in (cache / FINAL).iterdir()) == ["complete", "model.safetensors"]
    # A folder that is less than a day old may still be in use.
    assert sorted(os.listdir(cache)) == sorted([f".{FINAL}.tmp-{os.getppid()}", FINAL, new.name])


def test_a_conversion_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(parts: list[Path], folder: Path) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(packaged, "_convert", full)
    with pytest.raises(OutputError, match=rf"cannot write .*{FINAL}: no space left on .* needed"):
        packaged.unpack_model()
    assert os.listdir(cache) == []
