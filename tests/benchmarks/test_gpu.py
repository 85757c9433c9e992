from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks import gpu
from hellm_recbole.models.base import LLM


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_one_sentence_names_the_form_for_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--output", str(tmp_path / "table")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no GPU was found; `python benchmarks/gpu.py --device cpu` runs the same")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--parts", "tests,speed"], "--parts 'speed' is unknown; it can be tests, memory"),
        (["--models", "SASRec,Sasrek"], "--models 'Sasrek' is no row that is measured here"),
        (["--minutes", "0"], "--minutes 0 must be at least 1"),
        (["--row-seconds", "0"], "--row-seconds 0 must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    assert gpu.main(["--device", "cpu", *arguments]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.slow
def test_the_form_for_a_cpu_measures_every_row(tmp_path: Path) -> None:
    code = gpu.main(["--device", "cpu", "--minutes", "60", "--row-seconds", "1800", "--output", str(tmp_path)])
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    failed = [line for line in lines if line["outcome"] not in ("measured", "passed", "left out")]
    assert failed == []
    assert code == 0
    times = {(line["row"], line["mode"]): line for line in lines if line["part"] == "times"}
    assert {row for row, _ in times} == {*REGISTRY}
    for (row, mode), line in times.items():
        if line["outcome"] == "measured":
            assert float(line["ranking_s"]) > 0
            assert bool(line["epoch_s"]) is not REGISTRY[row].is_fitted
        else:
            assert (row, mode) in {(name, "bfloat16") for name in ("GRCN", "LATTICE", "TIGER")}
    memory = {line["row"]: line for line in lines if line["part"] == "memory"}
    assert {*memory} == {name for name, spec in REGISTRY.items() if spec.family == LLM}
    assert all(float(line["predicted_mib"]) > 0 and line["note"].startswith("no verdict") for line in memory.values())
    both = [line for line in lines if line["part"] == "processes"]
    assert [line["outcome"] for line in both] == ["measured", "passed"]
    assert [line["mode"] for line in lines if line["part"] == "compile"] == ["off", "on"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "NOT a GPU" in text
    assert text.count("\n| ") >= len(lines)
