from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import speed
from hellm_recbole.data.atomic import Dataset
from tests.toy import write_prepared

pytest.importorskip("recbole", reason="RecBole is not installed")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path


def test_all_parts_print_a_ratio(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--repeat", "1", "--steps", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    for what in ("full ranking, LightGCN", "epoch, LightGCN", "epoch, SASRec"):
        (line, *_) = [line for line in shown.splitlines() if line.startswith(what)]
        numbers = [float(part) for part in line.split() if part.replace(".", "").isdecimal() and "." in part]
        assert len(numbers) == 3
        assert all(number >= 0 for number in numbers)
    assert sorted(path.name for path in workplace.iterdir()) == ["dataset"]  # RecBole left nothing behind


def test_an_unknown_part_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--parts", "epochs"]) == 2
    assert "--parts 'epochs' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [([], "needs --released"), (["--released", "."], "holds no codes/Models.py; pass a checkout of")],
)
def test_the_published_code_must_be_there(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert speed.main(["--dataset", "toy", "--parts", "hellmpre", "--threads", "1", *arguments]) == 2
    assert part in capsys.readouterr().err
