"""A change in what a result depends on is never ignored: unfinished runs are refused, and tables mark finished ones."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import report, run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.experiments.ranks_file import write_ranks
from hellm_recbole.experiments.results import read_result
from hellm_recbole.identity import code
from tests.toy import write_prepared
from tests.toy_records import rewrite, toy_ranks

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--dataset", "toy", "--threads", "1", "--set", "batch_size=64"]
RECORD = Path("results/toy/{}/2024/record.json")


def command(*arguments: str, epochs: int = 2) -> int:
    return run.main([*QUICK, "--set", f"epochs={epochs}", *arguments])


def make_unfinished(model: str) -> Path:
    """Remove the result of a finished run, so that its folder is that of an unfinished run."""
    folder = Path(f"results/toy/{model}/2024")
    (folder / "record.json").unlink()
    return folder


def change_features(folder: Path, dataset: Dataset, modality: str) -> None:
    features = {**dataset.features, modality: dataset.features[modality].copy()}
    features[modality][3, 2] += 0.25  # one value
    shutil.rmtree(folder)
    write_prepared(folder, dataclasses.replace(dataset, features=features))


def test_one_changed_feature_value_is_refused_by_runs_that_read_it_and_noted_in_the_table(
    workplace: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "LightGCN,VBPR,BM3", "--set", "BM3.modalities=[image]") == 0
    before = read_result(Path(str(RECORD).format("VBPR"))).identity
    assert before is not None
    assert sorted(before["features"]) == ["image", "text"]
    change_features(workplace / "dataset" / "toy", toy_dataset, "text")
    capsys.readouterr()
    assert command("--models", "VBPR") == 2
    err = capsys.readouterr().err
    assert "VBPR/2024/record.json was made with other features of text than now; run with --fresh" in err
    assert command("--models", "LightGCN,BM3", "--set", "BM3.modalities=[image]") == 0  # neither reads that matrix
    out = capsys.readouterr().out
    assert "LightGCN on toy, seed 2024: finished before, kept\n" in out
    assert "BM3 on toy, seed 2024: finished before, kept\n" in out
    assert "features of text" not in out
    assert command("--models", "FREEDOM") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "reads text features" in out
    assert "other rows read others, so their numbers do not compare" in out
    table = Path("results/toy/table.md").read_text()
    assert table.count("reads text features") == 2
    assert "VBPR <sup>" in table


def test_a_run_cannot_be_resumed_with_other_features(
    workplace: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "VBPR,LightGCN") == 0
    make_unfinished("VBPR")
    make_unfinished("LightGCN")
    change_features(workplace / "dataset" / "toy", toy_dataset, "image")
    capsys.readouterr()
    assert command("--models", "VBPR") == 2
    assert "VBPR/2024/checkpoint was made with other features of image than now; run" in capsys.readouterr().err
    assert command("--models", "LightGCN") == 0


def test_after_a_change_of_code_a_finished_run_is_kept_and_an_unfinished_one_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("--models", "LightGCN,VBPR,Pop") == 0
    first = read_result(Path(str(RECORD).format("LightGCN")))
    digest = code.digest_module
    monkeypatch.setattr(
        code, "digest_module", lambda name: "new" if name == "hellm_recbole.baselines.lightgcn" else digest(name)
    )
    code._digest_import_closure.cache_clear()
    try:
        capsys.readouterr()
        assert command("--models", "LightGCN,VBPR,Pop") == 0
        out = capsys.readouterr().out
        assert (
            "LightGCN on toy, seed 2024: finished before, kept; its code has changed since (baselines.lightgcn; "
            "--fresh runs it again)\n" in out
        )
        assert "VBPR on toy, seed 2024: finished before, kept\n" in out
        assert "Pop on toy, seed 2024: finished before, kept\n" in out
        assert "code has changed since the run (baselines.lightgcn)." in " ".join(out.split())
        assert read_result(Path(str(RECORD).format("LightGCN"))) == first
        assert report.main(["--dataset", "toy"]) == 0
        assert "code has changed since the run" in Path("results/toy/report.html").read_text()
        make_unfinished("LightGCN")
        capsys.readouterr()
        assert command("--models", "LightGCN") == 2
        assert "was made with other code than now (baselines.lightgcn); run with --fresh" in capsys.readouterr().err
        assert command("--models", "LightGCN", "--fresh") == 0
        assert "code has changed" not in capsys.readouterr().out
    finally:
        code._digest_import_closure.cache_clear()


def test_runs_with_other_options_are_marked(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*QUICK, "--models", "LightGCN", "--epochs=2"]) == 0
    assert run.main([*QUICK, "--models", "VBPR", "--epochs=3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "run with --epochs=3." in out
    assert "run with --epochs=2." in out
    assert "Every row: run with --set batch_size=64." in out


def test_a_run_of_an_earlier_version_is_kept_and_marked(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "LightGCN,VBPR") == 0
    path = Path(str(RECORD).format("VBPR"))
    rewrite(path, lambda content: [content.pop(key) for key in ("identity", "deterministic")])
    capsys.readouterr()
    assert command("--models", "LightGCN,VBPR") == 0
    out = capsys.readouterr().out
    assert (
        "VBPR on toy, seed 2024: finished before, kept; features, code: unknown (recorded by an earlier version)" in out
    )
    assert "features, code: unknown (recorded by an earlier version)." in Path("results/toy/table.md").read_text()
    assert command("--models", "VBPR", "--set", "VBPR.emb_dim=8") == 2  # what it does say is still compared
    assert "emb_dim = 64 and now it is 8" in capsys.readouterr().err


def test_runs_from_before_a_setting_existed_are_kept_while_it_has_its_old_value(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "LightGCN", "--seeds", "1,2") == 0
    path = Path("results/toy/LightGCN/1/record.json")
    rewrite(path, lambda content: content["settings"].pop("decay_epochs"))
    capsys.readouterr()
    assert command("--models", "LightGCN", "--seeds", "1,2") == 0  # both seeds still share a row of the table
    assert "LightGCN on toy, seed 1: finished before, kept\n" in capsys.readouterr().out
    assert command("--models", "LightGCN", "--seeds", "1", "--set", "decay_epochs=60") == 2
    assert "1/record.json was made with decay_epochs = 50 and now it is 60; run with" in capsys.readouterr().err


def test_a_stored_result_of_an_earlier_version_can_be_shown_in_a_table(workplace: Path) -> None:
    folder = Path("results/ml-100k/VBPR/2024")
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "reference" / "record_of_an_earlier_version.json", folder / "record.json")
    write_ranks(folder, toy_ranks(np.arange(1, 40)), toy_ranks(np.arange(1, 40)))
    assert read_result(folder / "record.json").identity is None
    assert report.main(["--dataset", "ml-100k"]) == 0
    table = Path("results/ml-100k/table.md").read_text()
    assert "VBPR <sup>a</sup>" in table
    assert "a: features, code: unknown (recorded by an earlier version)." in table


@pytest.mark.slow
def test_edits_of_real_files_are_noticed(workplace: Path) -> None:
    """Edit a copy of the code, and start a new process after each edit."""
    copied = workplace / "code"
    for name in ("hellm_recbole", "baselines", "benchmarks", "properties"):
        shutil.copytree(ROOT / name, copied / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))

    def run_copy(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(copied), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(copied / "benchmarks" / "run.py"), *QUICK, "--set", "epochs=2", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        return f"{done.returncode} {' '.join((done.stdout + done.stderr).split())}"

    def edit(file: str, old: str, new: str) -> None:
        text = (copied / file).read_text()
        assert old in text
        (copied / file).write_text(text.replace(old, new, 1))

    assert run_copy("--models", "LightGCN,VBPR").startswith("0 ")
    edit("baselines/vbpr.py", '"""', '"""Words. ')
    edit("hellm_recbole/training/learner.py", "\nclass ", "\n# a comment\nclass ")
    assert "code has changed" not in run_copy("--models", "LightGCN,VBPR")
    edit("baselines/vbpr.py", "class VBPR(", "NOTHING = 0\n\n\nclass VBPR(")
    said = run_copy("--models", "LightGCN,VBPR")
    assert "VBPR on toy, seed 2024: finished before, kept; its code has changed since (baselines.vbpr; --fresh" in said
    assert "LightGCN on toy, seed 2024: finished before, kept VBPR" in said
    assert "(a) code has changed since the run (baselines.vbpr)." in said
    edit("hellm_recbole/training/learner.py", "betas = (0.9,", "betas = (0.8,")
    make_unfinished("LightGCN")
    assert "2 error: checkpoint results/toy/LightGCN/2024/checkpoint was made with other code than now" in run_copy(
        "--models", "LightGCN"
    )
