"""The package in examples/plugin/, built and installed into a folder: its model, metric, split and callback work."""

from __future__ import annotations

import csv
import doctest
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import run
from hellm_recbole.config.search_space import read_search_space
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.results import read_result
from hellm_recbole.plugins.splits import split_with_plugin
from tests.plugin_site import use_site
from tests.toy import write_prepared

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--dataset", "toy", "--preset", "example-brief", "--set", "batch_size=64", "--threads", "1"]
FROM_RECBOLE = """
import sys
from pathlib import Path

from tests.bridge.door import rank_by_command, rank_by_recbole

sys.argv = ["test"]
values = {"preset": "example-brief", "batch_size": 64}
expected = rank_by_command("toy", "AdjustedBPR", Path("door"), "--preset", "example-brief", "--set", "batch_size=64")
found, _ = rank_by_recbole("toy", "AdjustedBPR", {**values, "data_path": "dataset"})
print(f"{found == expected} {len(set(expected.values())) > 3}")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the installed package."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    source.mkdir()
    for path in (ROOT / "examples" / "plugin").rglob("*"):
        target = source / path.relative_to(ROOT / "examples" / "plugin")
        if path.is_file() and path.suffix != ".pyc":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset, site: Path) -> Iterator[Path]:
    """The working folder, with the toy dataset prepared in it and the package installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CURVE_FOLDER", "curves")
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    with use_site(site):
        yield tmp_path


def start(site: Path, *words: str) -> str:
    """Run Python in a process of its own that finds the package, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_model_runs_with_its_own_properties_split_metric_and_callback(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", "AdjustedBPR,AdjustedBPR-plain,LightGCN", "--callbacks", "curve-file", *QUICK]
    assert run.main([*words, "--split", "last-tenths"]) == 0
    assert "MRR@20" in capsys.readouterr().out
    split = split_with_plugin(load_dataset(workplace / "dataset" / "toy", modalities=()), "last-tenths")
    folder = workplace / "results" / "toy"
    record = read_result(folder / "AdjustedBPR-plain" / "2024" / "record.json")
    assert (record.split_kind, record.split_hash) == ("plug-in last-tenths", split.sha256)
    origins = {key: record.settings[key]["origin"] for key in ("emb_dim", "popularity_strength", "epochs")}
    assert origins == {
        "emb_dim": "hellm_example/properties/model/AdjustedBPR.yaml",
        "popularity_strength": "hellm_example/properties/model/AdjustedBPR.yaml, variants: plain",
        "epochs": "hellm_example/properties/preset/example-brief.yaml",
    }
    named = {(one["kind"], one["name"], one["package"], one["version"]) for one in record.plugins}
    names = {("model", "AdjustedBPR"), ("split", "last-tenths"), ("callback", "curve-file"), ("metric", "MRR")}
    assert named == {(*name, "hellm-example-plugin", "0.1.0") for name in names}
    assert record.plugin_metrics is not None
    assert {*record.plugin_metrics["test"]} == {f"MRR@{k}" for k in record.cutoffs}
    assert {name.split("@")[0] for name in record.metrics["test"]} == {"R", "N"}
    with (folder / "table.csv").open(newline="") as file:
        rows = {row["model"]: float(row["MRR@20"]) for row in csv.DictReader(file)}
    mine = read_result(folder / "AdjustedBPR" / "2024" / "record.json")
    assert mine.plugin_metrics is not None
    assert rows["AdjustedBPR"] == pytest.approx(mine.plugin_metrics["test"]["MRR@20"])
    assert 0 < rows["LightGCN"] < 1
    lines = (workplace / "curves" / "AdjustedBPR-2024.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1", "2", "success"]
    assert ["test" in line for line in lines] == [False, False, True]
    assert run.main(words) == 2  # the same folder, but the split of this project
    err = capsys.readouterr().err
    assert "has the split plug-in last-tenths, and this command has leave-one-out; results of two kinds of" in err
    assert not (folder / "AdjustedBPR" / "2024" / "traceback.txt").exists()


def test_help_schema_and_search_space_are_those_of_the_package(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--help-model", "AdjustedBPR", *QUICK]) == 0
    assert "hellm_example/properties/model/Adj" in capsys.readouterr().out.replace("\n", "")
    assert run.main(["--settings-schema", "AdjustedBPR"]) == 0
    assert "popularity_strength" in capsys.readouterr().out
    assert run.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("AdjustedBPR", "AdjustedBPR-plain", "example-brief", "last-tenths"))
    from hellm_recbole.baselines.registry import load_registry

    config = resolve_own_run("AdjustedBPR", "toy", load_registry(), "paper", [])
    space = read_search_space("AdjustedBPR", {}, config.resolved.values, with_current=True)
    assert space["popularity_strength"] == [0.0, 0.5, 1.0]


def test_the_examples_in_the_docstrings_are_right(site: Path) -> None:
    with use_site(site):
        for name in ("metrics", "splits"):
            assert doctest.testmod(importlib.import_module(f"hellm_example.{name}")).failed == 0


@pytest.mark.slow
def test_the_model_runs_from_the_command_and_from_recbole_with_equal_ranks(site: Path, workplace: Path) -> None:
    shown = start(site, str(ROOT / "benchmarks" / "run.py"), "--models", "AdjustedBPR", *QUICK, "--output", "script")
    assert "AdjustedBPR" in shown
    words = ["-m", "hellm_recbole.benchmarks.cli", "run", "--models", "AdjustedBPR", *QUICK, "--output", "entry"]
    assert "AdjustedBPR" in start(site, *words)
    assert start(site, "-c", FROM_RECBOLE).splitlines()[-1] == "True True"
