"""run.py from the command line: runs, results, exports and tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hellm_recbole.benchmarks import report, run
from hellm_recbole.config.large_data import read_large_data_settings
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.experiments import automatic_batch, full_loss
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from tests.benchmarks.run_toy import command, fail_with_sentence
from tests.toy_records import rewrite


def test_a_command_writes_results_ranks_and_tables(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Pop,RecBole-BPR,LightGCN,VBPR,SASRec", "--seeds", "1,2") == 0
    shown = capsys.readouterr().out
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    for model in ("Pop", "RecBole-BPR", "LightGCN", "VBPR", "SASRec"):
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


def test_an_automatic_batch_size_is_recorded_in_numbers_and_resumed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The synthetic dataset is made large by its setting: one seventh of its training interactions is the reference."""
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    n = len(split.train.items)
    small = read_large_data_settings().model_copy(update={"batch_interactions": n // 7})
    monkeypatch.setattr(automatic_batch, "read_large_data_settings", lambda: small)
    arguments = ("--models", "BPR,SASRec", "--set", "batch_size=8", "--set", "batch_size=auto")
    assert command(*arguments) == 0
    for model in ("BPR", "SASRec"):
        path = workplace / "results" / "toy" / model / "2024" / "record.json"
        entry = read_result(path).settings["batch_size"]
        assert entry == {"value": 56, "origin": f"--set batch_size=auto, auto: 8 x 7 for {n} training interactions"}
        before = path.stat().st_mtime_ns
        assert command(*arguments) == 0
        assert path.stat().st_mtime_ns == before


def test_a_catalogue_above_the_limit_asks_for_the_loss(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = read_large_data_settings().model_copy(update={"full_loss_items": 30})
    monkeypatch.setattr(full_loss, "read_large_data_settings", lambda: small)
    said = fail_with_sentence(capsys, "--models", "LightGCN,SASRec")
    assert "SASRec on toy: with more than 30 items (here" in said
    assert "write --set SASRec.loss=sampled or --set SASRec.loss=full" in said
    assert not (workplace / "results" / "toy" / "LightGCN").exists()
    assert command("--models", "SASRec", "--set", "loss=sampled", "--set", "n_negatives=5") == 0
    assert "n_negatives has no effect with loss = full" in fail_with_sentence(
        capsys, "--models", "SASRec", "--set", "loss=full", "--set", "n_negatives=5"
    )


def test_a_finished_run_is_not_run_again_unless_fresh(workplace: Path) -> None:
    record = workplace / "results" / "toy" / "LightGCN" / "2024" / "record.json"
    assert command("--models", "LightGCN") == 0
    first = record.stat().st_mtime_ns
    assert command("--models", "LightGCN") == 0
    assert record.stat().st_mtime_ns == first
    assert command("--models", "LightGCN", "--fresh") == 0
    assert record.stat().st_mtime_ns > first


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
    said = fail_with_sentence(capsys, "--models", "LightGCN,RecBole-BPR", "--export", "test-lists,embeddings")
    assert said.startswith(
        "error: --export embeddings: RecBole-BPR is a model of RecBole and has no embeddings to export; "
    )
    assert "RecBole-BPR, RecBole-Pop are models of RecBole and have" in fail_with_sentence(
        capsys, "--models", "RecBole-BPR,RecBole-Pop", "--export", "embeddings"
    )
    assert not (workplace / "results").exists()
    assert command("--models", "RecBole-BPR", "--export", "test-lists") == 0


def test_exported_lists_contain_the_targets_that_the_ranks_imply(workplace: Path) -> None:
    models = ("Pop", "RecBole-BPR", "LightGCN", "HeLLMPre-without-CL")
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


def test_a_run_that_leaves_out_items_without_features_says_how_many(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--models", "VBPR", "--set", "missing_features=masked", "--dry-run")
    assert command(*words) == 0
    same = "toy: missing_features masked: no item lacks image or text features, so masked changes nothing\n"
    assert same in capsys.readouterr().out
    assert command("--models", "VBPR", "--dry-run") == 0
    assert "missing_features" not in capsys.readouterr().out
