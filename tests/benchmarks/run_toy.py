"""Call run.py on the toy dataset, for the tests of that command."""

from __future__ import annotations

import pytest

from hellm_recbole.benchmarks import run

QUICK = ["--set", "epochs=3", "--set", "batch_size=64", "--threads", "1"]


def command(*arguments: str) -> int:
    return run.main(["--dataset", "toy", *QUICK, *arguments])


def fail_with_sentence(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that must fail without a traceback. Return the only sentence of its error message."""
    capsys.readouterr()
    assert command(*arguments) == code
    err = capsys.readouterr().err
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, err
    assert "Traceback" not in err
    return sentences[0]
