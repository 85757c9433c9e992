from __future__ import annotations

import csv
import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from hellm_recbole.config.extra_settings import NativeTaskSettings, read_native_task_settings
from hellm_recbole.errors import ResultError
from hellm_recbole.report.native_table import (
    NativeTable,
    build_native_table,
    choose_hit_candidates,
    render_native_csv,
    render_native_markdown,
)
from tests.report.toy_extras import add_rated, add_sampled, add_toy_run

USERS = ["a", "a", "a", "b", "b", "c", "d", "d"]
RATINGS = [5, 3, 4, 2, 4, 5, 4, 5]  # liked: yes no yes, no yes, yes, yes yes
SCORES = [0.9, 0.5, 0.2, 9.0, 8.0, 0.1, 0.3, 0.4]


@pytest.fixture
def settings() -> NativeTaskSettings:
    return read_native_task_settings()


@pytest.fixture
def table(tmp_path: Path, settings: NativeTaskSettings) -> NativeTable:
    folder = add_toy_run(tmp_path, [3] * 10, model="SASRec", family="sequential")
    add_rated(folder, USERS, RATINGS, SCORES)
    add_sampled(folder, [1] * 3 + [2] * 7, choose_hit_candidates(settings))
    add_sampled(add_toy_run(tmp_path, [3] * 10, model="Pop"), [1] * 2 + [20] * 8, choose_hit_candidates(settings))
    return build_native_table(tmp_path, "Toy", settings, "both")


def test_values_are_those_of_the_scores(table: NativeTable) -> None:
    pop, sasrec = table.rows
    # Liked .9, .2, 8, .1, .3, .4 against disliked .5 and 9: .9 and 8 are above .5, none is above 9.
    assert sasrec.values["AUC"].value == pytest.approx(float(Fraction(2, 12)))
    # User a: .9 is above .5, .2 is not. User b: 8 is not above 9. c has one item, d has no disliked one.
    assert sasrec.values["uAUC"].value == pytest.approx(float((Fraction(1, 2) + 0) / 2))
    # Ranks of liked 1, 3, 2, 1, 2, 1 against disliked 2 and 1; lower is better: 3 of 6 beat 2 and two tie; three tie 1.
    assert sasrec.values["AUC of ranks"].value == pytest.approx(float((3 + Fraction(2, 2) + Fraction(3, 2)) / 12))
    assert sasrec.values["HR@1 of 20"].value == pytest.approx(0.3)
    assert pop.values.keys() == {"HR@1 of 20"}
    assert pop.values["HR@1 of 20"].value == pytest.approx(0.2)


def test_the_caption_says_what_the_values_are(table: NativeTable) -> None:
    text = render_native_markdown(table)
    assert text.count("\u2013") == 3  # the AUC of Pop is missing
    assert "ADAPTATIONS of the native tasks of CoLLM and LLaRA" in text
    assert "AUC (CoLLM): 8 validation and test items" in text
    assert "6 are liked, with a rating above 3." in text
    assert "uAUC: mean over 2 users with a liked and a disliked item" in text
    assert "left out are 1 users with one item and 1 with items of one class" in text
    assert "19" not in text.partition("HR@1 of 20 (LLaRA)")[0].partition("ADAPT")[2]
    assert "drawn uniformly, without replacement, with seed 2024" in text
    assert "chance gives 0.0500" in text
    pop, sasrec = csv.DictReader(io.StringIO(render_native_csv(table)))
    assert (pop["auc"], pop["task"], pop["held_out"]) == ("", "adaptation", "both")
    assert float(sasrec["user_auc"]) == pytest.approx(0.25)
    assert float(sasrec["HR@1 of 20"]) == pytest.approx(0.3)


def test_one_test_item_for_each_user_has_no_user_auc(tmp_path: Path, settings: NativeTaskSettings) -> None:
    folder = add_toy_run(tmp_path, [3] * 10)
    add_rated(folder, ["a", "b", "c"], [5, 1, 4], [3.0, 2.0, 1.0], "test")
    table = build_native_table(tmp_path, "Toy", settings, "test")
    assert table.columns == ("AUC", "AUC of ranks", "uAUC")
    assert table.rows[0].values["AUC"].value == 0.5
    assert "uAUC" not in table.rows[0].values
    text = render_native_markdown(table)
    assert "3 test items, scored with the history of the test phase; 2 are liked" in text
    assert "uAUC: mean over 0 users" in text
    assert "It needs several test items of a user: use --held-out both, or another split." in text
    assert "LLaRA writes" not in text


def test_the_threshold_is_a_setting(tmp_path: Path, settings: NativeTaskSettings) -> None:
    add_rated(add_toy_run(tmp_path, [3] * 10), USERS, RATINGS, SCORES)
    stricter = settings.model_copy(update={"liked_above": 4.0})
    notes = build_native_table(tmp_path, "Toy", stricter, "both").notes
    assert any("3 are liked, with a rating above 4." in note for note in notes)


def test_different_items_and_missing_files_are_refused(tmp_path: Path, settings: NativeTaskSettings) -> None:
    with pytest.raises(ResultError, match="has scores for the native tasks; make them with"):
        build_native_table(tmp_path, "Toy", settings, "test")
    candidates = choose_hit_candidates(settings)
    for model, digest in (("Pop", "a"), ("BPR", "b")):
        add_sampled(add_toy_run(tmp_path, [3] * 10, model=model), [1] * 10, candidates, negatives_sha256=digest * 64)
    with pytest.raises(ResultError, match="were ranked among different sampled items"):
        build_native_table(tmp_path, "Toy", settings, "test")
    assert replace(candidates, number=5).name == "sampled_uniform_5_seed2024"
