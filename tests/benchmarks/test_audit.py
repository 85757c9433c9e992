"""The audit of modalities from the command line: rows, digests, table, and what is refused."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from hellm_recbole import load_run
from hellm_recbole.benchmarks import audit, run, tune
from hellm_recbole.experiments.results import read_result

QUICK = ["--dataset", "toy", "--set", "epochs=2", "--set", "batch_size=64", "--threads", "1"]
ROWS = ("VBPR", "VBPR-shuffled-image", "VBPR-shuffled-text", "VBPR-zero-image", "VBPR-zero-text", "VBPR-shuffled")


def read_row(folder: Path, model: str) -> dict[str, str]:
    """Read the digests of the features of a run."""
    identity = read_result(folder / model / "2024" / "record.json").identity
    assert identity is not None
    return {name: part["sha256"] for name, part in identity["features"].items()}


def test_a_model_is_compared_with_its_changed_features(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--models", "VBPR", *QUICK, "--changes", "zero,shuffled"]
    assert audit.main(arguments) == 0
    folder = workplace / "results" / "toy"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(ROWS)
    true, zero = read_row(folder, "VBPR"), read_row(folder, "VBPR-zero-text")
    assert (zero["image"], zero["text"] != true["text"]) == (true["image"], True)
    both = read_row(folder, "VBPR-shuffled")
    assert not set(both.values()) & set(true.values())
    assert read_result(folder / "VBPR-zero-text" / "2024" / "record.json").settings["changed_features"] == {
        "value": "zero text",
        "origin": "name of the row",
    }
    lines = list(csv.DictReader((folder / "audit.csv").open()))
    assert {line["model"] for line in lines} == set(ROWS)
    assert "VBPR: " in capsys.readouterr().out
    assert "shuffled" not in (folder / "table.md").read_text()
    assert audit.main(arguments) == 0
    assert capsys.readouterr().out.count("finished before, kept") == len(ROWS)


def test_a_changed_row_runs_and_is_exported_under_its_own_name(workplace: Path) -> None:
    assert run.main(["--models", "VBPR-noise-text", *QUICK, "--export", "embeddings"]) == 0
    folder = workplace / "results" / "toy" / "VBPR-noise-text" / "2024"
    assert (folder / "embeddings").is_dir()
    loaded = load_run(folder)  # refuses other features than those of the run
    assert loaded.config.label == "VBPR-noise-text"
    assert loaded.notes == ()
    assert len(loaded.recommend(["u1"], k=3)) == 3


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--models", "LightGCN"], "LightGCN reads no item features"),
        (
            ["--models", "VBPR", "--changes", "shuffle"],
            "--changes 'shuffle' is unknown; it can be shuffled, zero, noise",
        ),
        (["--models", "VBPR", "--changes", ","], "--changes names nothing"),
        (["--models", "VBPR-noise"], "VBPR-noise has changed features already"),
        (["--models", "HeLLM-plus"], "HeLLM-plus also reads"),
        (["--models", "VBPR", "--tuned"], "--tuned cannot take VBPR-"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert audit.main([*arguments, *QUICK]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert part in re.sub(r"\s+", " ", errors[0])


def test_other_commands_refuse_changed_rows(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--models", "VBPR-zero-audio", *QUICK]) == 2
    assert "toy has no modality audio; it has image, text" in capsys.readouterr().err
    arguments = [
        "--models",
        "VBPR-noise",
        "--dataset",
        "toy",
        "--budget",
        "trials=1",
        "--space",
        "VBPR-noise.emb_dim=[8]",
    ]
    assert tune.main(arguments) == 2
    assert "hellm-recbole tune cannot take VBPR-noise" in capsys.readouterr().err
