"""run.py from the command line: runs, results, tables, and every kind of wrong input."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import report, run
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.experiments import run as experiment
from hellm_recbole.experiments.results import read_ranks, read_result
from tests.toy import write_prepared
from tests.toy_records import rewrite

QUICK = ["--set", "epochs=3", "--set", "batch_size=64", "--threads", "1"]


def command(*arguments: str) -> int:
    return run.main(["--dataset", "toy", *QUICK, *arguments])


def fail_with_sentence(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that must fail without a traceback. Return the only sentence of its error message."""
    capsys.readouterr()
    assert command(*arguments) == code
    err = capsys.readouterr().err
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, err
    assert "Traceback" not in err
    return sentences[0]


def test_a_command_writes_results_ranks_and_tables(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Pop,BPR,LightGCN,VBPR,SASRec", "--seeds", "1,2") == 0
    shown = capsys.readouterr().out
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    for model in ("Pop", "BPR", "LightGCN", "VBPR", "SASRec"):
        assert model in shown
        for seed in (1, 2):
            folder = workplace / "results" / "toy" / model / str(seed)
            record = read_result(folder / "record.json")
            assert record.status == "success"
            assert record.split_hash == split.sha256
            assert record.n_candidates == split.n_items
            ranks = read_ranks(folder / record.ranks)["test"]
            assert ranks.item.tolist() == split.item_tokens[split.test.item].tolist()
            assert record.metrics["test"]["R@10"] == pytest.approx(float((ranks.rank <= 10).mean()))
    for ending in ("md", "csv", "tex"):
        assert "LightGCN" in (workplace / "results" / "toy" / f"table.{ending}").read_text()


def test_a_finished_run_is_not_run_again_unless_fresh(workplace: Path) -> None:
    record = workplace / "results" / "toy" / "LightGCN" / "2024" / "record.json"
    assert command("--models", "LightGCN") == 0
    first = record.stat().st_mtime_ns
    assert command("--models", "LightGCN") == 0
    assert record.stat().st_mtime_ns == first
    assert command("--models", "LightGCN", "--fresh") == 0
    assert record.stat().st_mtime_ns > first


def test_temporary_files_of_killed_processes_and_old_tracebacks_are_removed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "rank_targets", crash)
        assert command("--models", "LightGCN") == 1
    folder = workplace / "results" / "toy" / "LightGCN" / "2024"
    assert "ZeroDivisionError" in (folder / "traceback.txt").read_text()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (
        f".{gone.pid}.tmp.record.json",
        "checkpoint/last-00001.safetensors",
        f"../../.{gone.pid}.tmp.table.md",
    ):
        (folder / name).write_text("")
    (folder / f".embeddings.tmp-{gone.pid}").mkdir()
    (folder / ".model-abcd1234").mkdir()
    assert command("--models", "LightGCN") == 0
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    assert left == []
    assert not (folder / "traceback.txt").exists()
    assert len(list((folder / "checkpoint").iterdir())) == 3
    assert not [path for path in (workplace / "results" / "toy").iterdir() if ".tmp." in path.name]


def test_fresh_prints_what_it_removes_and_never_removes_the_target_of_a_link(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "Pop") == 0
    pop = workplace / "results" / "toy" / "Pop"
    pop.rename(workplace / "elsewhere")
    pop.mkdir()
    (pop / "2024").symlink_to(workplace / "elsewhere" / "2024", target_is_directory=True)
    (workplace / "results" / "toy" / "BPR" / "2024").mkdir(parents=True)
    capsys.readouterr()
    assert command("--models", "Pop,BPR,LightGCN", "--fresh") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--fresh")]
    assert said == [
        "--fresh removes the link (not its target) results/toy/Pop/2024",
        "--fresh removes everything in results/toy/BPR/2024",
    ]
    assert not (pop / "2024").is_symlink()
    assert (workplace / "elsewhere" / "2024" / "record.json").exists()
    (workplace / "results" / "toy" / "LightGCN").rename(workplace / "other")
    (workplace / "results" / "toy" / "LightGCN").symlink_to(workplace / "other", target_is_directory=True)
    assert "lies outside results" in fail_with_sentence(capsys, "--models", "Pop,LightGCN", "--fresh")
    assert (workplace / "other" / "2024" / "record.json").exists()
    assert (pop / "2024" / "record.json").exists()


@pytest.mark.parametrize("name", ["toy/../toy", "", " ", "../dataset/toy"])
def test_a_dataset_name_is_one_component_of_a_path(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for main in (run.main, report.main):
        assert main(["--dataset", name]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert "is not usable as a file name" in err or "--dataset names nothing" in err
    assert not (workplace / "results").exists() or not any((workplace / "results").rglob("*.json"))


def test_a_finished_run_with_other_settings_is_kept(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "LightGCN") == 0
    sentence = fail_with_sentence(capsys, "--models", "LightGCN", "--set", "emb_dim=8")
    assert "emb_dim = 64 and now it is 8" in sentence
    assert "--fresh" in sentence


def test_a_failed_run_is_recorded_and_the_others_continue(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--models", "LightGCN,VBPR", "--set", "LightGCN.learning_rate=1e30")
    sentence = fail_with_sentence(capsys, *arguments, code=1)
    assert "LightGCN on toy, seed 2024: LightGCN: loss term" in sentence
    results = workplace / "results" / "toy"
    failed = read_result(results / "LightGCN" / "2024" / "record.json")
    assert failed.status == "failed"
    assert failed.reason is not None
    assert "lower learning_rate" in failed.reason
    assert read_result(results / "VBPR" / "2024" / "record.json").status == "success"
    assert "failed" in (results / "table.md").read_text()


def test_settings_for_one_model_and_settings_in_recboles_form(workplace: Path) -> None:
    assert command("--models", "LightGCN,VBPR", "--set", "LightGCN.emb_dim=8", "--learning_rate=0.01") == 0
    settings = {
        model: read_result(workplace / "results" / "toy" / model / "2024" / "record.json").settings
        for model in ("LightGCN", "VBPR")
    }
    assert settings["LightGCN"]["emb_dim"] == {"value": 8, "origin": "--set LightGCN.emb_dim=8"}
    assert settings["VBPR"]["emb_dim"]["value"] == 64
    assert settings["VBPR"]["emb_dim"]["origin"] == "model/VBPR.yaml"
    assert settings["VBPR"]["learning_rate"] == {"value": 0.01, "origin": "--learning_rate=0.01"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--models", "LihgtGCN"), ("unknown model 'LihgtGCN'", "did you mean 'LightGCN'")),
        (("--models", "Gru4Rec"), ("unknown model 'Gru4Rec'", "did you mean 'GRU4Rec'")),
        (("--models", ","), ("--models names nothing",)),
        (("--models", "LightGCN", "--preset", "quik"), ("unknown preset 'quik'", "did you mean 'quick'")),
        (
            ("--models", "LightGCN", "--set", "lerning_rate=1"),
            ("unknown setting 'lerning_rate'", "did you mean 'learning_rate'"),
        ),
        (
            ("--models", "LightGCN", "--lerning_rate=1"),
            ("unknown setting 'lerning_rate'", "did you mean 'learning_rate'"),
        ),
        (
            ("--models", "LightGCN", "--set", "emb_dim=wide"),
            ("emb_dim = 'wide' must be of type int", "--set emb_dim=wide"),
        ),
        (("--models", "LightGCN", "--set", "n_layers=-1"), ("n_layers = -1 must be >= 0",)),
        (("--models", "LightGCN", "--set", "SASRec.dropout=0.1"), ("SASRec is not among the models of this run",)),
        (("--models", "LightGCN", "--set", "n_layers"), ("--set n_layers is not understood",)),
        (("--models", "LightGCN", "--nonsense"), ("--nonsense", "is not understood")),
        (("--models", "LightGCN", "--seeds", "one"), ("--seeds 'one' must be integers",)),
        (("--models", "LightGCN", "--device", "cuda:99"), ("--device cuda:99", "no such device")),
        (("--models", "LightGCN", "--export", "weights"), ("--export 'weights' is unknown",)),
        (
            ("--models", "LightGCN", "--export", "embeddings,recommendations"),
            ("--export recommendations is now called test-lists", "not for serving"),
        ),
        *(
            (("--models", "LightGCN", "--export", "test-lists", f"--export-k={k}"), (f"--export-k {k!r} must be",))
            for k in ("0", "-1", "x", "2.5", "")
        ),
        (("--models", "LightGCN", "--export-k", "5"), ("use it together with --export test-lists",)),
        (
            ("--models", "LightGCN", "--export", "embeddings", "--export-k", "5"),
            ("use it together with --export test-lists",),
        ),
        (("--models", "LightGCN", "--threads", "0"), ("--threads 0",)),
        (("--models", "LightGCN", "--set", "valid_metric=N@3"), ("valid_metric is 'N@3'",)),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    sentence = fail_with_sentence(capsys, *arguments)
    for part in parts:
        assert part in sentence
    assert not list((workplace / "results").glob("*/*/*/record.json"))


def test_the_nearest_name_is_suggested_for_an_unknown_dataset(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--models", "Pop", "--dataset", "Beuaty", *QUICK]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Beauty" in err


def test_a_known_dataset_without_its_source_names_the_missing_file(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HELLM_DATA", raising=False)
    assert run.main(["--models", "Pop", "--dataset", "Beauty", *QUICK]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "user_sequences.txt" in err


def damage(folder: Path, what: str) -> None:
    """Break one thing in a prepared dataset, as an edit by hand could."""
    inter, matrix, tokens = folder / "toy.inter", folder / "text_feat.npy", folder / "text_feat.tokens.txt"
    lines, values, names = inter.read_text().splitlines(), np.load(matrix), tokens.read_text().splitlines()
    if what == "missing file":
        inter.unlink()
    elif what == "empty file":
        inter.write_text("")
    elif what == "wrong header":
        inter.write_text("\n".join(["user\titem\ttime", *lines[1:]]) + "\n")
    elif what == "duplicate column":
        inter.write_text("\n".join(["user_id:token\titem_id:token\titem_id:token", *lines[1:]]) + "\n")
    elif what == "non-numeric field":
        inter.write_text("\n".join([*lines[:5], lines[5].rsplit("\t", 1)[0] + "\tsoon", *lines[6:]]) + "\n")
    elif what == "missing field":
        inter.write_text("\n".join([*lines[:5], "u1\ti1", *lines[6:]]) + "\n")
    elif what == "item without features":
        np.save(matrix, values[:-1])
        tokens.write_text("\n".join(names[:-1]) + "\n")
    elif what == "features of no item":
        np.save(matrix, np.vstack([values, values[:1]]))
        tokens.write_text("\n".join([*names, "stranger"]) + "\n")
    elif what == "NaN in features":
        values[3, 1] = np.nan
        np.save(matrix, values)
    elif what == "wrong row count":
        np.save(matrix, values[:-2])
    elif what == "duplicate token":
        tokens.write_text("\n".join([names[1], *names[1:]]) + "\n")
    elif what == "half a manifest":
        manifest = folder / "dataset.json"
        manifest.write_text(manifest.read_text()[:50])


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("missing file", ("toy.inter", "missing")),
        ("empty file", ("toy.inter", "empty")),
        ("wrong header", ("toy.inter:1",)),
        ("duplicate column", ("toy.inter:1", "item_id")),
        ("non-numeric field", ("toy.inter:6", "soon")),
        ("missing field", ("toy.inter:6", "fields")),
        ("item without features", ("text_feat", "no row")),
        ("features of no item", ("text_feat", "stranger")),
        ("NaN in features", ("text_feat.npy",)),
        ("wrong row count", ("text_feat.npy", "rows")),
        ("duplicate token", ("text_feat.tokens.txt",)),
        ("half a manifest", ("dataset.json", "--fresh")),
    ],
)
def test_broken_data_are_refused_in_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], what: str, parts: tuple[str, ...]
) -> None:
    damage(workplace / "dataset" / "toy", what)
    sentence = fail_with_sentence(capsys, "--models", "LightGCN")
    for part in parts:
        assert part in sentence


def test_users_with_fewer_than_three_interactions_are_not_evaluated(
    workplace: Path, capsys: pytest.CaptureFixture[str], toy_dataset: Dataset
) -> None:
    short = np.concatenate([np.flatnonzero(toy_dataset.user == user)[:2] for user in np.unique(toy_dataset.user)])
    changed = dataclasses.replace(
        toy_dataset, user=toy_dataset.user[short], item=toy_dataset.item[short], time=np.zeros(len(short)), features={}
    )
    write_prepared(workplace / "dataset" / "short", changed)
    capsys.readouterr()
    assert run.main(["--models", "Pop", "--dataset", "short"]) == 2
    assert "users with at least 3 interactions" in capsys.readouterr().err


def test_a_read_only_output_folder(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = workplace / "locked"
    target.mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != target)  # root may write anywhere
    assert "is read-only" in fail_with_sentence(capsys, "--models", "Pop", "--output", str(target))
    (workplace / "file").write_text("")
    assert "cannot make folder" in fail_with_sentence(
        capsys, "--models", "Pop", "--output", str(workplace / "file" / "results")
    )


def test_a_corrupt_checkpoint_fails_only_its_own_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "LightGCN") == 0
    folder = workplace / "results" / "toy" / "LightGCN" / "2024"
    (folder / "record.json").unlink()
    (folder / "checkpoint" / "state.json").write_text('{"schema": 1, "fil')
    sentence = fail_with_sentence(capsys, "--models", "LightGCN,VBPR", code=1)
    assert "is corrupt" in sentence
    assert "--fresh" in sentence
    assert command("--models", "LightGCN,VBPR", "--fresh") == 0


def test_results_of_two_protocols_cannot_share_a_table(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Pop,LightGCN") == 0
    path = workplace / "results" / "toy" / "Pop" / "2024" / "record.json"
    rewrite(path, lambda content: content.update(mask_history="none"))
    capsys.readouterr()
    assert report.main(["--dataset", "toy"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "mask_history differ" in err


def test_a_half_written_result_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Pop") == 0
    path = workplace / "results" / "toy" / "Pop" / "2024" / "record.json"
    path.write_text(path.read_text()[:100])
    assert str(Path("results/toy/Pop/2024/record.json")) in fail_with_sentence(capsys, "--models", "Pop")


def test_exported_lists_match_exported_embeddings(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "LightGCN,SASRec", "--export", "test-lists,embeddings") == 0
    assert capsys.readouterr().out.count("users with a list: 60; users without a list: 0;") == 1
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    seen = split.make_test_history()
    for model in ("LightGCN", "SASRec"):
        folder = workplace / "results" / "toy" / model / "2024"
        table = pd.read_parquet(folder / "test-lists.parquet")
        assert table.groupby("user_id").size().tolist() == [20] * split.n_users  # the largest cut-off
        tokens = (folder / "embeddings" / "items.txt").read_text().split()
        users = (folder / "embeddings" / "users.txt").read_text().split()
        vectors = load_file(folder / "embeddings" / "embeddings.safetensors")
        assert tokens == split.item_tokens[1:].tolist()
        ranks = read_ranks(folder / "ranks.npz")["test"]
        for u in (1, split.n_users):
            token = str(split.user_tokens[u])
            mine = table[table["user_id"] == token].sort_values("rank")
            assert not set(mine["item_id"]) & set(split.item_tokens[seen.get_items(u)])
            scores = vectors["items"] @ vectors["users"][users.index(token)]
            scores[torch.from_numpy(seen.get_items(u) - 1)] = -torch.inf
            best = [tokens[i] for i in scores.topk(len(mine)).indices]
            assert mine["item_id"].tolist() == best
            at = ranks.user.tolist().index(token)
            if ranks.rank[at] <= len(mine):
                assert best[ranks.rank[at] - 1] == ranks.item[at]


def test_embeddings_of_recboles_models_are_refused_before_anything_is_run(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fail_with_sentence(capsys, "--models", "LightGCN,BPR", "--export", "test-lists,embeddings")
    assert said.startswith("error: --export embeddings: BPR is a model of RecBole and has no embeddings to export; ")
    assert "BPR, Pop are models of RecBole and have" in fail_with_sentence(
        capsys, "--models", "BPR,Pop", "--export", "embeddings"
    )
    assert not (workplace / "results").exists()
    assert command("--models", "BPR", "--export", "test-lists") == 0


def test_exported_lists_contain_the_targets_that_the_ranks_imply(workplace: Path) -> None:
    models = ("Pop", "BPR", "LightGCN", "HeLLMPre-without-CL")
    assert command("--models", ",".join(models), "--export", "test-lists", "--export-k", "3") == 0
    folders = [workplace / "results" / "toy" / model / "2024" for model in models]
    for folder in folders:
        table, ranks = pd.read_parquet(folder / "test-lists.parquet"), read_ranks(folder / "ranks.npz")["test"]
        assert table.groupby("user_id").size().tolist() == [3] * 60
        hits = table[table["is_target"]].set_index(["user_id", "item_id"])["rank"].to_dict()
        saved = zip(ranks.user.tolist(), ranks.item.tolist(), ranks.rank.tolist(), strict=True)
        assert hits == {(user, item): rank for user, item, rank in saved if rank <= 3}
        assert not (folder / "test-lists.left-out.tsv").exists()
    # Lists of a finished run that are longer than the number of candidates: no padding, and every target is listed.
    assert command("--models", "Pop", "--export", "test-lists", "--export-k", "1000") == 0
    table = pd.read_parquet(folders[0] / "test-lists.parquet")
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    n_seen = dict(zip(split.user_tokens.tolist(), split.make_test_history().count_items().tolist(), strict=True))
    assert {user: split.n_items - count for user, count in table.groupby("user_id").size().items()} == {
        user: count for user, count in n_seen.items() if user
    }
    assert table["is_target"].sum() == 60


def test_list(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name in ("LightGCN", "ItemKNN", "Beauty", "ml-100k", "quick"):
        assert name in shown


def read_comparable_part(path: Path) -> dict[str, Any]:
    """Read a run result without times, memory and checksum."""
    record = json.loads(path.read_text())
    for key in ("train_seconds", "eval_seconds", "peak_memory_bytes", "sha256"):
        record.pop(key)
    for entry in record["curve"]:
        entry.pop("seconds")
    return dict(record)


def enable_ctrl_c() -> None:
    """Handle SIGINT as in a terminal. A shell starts background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_command(workplace: Path, model: str, epochs: int) -> subprocess.Popen[str]:
    script = Path(run.__file__)
    arguments = [
        "--models",
        model,
        "--dataset",
        "toy",
        "--set",
        f"epochs={epochs}",
        "--set",
        "batch_size=16",
        "--set",
        "patience=1000",
    ]
    return subprocess.Popen(
        [sys.executable, str(script), *arguments, "--threads", "1"],
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enable_ctrl_c,
    )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str)
def test_an_interrupted_command_keeps_finished_runs(workplace: Path, sent: signal.Signals, code: int) -> None:
    process = start_command(workplace, "Pop,SASRec", 100_000)
    state = workplace / "results" / "toy" / "SASRec" / "2024" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "give the same command again to resume" in err
    results = workplace / "results" / "toy"
    assert read_result(results / "Pop" / "2024" / "record.json").status == "success"
    assert read_result(results / "SASRec" / "2024" / "record.json").status == "cancelled"


def test_a_second_command_names_the_first_and_can_read_finished_runs(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "Pop") == 0
    first = start_command(workplace, "SASRec", 100_000)
    state = workplace / "results" / "toy" / "SASRec" / "2024" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for more in ((), ("--fresh",), ("--export", "test-lists")):
        sentence = fail_with_sentence(capsys, "--models", "Pop,SASRec", *more)
        assert f"SASRec on toy, seed 2024 is in use by process {first.pid} on " in sentence
    assert command("--models", "Pop") == 0
    first.kill()
    first.communicate()
    assert (workplace / "results" / "toy" / "SASRec" / ".2024.lock").exists()
    assert command("--models", "SASRec", "--fresh") == 0
    assert not list(workplace.rglob("*.lock"))


def kill_and_restart(workplace: Path, model: str, kills: int, epochs: int) -> None:
    """Kill and restart a run `kills` times at random moments. Compare it with a run without interruptions."""
    whole = start_command(workplace, model, epochs)
    assert whole.wait(timeout=600) == 0
    folder = workplace / "results" / "toy" / model / "2024"
    uninterrupted, ranks = read_comparable_part(folder / "record.json"), read_ranks(folder / "ranks.npz")
    (workplace / "results").rename(workplace / "whole")
    draw = random.Random(0)
    done = 0
    while done < kills:
        before = sorted(folder.glob("checkpoint/last-*"))
        process = start_command(workplace, model, epochs)
        deadline = time.monotonic() + 120
        while (
            sorted(folder.glob("checkpoint/last-*")) == before
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)  # until this process has written something of its own
        time.sleep(draw.uniform(0.0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        done += 1
    assert done == kills, "the run ended before it could be killed often enough; give it more epochs"
    assert start_command(workplace, model, epochs).wait(timeout=600) == 0
    assert read_comparable_part(folder / "record.json") == uninterrupted
    for phase, expected in ranks.items():
        assert np.array_equal(read_ranks(folder / "ranks.npz")[phase].rank, expected.rank)
    assert not [path for path in folder.rglob("*") if ".tmp." in path.name]
    assert len(list(folder.glob("checkpoint/*"))) == 3


def test_two_kills(workplace: Path) -> None:
    kill_and_restart(workplace, "LightGCN", kills=2, epochs=150)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["LightGCN", "SASRec", "BPR"])
def test_twenty_kills(workplace: Path, model: str) -> None:
    kill_and_restart(workplace, model, kills=20, epochs=600)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--threads", "99999999999"], "--threads 99999999999 must be at least 1 and at most 1024"),
        (["--seeds", str(2**64)], "a seed must be at least 0 and at most"),
        (["--seeds", "9" * 5000], "must be integers separated by commas"),
        (["--export", "test-lists", "--export-k", "\u00b2"], "--export-k"),
    ],
)
def test_numbers_out_of_range_are_refused(
    arguments: list[str], part: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run.main(["--dataset", "toy", "--models", "LightGCN", *arguments]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("\n") == 1
    assert not (workplace / "results" / "toy").exists()
