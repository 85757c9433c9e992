from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import report
from tests.toy_records import add_run, rewrite


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for dataset in ("Toy", "Beauty"):
        paper = "Beauty" if dataset == "Beauty" else None
        add_run(tmp_path, [1, 1, 3, 30], dataset=dataset, paper=paper, train=20)
        add_run(tmp_path, [5, 1, 3, 30], dataset=dataset, paper=paper, model="SASRec", family="sequential")
    return tmp_path


def fail(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run a command that must fail and return its error message."""
    assert report.main(options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.slow
def test_all_datasets(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--output", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "Toy, test part" in shown
    assert "Beauty, test part" in shown
    for dataset in ("Toy", "Beauty"):
        for name in ("table.md", "table.csv", "table.tex", "slices.csv"):
            assert (results / dataset / name).is_file()


@pytest.mark.slow
def test_a_report_has_the_same_bytes_each_time(results: Path) -> None:
    def write_files() -> dict[str, bytes]:
        assert report.main(["--dataset", "Toy,Beauty", "--output", str(results)]) == 0
        return {str(path): path.read_bytes() for path in results.glob("*/*.*")}

    first = write_files()
    assert len(first) == 5 + 8
    assert write_files() == first


def test_the_protocol_chooses_the_table_that_is_printed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dataset", "Beauty", "--output", str(results), "--protocol"]
    assert report.main([*options, "unified"]) == 0
    assert "Protocol unified" in capsys.readouterr().out
    assert report.main([*options, "paper"]) == 0
    shown = capsys.readouterr().out
    assert "Protocol paper" in shown
    assert "(0.0426)" in shown


def test_other_cutoffs_and_metric(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--dataset", "Toy", "--output", str(results), "--cutoffs", "1,30", "--metric", "R@1"]) == 0
    assert "R@30" in capsys.readouterr().out


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail(capsys, "--output", str(tmp_path / "nothing"))
    assert "no record in " in said
    assert "hellm-recbole run --models all" in said


def test_a_dataset_without_records_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail(capsys, "--dataset", "Toys", "--output", str(results))
    assert f"no record of dataset Toys in {results / 'Toys'}" in said
    assert "hellm-recbole run --models all --dataset Toys" in said


def test_records_of_different_splits_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "Toy" / "SASRec" / "2024" / "record.json"
    rewrite(path, lambda content: content.update(split_hash="f" * 64))
    said = fail(capsys, "--dataset", "Toy", "--output", str(results))
    assert "split_hash differ" in said
    assert str(path) in said


@pytest.mark.parametrize("text", ["", "a", "0", "1,,2", "1.5", "-3"])
def test_bad_cutoffs_are_refused(results: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = fail(capsys, "--dataset", "Toy", "--output", str(results), f"--cutoffs={text}")
    assert "must be positive integers" in said


def test_a_bad_metric_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither R@K nor N@K" in fail(capsys, "--dataset", "Toy", "--output", str(results), "--metric", "MRX")


def test_a_bad_name_of_metrics_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail(capsys, "--dataset", "Toy", "--output", str(results), "--metrics", "MRR,Hr@10")
    assert "--metrics 'Hr@10' is unknown; did you mean HR@10?" in said


@pytest.mark.slow
def test_the_command_runs_from_another_folder(results: Path, tmp_path: Path) -> None:
    command = [sys.executable, report.__file__, "--dataset", "Toy", "--output", str(results)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LightGCN" in done.stdout
    broken = subprocess.run([*command, "--dataset", "None"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert broken.returncode == 2
    assert broken.stderr.startswith("error: no record")
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize("text", ["2000000000", "9" * 5000, "\u00b2", "5,5"])
def test_impossible_cutoffs_are_refused(results: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = fail(capsys, "--dataset", "Toy", "--output", str(results), f"--cutoffs={text}")
    assert "--cutoffs" in said
    assert len(said) < 500


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_an_empty_list_of_datasets_is_refused(results: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "--dataset names nothing" in fail(capsys, "--dataset", text, "--output", str(results))


def test_a_metric_with_a_huge_cutoff_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail(capsys, "--dataset", "Toy", "--output", str(results), "--metric", "N@2000000000")
    assert "with K at most 1,000,000" in said


def test_results_are_read_from_one_folder_and_the_report_is_written_to_another(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def list_files() -> list[Path]:
        return sorted(results.rglob("*.*"))

    work = tmp_path.parent / f"{tmp_path.name}-work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = list_files()
    assert report.main(["--from", str(results), "--output", "elsewhere"]) == 0
    assert report.main(["--dataset", "Toy", "--from", str(results)]) == 0
    assert list_files() == before
    assert (work / "elsewhere" / "Beauty" / "report.html").is_file()
    assert (work / "elsewhere" / "Toy" / "report.html").is_file()
    assert "written to results/report/Toy;" in capsys.readouterr().out
    assert (work / "results" / "report" / "Toy" / "table.md").is_file()


def test_the_folder_that_is_only_read_is_not_that_of_the_report(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(results.rglob("*"))
    said = fail(capsys, "--from", str(results), "--output", str(results / "x" / ".."))
    assert f"--from {results} is only read, so the report cannot be written there; choose another folder" in said
    assert sorted(results.rglob("*")) == before


def test_a_folder_to_read_without_records_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "check the folder of --from" in fail(capsys, "--from", str(results / "none"))
    said = fail(capsys, "--dataset", "Toy,Toys", "--from", str(results))
    assert f"no record in {results / 'Toys'}; check the folder of --from" in said


def test_the_ledger(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert report.main(["--output", str(results), "--dataset", "Beauty", "--ledger"]) == 0
    shown = capsys.readouterr().out
    assert "recboard" in shown
    assert "CoLLM and LLaRA are level: cannot be said" in shown
    for name in ("ledger.md", "ledger.csv", "claims.csv"):
        assert (results / "Beauty" / name).is_file()
