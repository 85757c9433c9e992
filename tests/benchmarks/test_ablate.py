from __future__ import annotations

import json
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import ablate, run
from hellm_recbole.benchmarks.tasks.overview import list_models_with_variants
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result

QUICK = ["--dataset", "toy", "--set", "epochs=2", "--set", "batch_size=64", "--threads", "1"]


def test_a_model_and_its_variants_run_and_appear_in_the_table(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate.main(["--models", "HeLLMPre", *QUICK]) == 0
    shown = capsys.readouterr()
    folder = workplace / "results" / "toy"
    ran = {path.name for path in folder.iterdir() if path.is_dir()}
    names = ("without-U2U", "without-I2I", "without-CL", "text-only", "image-only", "learned-W")
    assert ran == {"HeLLMPre", *(f"HeLLMPre-{name}" for name in names)}
    assert "HeLLMPre-audio-only is skipped: toy has no modality audio" in shown.err
    assert "HeLLMPre-without-CL" in shown.out
    record = read_result(folder / "HeLLMPre-without-CL" / "2024" / "record.json")
    assert record.settings["user_contrast_weight"]["value"] == 0.0
    assert record.settings["use_u2u"]["value"] is True
    assert record.settings["schedule"]["origin"] == "model/HeLLMPre.yaml, overrides"
    assert "contrast" not in " ".join(record.curve[0]["losses"])
    assert "without" not in (folder / "table.md").read_text()
    assert list((workplace / "dataset" / "toy" / ".cache").glob("neighbors-*.npz"))


def test_one_seed_gives_the_same_ranks_twice(workplace: Path) -> None:
    for output in ("one", "two"):
        assert run.main(["--models", "HeLLMPre", *QUICK, "--output", output]) == 0
    one, two = (read_ranks(workplace / name / "toy" / "HeLLMPre" / "2024" / "ranks.npz") for name in ("one", "two"))
    for phase in ("valid", "test"):
        assert one[phase].rank.tolist() == two[phase].rank.tolist()


def test_a_setting_of_the_model_reaches_its_variants(workplace: Path) -> None:
    arguments = ["--models", "HeLLMPre-without-CL", *QUICK, "--set", "HeLLMPre.emb_dim=8"]
    assert run.main(arguments) == 0
    record = json.loads((workplace / "results" / "toy" / "HeLLMPre-without-CL" / "2024" / "record.json").read_text())
    assert record["settings"]["emb_dim"]["value"] == 8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--models", "VBPR"], "VBPR has no variants"),
        (["--models", "HeLLMPre-without-cl"], "did you mean 'HeLLMPre-without-CL'"),
        (["--models", "HeLLMPre", "--set", "modalities=text"], "modalities = 'text' must be a list"),
        (["--models", "HeLLMPre", "--set", "temperature=0.001"], "temperature = 0.001 must be >= 0.02"),
    ],
)
def test_bad_input_is_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert ablate.main([*arguments, *QUICK]) == 2
    assert part in capsys.readouterr().err


def test_a_missing_modality_fails_the_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--models", "HeLLMPre-audio-only", *QUICK]) == 1
    assert "has no modality 'audio' (it has: image, text)" in capsys.readouterr().err


def test_a_damaged_graph_cache_fails_the_run_in_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--models", "HeLLMPre", *QUICK]) == 0
    for path in (workplace / "dataset" / "toy" / ".cache").glob("neighbors-*.npz"):
        path.write_bytes(b"half")
    assert run.main(["--models", "HeLLMPre", *QUICK, "--fresh"]) == 1
    err = capsys.readouterr().err
    assert "delete that file" in err
    assert "Traceback" not in err


def test_without_names_it_says_which_models_are_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate.main(["--dataset", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert f"all models that have variants are run: {', '.join(list_models_with_variants())}" in said
    assert "HeLLMPre" in said
