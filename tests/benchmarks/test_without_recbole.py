"""The commands work where RecBole is not installed: a table of one's own, and the synthetic shop.

Each command runs in a process of its own, whose folder of packages holds links to all installed packages but RecBole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result

CHECKOUT = Path(__file__).resolve().parents[2]
FAST = ("--set", "epochs=1", "--set", "batch_size=64", "--threads", "1")
MODELS = ("Pop", "ItemKNN", "EASE", "BPR", "LightGCN", "SASRec")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a link to each installed package but RecBole."""
    folder = tmp_path_factory.mktemp("packages")
    for path in sorted(Path(sysconfig.get_path("purelib")).iterdir()):
        if not path.name.lower().startswith(("recbole", "__pycache__")) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path, target_is_directory=path.is_dir())
    return folder


def run_command(packages: Path, folder: Path, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this project in a folder, without RecBole."""
    code = f"import sys; from hellm_recbole.benchmarks import {command}; sys.exit({command}.main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{packages}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Folder with a table of 40 users who walk around a circle of 15 items."""
    lines = [f"u{user},i{(user * 7 + step) % 15},{step}" for user in range(40) for step in range(8)]
    (tmp_path / "Mine.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    return tmp_path


def test_recbole_is_really_missing(packages: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata, importlib.util, hellm_recbole; print(hellm_recbole.__file__); "
        "assert importlib.util.find_spec('recbole') is None; importlib.metadata.version('recbole')"
    )
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{packages}"}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
    assert str(CHECKOUT) in done.stdout
    assert "PackageNotFoundError" in done.stderr


@pytest.mark.slow
def test_a_table_of_ones_own_is_prepared_trained_and_reported(packages: Path, table: Path) -> None:
    prepared = run_command(packages, table, "prepare", "Mine", "--from", "table", "--source", str(table / "Mine.csv"))
    assert prepared.returncode == 0, prepared.stderr
    done = run_command(packages, table, "run", "--models", ",".join(MODELS), "--dataset", "Mine", *FAST)
    assert done.returncode == 0, done.stderr
    for model in MODELS:
        folder = table / "results" / "Mine" / model / "2024"
        record = read_result(folder / "record.json")
        assert (record.status, record.source, record.versions["recbole"]) == ("success", "hellm_recbole", None)
        assert len(read_ranks(folder / record.ranks)["test"].rank) == 40
        assert model in done.stdout
    again = run_command(packages, table, "report", "--dataset", "Mine")
    assert again.returncode == 0, again.stderr
    assert "EASE" in again.stdout
    listed = run_command(packages, table, "run", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "synthetic-shop" in listed.stdout


def test_what_needs_recbole_says_what_brings_it(packages: Path, table: Path) -> None:
    for words in (("--models", "Pop", "--dataset", "ml-100k"), ("--models", "GRU4Rec", "--dataset", "synthetic-shop")):
        done = run_command(packages, table, "run", *words, *FAST)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 2
        assert len(errors) == 1, done.stderr
        assert "install" in errors[0]
        assert "recbole" in errors[0].lower()
        assert "Traceback" not in done.stderr
    assert not (table / "results" / "ml-100k").exists()


@pytest.mark.slow
def test_the_synthetic_shop_runs_without_recbole_and_without_network(packages: Path, tmp_path: Path) -> None:
    done = run_command(packages, tmp_path, "run", "--models", "Pop,SASRec", "--dataset", "synthetic-shop", *FAST)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "dataset" / "synthetic-shop" / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC, not real data" in card
    record = read_result(tmp_path / "results" / "synthetic-shop" / "SASRec" / "2024" / "record.json")
    assert (record.counts["users"], record.modalities) == (400, ("text",))


@pytest.mark.slow
def test_a_search_runs_without_recbole(packages: Path, table: Path) -> None:
    words = ("Mine", "--from", "table", "--source", str(table / "Mine.csv"))
    assert run_command(packages, table, "prepare", *words).returncode == 0
    options = ("--budget", "trials=2", "--search", "random", "--scheduler", "none", "--threads", "1")
    done = run_command(packages, table, "tune", "--models", "EASE", "--dataset", "Mine", *options)
    assert done.returncode == 0, done.stderr
    assert (table / "results" / "Mine" / "tuned" / "EASE.yaml").is_file()
