"""Combined rows from the command line: runs, records, tables, refusals and exports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hellm_recbole.benchmarks import ablate, report, run, tune
from hellm_recbole.experiments import combined_run
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult, read_result
from tests.benchmarks.run_toy import command, fail_with_sentence

FUSION = "Fusion(SASRec,Pop)"


def read(workplace: Path, label: str) -> RunResult:
    return read_result(workplace / "results" / "toy" / label / "2024" / "record.json")


def test_rows_are_run_first_recorded_and_in_the_table(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Fusion( SASRec, Pop )-priors,SASRec-priors-directed,Transitions") == 0
    shown = capsys.readouterr().out
    assert "plan: 6 runs; models SASRec, Pop, Fusion(SASRec,Pop), Fusion(SASRec,Pop)-priors, " in shown
    assert "4 not trained, because they combine scores" in shown
    table = (workplace / "results" / "toy" / "table.md").read_text()
    for label in ("SASRec", "Pop", FUSION, f"{FUSION}-priors", "SASRec-priors-directed", "Transitions"):
        assert label in table
    assert "adds text-kNN, ItemKNN, transitions to log-probabilities of Fusion(SASRec,Pop) (symmetric transi" in table
    assert "the best of 240 points in validation N@20; nothing is trained." in " ".join(table.split())
    found, mixed = read(workplace, f"{FUSION}-priors"), read(workplace, FUSION)
    assert found.combination is not None
    assert mixed.combination is not None
    assert found.combination["valid"] == found.metrics["valid"]["N@20"]
    assert found.combination["valid_without"] == pytest.approx(mixed.metrics["valid"]["N@20"], abs=1e-6)
    assert found.identity is not None
    assert found.identity["runs"][FUSION]["ranks_sha256"] == mixed.ranks_sha256
    assert found.epochs_run == 0
    assert found.best_epoch is None
    test = read_ranks(workplace / "results" / "toy" / f"{FUSION}-priors" / "2024" / "ranks.npz")["test"]
    assert found.metrics["test"]["R@10"] == pytest.approx(float((test.rank <= 10).mean()))
    assert report.main(["--dataset", "toy"]) == 0
    assert not list((workplace / "results" / "toy" / FUSION / "2024").glob("checkpoint"))


def test_a_finished_row_is_kept_and_fresh_repeats_only_the_named_one(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "SASRec-priors") == 0
    paths = [workplace / "results" / "toy" / label / "2024" / "record.json" for label in ("SASRec", "SASRec-priors")]
    times = [path.stat().st_mtime_ns for path in paths]
    capsys.readouterr()
    assert command("--models", "SASRec-priors") == 0
    assert "SASRec-priors on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in paths] == times
    before = read(workplace, "SASRec-priors")
    assert command("--models", "SASRec-priors", "--fresh") == 0
    assert [path.stat().st_mtime_ns > time for path, time in zip(paths, times, strict=True)] == [False, True]
    assert read(workplace, "SASRec-priors").ranks_sha256 == before.ranks_sha256
    said = fail_with_sentence(capsys, "--models", "SASRec-priors", "--set", "text_decay=0.5")
    assert "text_decay = 0.6 and now it is 0.5; run with --fresh" in said


def test_a_row_that_was_trained_again_is_noticed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "SASRec-priors") == 0
    shutil.rmtree(workplace / "results" / "toy" / "SASRec")
    capsys.readouterr()
    assert command("--models", "SASRec-priors") == 0  # the same numbers again: the row is kept
    shown = capsys.readouterr().out
    assert "1 compared with earlier runs after the models that they read" in shown
    assert "SASRec-priors on toy, seed 2024: finished before, kept\n" in shown
    other = ("--set", "SASRec.dropout=0.1")
    assert command("--models", "SASRec", *other, "--fresh") == 0
    assert "combines another run of SASRec than the one in this table" in capsys.readouterr().out
    said = fail_with_sentence(capsys, "--models", "SASRec-priors", *other)
    assert "was made with other ranks of SASRec than now; run with --fresh to replace it" in said
    assert command("--models", "SASRec,SASRec-priors", *other, "--fresh") == 0


def test_an_interrupted_search_starts_again(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(combined_run, "search_weights", interrupt)
        assert command("--models", "SASRec-priors") > 2
    assert read(workplace, "SASRec-priors").status == "cancelled"
    assert command("--models", "SASRec-priors") == 0
    assert read(workplace, "SASRec-priors").status == "success"
    assert "SASRec on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out


def test_a_row_without_checkpoint_fails_only_what_combines_it(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "SASRec") == 0
    shutil.rmtree(workplace / "results" / "toy" / "SASRec" / "2024" / "checkpoint")
    said = fail_with_sentence(capsys, "--models", "SASRec-priors,Pop-priors", code=1)
    assert said.startswith("error: SASRec-priors on toy, seed 2024: needs the scores of SASRec, but its run ")
    assert read(workplace, "Pop-priors").status == "success"
    assert read(workplace, "SASRec-priors").status == "failed"


def test_a_failed_row_fails_what_combines_it_in_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "LightGCN-priors", "--set", "LightGCN.learning_rate=1e30") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    run_of = Path("results", "toy", "LightGCN", "2024")
    assert errors[1:] == [
        f"error: LightGCN-priors on toy, seed 2024: needs the scores of LightGCN, but its run {run_of} is failed"
    ]


def test_test_lists_are_exported_and_embeddings_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail_with_sentence(capsys, "--models", "SASRec-priors", "--export", "embeddings")
    assert said.startswith("error: --export embeddings: there are none of SASRec-priors, which only combines scores; ")
    assert not (workplace / "results").exists()
    assert command("--models", "SASRec-priors", "--export", "test-lists", "--export-k", "3") == 0
    folder = workplace / "results" / "toy" / "SASRec-priors" / "2024"
    table, ranks = pd.read_parquet(folder / "test-lists.parquet"), read_ranks(folder / "ranks.npz")["test"]
    hits = table[table["is_target"]].set_index(["user_id", "item_id"])["rank"].to_dict()
    saved = zip(ranks.user.tolist(), ranks.item.tolist(), ranks.rank.tolist(), strict=True)
    assert hits == {(user, item): rank for user, item, rank in saved if rank <= 3}


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ("Fusion(SASRec,Pop", "the parentheses of 'Fusion(SASRec,Pop' do not match"),
        ("Fusion(SASRec)", "Fusion(SASRec) has 1 row; write Fusion(A,B)"),
        ("SASRek-priors", "unknown model 'SASRek'"),
    ],
)
def test_wrong_names_are_refused(workplace: Path, capsys: pytest.CaptureFixture[str], models: str, reason: str) -> None:
    assert reason in fail_with_sentence(capsys, "--models", models)


def test_features_that_the_dataset_lacks_are_refused_before_anything_is_trained(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fail_with_sentence(capsys, "--models", "SASRec-priors", "--set", "prior_modality=sound")
    assert "the dataset has no features of this modality; it has image, text" in said
    assert not (workplace / "results" / "toy" / "SASRec").exists()


def test_other_commands_refuse_combined_rows(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "toy", "--models", "SASRec-priors"]
    for main, reason in (
        (tune.main, "hellm-recbole tune cannot search it; name SASRec instead"),
        (ablate.main, "SASRec-priors has no variants"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert reason in err
        assert err.count("\n") == 1
    assert command("--models", "SASRec-priors", "--dry-run") == 0
    assert run.main(["--help-model", "SASRec-priors"]) == 0
    assert "transition_form" in capsys.readouterr().out


def test_the_names_of_folders_are_legal_on_every_system(workplace: Path) -> None:
    assert command("--models", f"{FUSION}-priors-directed") == 0
    names = os.listdir(workplace / "results" / "toy")
    assert f"{FUSION}-priors-directed" in names
    assert not any(set(name) & set('<>:"/\\|?*') or name.endswith((".", " ")) for name in names)


def test_rows_with_a_language_model_are_fused_and_have_its_name(workplace: Path, tiny: Path) -> None:
    small = ("emb_dim=8", "batch_size=24", "prefix_hidden=8", "epochs=1", "micro_batch_size=16")
    words = ["--models", "Fusion(HeLLM,SASRec)-priors", "--llm", str(tiny), *(f"--{one}" for one in small)]
    assert run.main(["--dataset", "toy", "--threads", "1", *words]) == 0
    label = "Fusion(HeLLM,SASRec)-priors@tiny-llama"
    found = read(workplace, label)
    assert (found.family, found.backbone, found.model) == ("llm", "tiny-llama", "Fusion(HeLLM,SASRec)-priors")
    assert found.combination is not None
    assert found.combination["rows"] == ("Fusion(HeLLM,SASRec)@tiny-llama",)
    assert found.identity is not None
    assert [*found.identity["features"]] == ["text"]
    assert label in (workplace / "results" / "toy" / "table.md").read_text()
