"""The comparison of two versions: it finds a changed number and ignores changed times."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.golden import describe_differences, list_commands, read_folder, write_metadata

FOLDER = Path("results/toy/LightGCN/1")


def write_results(
    folder: Path, seconds: float = 1.5, recall: float = 0.5, weight: float = 1.0, suffix: str = ""
) -> Path:
    """Write one file of each compared kind; `suffix` is added to the model's name in the tables."""
    run = folder / FOLDER
    run.mkdir(parents=True)
    record = {"metrics": {"R@10": recall}, "train_seconds": seconds, "identity": {"code": {"sha256": str(seconds)}}}
    (run / "record.json").write_text(json.dumps(record))
    save_file({"weight": np.array([weight], dtype=np.float32)}, run / "last.safetensors")
    np.savez(run / "ranks.npz", rank=np.array([1, 2]))
    (run / "table.md").write_text(f"| LightGCN{suffix} | {recall} | {seconds:.1f} s |   {seconds:.1f} MiB |")
    (run / "table.csv").write_text(f"model,R@10,train_seconds\nLightGCN{suffix},{recall},{seconds}\n")
    return folder


def test_times_may_differ(tmp_path: Path) -> None:
    first, second = write_results(tmp_path / "a"), write_results(tmp_path / "b", seconds=20.25)
    assert describe_differences(read_folder(first), read_folder(second)) == []
    assert len(read_folder(first)) == 5


@pytest.mark.parametrize(
    ("change", "files"),
    [
        ({"recall": 0.5000001}, ["record.json", "table.csv", "table.md"]),
        ({"weight": 1.0000001}, ["last.safetensors"]),
        ({"suffix": "*"}, ["table.csv", "table.md"]),
    ],
)
def test_numbers_and_stars_may_not_differ(tmp_path: Path, change: dict[str, float], files: list[str]) -> None:
    first, second = write_results(tmp_path / "a"), write_results(tmp_path / "b", **change)  # type: ignore[arg-type]
    expected = [f"{FOLDER / name}: differs" for name in files]
    assert describe_differences(read_folder(first), read_folder(second)) == expected


def test_a_file_that_only_one_version_wrote_is_named(tmp_path: Path) -> None:
    first, second = write_results(tmp_path / "a"), write_results(tmp_path / "b")
    (second / FOLDER / "table.csv").unlink()
    (second / FOLDER / "table.tex").write_text("")
    assert describe_differences(read_folder(first), read_folder(second)) == [
        f"{FOLDER}/table.csv: only in the base",
        f"{FOLDER}/table.tex: only in the new version",
    ]


def test_six_models_are_trained() -> None:
    (arguments,) = [arguments for command, *arguments in list_commands(Path("inputs")) if command == "run"]
    assert set(arguments[arguments.index("--models") + 1].split(",")) == {
        "LightGCN",
        "VBPR",
        "SASRec",
        "HeLLMPre",
        "HeLLM",
        "RecBole-LightGCN",
    }


def test_a_checkout_has_its_own_entry_points(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.entry-points.group]\none = "old.place:ONE"\n'
    )
    write_metadata(tmp_path)
    (found,) = importlib.metadata.distributions(name="hellm-recbole", path=[str(tmp_path)])
    assert [(point.name, point.value, point.group) for point in found.entry_points] == [
        ("one", "old.place:ONE", "group")
    ]
