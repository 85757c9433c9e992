"""run.py with every kind of wrong input: one sentence, and nothing is run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import report, run
from hellm_recbole.data.dataset import Dataset
from tests.benchmarks.run_toy import QUICK, fail_with_sentence
from tests.toy import write_prepared


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
    assert run.main(["--models", "Pop", "--dataset", "Beauty", "--no-download", *QUICK]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "user_sequences.txt" in err
    assert not Path("results").exists()


def damage_interactions(path: Path, what: str) -> None:
    """Break the file of interactions, as an edit by hand could."""
    lines = path.read_text().splitlines()
    contents = {
        "empty file": [],
        "wrong header": ["user\titem\ttime", *lines[1:]],
        "duplicate column": ["user_id:token\titem_id:token\titem_id:token", *lines[1:]],
        "non-numeric field": [*lines[:5], lines[5].rsplit("\t", 1)[0] + "\tsoon", *lines[6:]],
        "missing field": [*lines[:5], "u1\ti1", *lines[6:]],
    }
    if what == "missing file":
        path.unlink()
    elif what in contents:
        path.write_text("".join(f"{line}\n" for line in contents[what]))


def damage_features(folder: Path, what: str) -> None:
    """Break the matrix of text features or its list of items, as an edit by hand could."""
    matrix, tokens = folder / "text_feat.npy", folder / "text_feat.tokens.txt"
    values, names = np.load(matrix), tokens.read_text().splitlines()
    if what == "NaN in features":
        values[3, 1] = np.nan
    contents = {
        "item without features": (values[:-1], names[:-1]),
        "features of no item": (np.vstack([values, values[:1]]), [*names, "stranger"]),
        "NaN in features": (values, names),
        "wrong row count": (values[:-2], names),
        "duplicate token": (values, [names[1], *names[1:]]),
    }
    if what in contents:
        values, names = contents[what]
        np.save(matrix, values)
        tokens.write_text("".join(f"{name}\n" for name in names))


def damage(folder: Path, what: str) -> None:
    """Break one thing in a prepared dataset."""
    damage_interactions(folder / "toy.inter", what)
    damage_features(folder, what)
    if what == "half a manifest":
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
