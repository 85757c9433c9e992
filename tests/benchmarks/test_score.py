from __future__ import annotations

import json
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import score
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from tests.toy import write_prepared


@pytest.fixture(autouse=True)
def work_in_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset, toy_split: Split) -> None:
    """A working folder with a prepared dataset, and a TREC run that has each test target on the second place."""
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    lines = []
    for user, target in zip(toy_split.test.user.tolist(), toy_split.test.item.tolist(), strict=True):
        seen = {*toy_split.make_test_history().get_items(user).tolist(), target}
        other = next(item for item in range(1, toy_split.n_items + 1) if item not in seen)
        lines += [f"u{user} Q0 i{other} 1 9.0 x", f"u{user} Q0 i{target} 2 8.0 x"]
    Path("my.run").write_text("\n".join(lines) + "\n")


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert score.main([*words]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_run_of_another_system_becomes_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["my.run", "--dataset", "toy", "--cutoffs", "1,2", "--export", "trec"]) == 0
    shown = capsys.readouterr().out
    assert "my on toy, test: my.run, scores (trec)\n2 candidates are listed for a user" in shown
    assert "R@1 0.0000, N@1 0.0000, R@2 1.0000, N@2 0.6309" in shown
    record = json.loads(Path("results/toy/my/external/record.json").read_text())
    assert record["external"]["files"]["test"]["missing"] == 0
    exported = Path("results/toy/my/external/test-lists.run").read_text().splitlines()
    given = Path("my.run").read_text().splitlines()
    assert [line.split()[:4] for line in exported] == [line.split()[:4] for line in given]
    assert "my/external exists; replace it with --fresh" in fail(capsys, "my.run", "--dataset", "toy")


def test_wrong_options_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("SASRec", "SASRec-tuned", "Mine@gemma", "VBPR-shuffled-text", "HeLLMPre-without-CL", "Pop-priors"):
        message = fail(capsys, "my.run", "--dataset", "toy", "--name", name)
        assert f"--name {name}: runs of this project can have this name" in message
    assert "write FIELD=COLUMN" in fail(capsys, "my.run", "--dataset", "toy", "--columns", "user")
    assert "a seed must be at least 0" in fail(capsys, "my.run", "--dataset", "toy", "--seed", "-1")
    assert "there is no such file" in fail(capsys, "other.run", "--dataset", "toy")
