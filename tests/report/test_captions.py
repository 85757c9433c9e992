"""Captions of a table: what was measured, and failed seeds."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.report.rendering import render_latex, render_markdown
from hellm_recbole.report.terminal import render_terminal
from tests.report.toy_tables import build_ranks, make_table, write_toy_runs
from tests.toy_records import add_run


def test_the_caption_says_what_was_measured(tmp_path: Path) -> None:
    text = render_terminal(make_table(write_toy_runs(tmp_path)), 400)
    for sentence in (
        "Toy, test part, full ranking over 1,000 candidates, K = 10, 20.",
        "Protocol unified: mask policy seen for every row.",
        "Split leave-one-out, 0123456789ab.",
        "Preset paper; seeds 2024, 2025",
        "10,000 resamples, seed 2024",
        "Holm-corrected over the 8 comparisons",
    ):
        assert sentence in text


def test_rows_that_were_best_at_the_last_epoch_are_named(tmp_path: Path) -> None:
    limit = {"epochs": {"value": 10, "origin": "preset/quick.yaml"}}
    for model, best_epoch in (("VBPR", 10), ("BM3", 9), ("GRCN", 10)):
        add_run(tmp_path, build_ranks(10, 1), model=model, settings=limit, best_epoch=best_epoch, epochs_run=10)
    sentence = "Best at the last epoch allowed, so more epochs may improve them: GRCN, VBPR."
    assert sentence in make_table(tmp_path).notes


def test_a_table_without_comparisons_explains_no_star(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    table = make_table(tmp_path)
    assert table.mark_note is None
    for text in (render_terminal(table, 400), render_markdown(table), render_latex(table)):
        assert "Holm" not in text
        assert "bootstrap" not in text
        assert "None" not in text


def test_a_failed_seed_is_in_the_notes_and_not_in_the_mean(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, None, seed=2025)
    table = make_table(tmp_path)
    assert table.rows[0].seeds == (2024,)
    assert table.rows[0].cells["R@10"].mean == 1 / 4
    assert "LightGCN, seed 2025, failed: loss is NaN at step 7." in table.notes


def test_a_language_model_without_strong_baselines_is_stamped(tmp_path: Path) -> None:
    strong = ("Pop", "ItemKNN", "Transitions", "SASRec", "BSARec")
    add_run(tmp_path, build_ranks(10, 1), model="HeLLM", family="llm", backbone="tiny")
    for number, model in enumerate(strong):
        stamp = make_table(tmp_path).stamp
        assert stamp is not None
        assert f"without {', '.join(strong[number:])} on the same split." in stamp
        add_run(tmp_path, build_ranks(10, 1), model=model, family="sequential")
    assert make_table(tmp_path).stamp is None


def test_only_finished_baselines_count_and_only_language_models_need_them(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", family="multimodal")
    assert make_table(tmp_path).stamp is None
    add_run(tmp_path, build_ranks(10, 1), model="HeLLM", family="llm", backbone="tiny")
    for model in ("Pop", "ItemKNN", "Transitions", "SASRec"):
        source = "recbole" if model == "Pop" else "hellm_recbole"  # RecBole's Pop of an earlier version counts, too
        add_run(tmp_path, build_ranks(10, 1), model=model, family="sequential", source=source)
    add_run(tmp_path, None, model="BSARec", family="sequential")
    stamp = make_table(tmp_path).stamp
    assert stamp == "Missing baselines: rows with a language model stand here without BSARec on the same split."


def test_the_caption_says_that_llara_reads_no_titles(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="HeLLM", family="llm", backbone="tiny")
    sentence = "LLaRA reads embeddings only; LLaRA-text is the row that also reads titles."
    assert sentence not in make_table(tmp_path).notes
    add_run(tmp_path, build_ranks(10, 1), model="LLaRA", family="llm", backbone="tiny")
    assert sentence in make_table(tmp_path).notes


def test_the_caption_says_what_a_split_left_out(tmp_path: Path) -> None:
    details = {
        **{"valid_from": "5", "test_from": "7", "valid_items": None, "test_items": None},
        **{"unknown_users": 2, "unknown_items": 3, "left_out": 4, "repeated": 1},
    }
    kind = "time-line:valid_from=5,test_from=7"
    add_run(tmp_path, build_ranks(10, 1), split_kind=kind, split_details=details)
    assert (
        f"Split {kind}: validation from 5, test from 7; 2 users and 3 items without a training interaction are left "
        "out, and so are 4 interactions with them; 1 repetitions of a target are left out."
    ) in make_table(tmp_path).notes


def test_the_caption_says_which_rows_were_validated_on_a_sample(tmp_path: Path) -> None:
    sample = {"users": 3, "of": 4, "targets": 3, "users_sha256": "0" * 64}
    add_run(tmp_path, build_ranks(10, 1), model="BM3", valid_sample=sample)
    (note,) = (one for one in make_table(tmp_path).notes if "alidation" in one)
    assert note == (
        "Validation, which chooses epochs and weights, evaluated a fixed random sample of users: 3 of 4 users. "
        "The test part is whole."
    )
    add_run(tmp_path, build_ranks(10, 2), model="VBPR")
    (note,) = (one for one in make_table(tmp_path).notes if "users of validation" in one)
    assert note == (
        "Rows differ in the users of validation, which chooses epochs and weights: BM3 on 3 of 4 users; VBPR on all "
        "users. The test part is whole."
    )
