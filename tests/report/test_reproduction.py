"""Tables with the paper's numbers beside ours: what is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.reproduction import build_paired_table
from tests.report.toy_pairs import EXPERIMENT, ROWS, add_toy_run, build_toy_table


def test_each_run_stands_beside_its_row_of_the_paper(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1, 1, 30])
    add_toy_run(tmp_path, "HeLLMPre-without-CL", [1, 1, 30, 30])
    table = build_toy_table(tmp_path)
    assert [row.run for row in table.rows] == [row.run for row in ROWS]
    whole, without, missing, other = table.rows
    assert (whole.paper_row, without.paper_row, other.paper_row) == ("(no label)", "w/o-CL", None)
    assert whole.numbers["R@20"].ours == 0.75
    assert whole.numbers["R@20"].paper == 0.0820
    assert whole.numbers["R@20"].against_paper == pytest.approx(0.75 / 0.0820 - 1)
    assert whole.numbers["R@20"].change is None
    number = without.numbers["R@20"]
    assert (number.ours, number.paper) == (0.5, 0.0774)
    assert number.change == pytest.approx(-1 / 3)
    assert number.paper_change == pytest.approx(0.0774 / 0.0820 - 1)
    assert missing.problem == "it has not been run"
    assert missing.numbers["R@20"].ours is None
    assert missing.numbers["R@20"].change is None
    assert missing.numbers["R@20"].paper_change == pytest.approx(0.0736 / 0.0820 - 1)
    assert table.has_paper
    assert table.is_ablation
    assert [row.section for row in table.rows] == ["Whole", None, "Others", None]


def test_the_masking_policy_is_that_of_each_familys_source(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [20, 20], train=1, none=50)  # with the policy train, the ranks are 21
    add_toy_run(tmp_path, "Pop", [20, 20], train=50, none=0, family="sequential")
    whole, _, _, other = build_toy_table(tmp_path).rows
    assert whole.numbers["R@20"].ours == 0
    assert other.numbers["R@20"].ours == 1
    assert whole.numbers["R@20"].change is None
    assert "Protocol paper: mask policy of each family's source" in " ".join(build_toy_table(tmp_path).notes)


def test_seeds_are_averaged_and_a_failed_run_has_its_reason(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1], seed=1)
    add_toy_run(tmp_path, "HeLLMPre", [1, 30], seed=2)
    add_toy_run(tmp_path, "HeLLMPre-without-CL", None)
    whole, without, *_ = build_toy_table(tmp_path).rows
    assert whole.seeds == (1, 2)
    assert whole.numbers["R@20"].ours == 0.75
    assert whole.numbers["R@20"].sd == pytest.approx(0.25 * 2**0.5)
    assert without.problem == "failed: loss is NaN at step 7"
    assert without.numbers["R@20"].paper == 0.0774


def test_a_stopped_run_is_not_a_missing_one(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1])
    add_toy_run(tmp_path, "HeLLMPre-without-CL", None, status="cancelled", reason="stopped by Ctrl-C")
    table = build_toy_table(tmp_path, stopped={"HeLLMPre", "HeLLMPre-without-U2U"})
    stopped = "it was stopped before it finished"
    assert [row.problem for row in table.rows] == [None, stopped, stopped, "it has not been run"]


def test_a_note_about_a_row_stands_only_in_a_table_that_has_the_row(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1])
    experiment = replace(EXPERIMENT, row_notes={"HeLLMPre-without-U2U": "Of U2U.", "Pop": "Of Pop."})
    assert build_toy_table(tmp_path, experiment).notes[-3:] == ("A note.", "Of U2U.", "Of Pop.")
    assert build_toy_table(tmp_path, experiment, rows=ROWS[:3]).notes[-2:] == ("A note.", "Of U2U.")
    assert build_toy_table(tmp_path, experiment, rows=ROWS[:1]).notes[-1] == "A note."


def test_runs_of_other_presets_and_models_are_left_out(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1])
    add_toy_run(tmp_path, "HeLLMPre-without-CL", [1, 1], preset="quick")
    add_toy_run(tmp_path, "LightGCN", [1, 1])
    table = build_toy_table(tmp_path)
    assert table.rows[1].problem == "it has not been run"
    assert "LightGCN" not in {row.run for row in table.rows}
    labels = {row.run: row.run for row in ROWS}
    assert build_paired_table(EXPERIMENT, ROWS[1:], labels, read_frame(tmp_path, "Toy"), "paper") is None


def test_a_dataset_that_the_paper_does_not_have(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1], paper=None)
    table = build_toy_table(tmp_path, notes=["No texts."])
    assert not table.has_paper
    assert table.rows[0].paper_row is None
    assert "The paper has no numbers for Toy." in table.notes
    assert table.notes[-2:] == ("No texts.", "A note.")


def test_the_caption_says_what_the_papers_numbers_are(tmp_path: Path) -> None:
    add_toy_run(tmp_path, "HeLLMPre", [1, 1])
    notes = " ".join(build_toy_table(tmp_path).notes)
    assert "Paper: Table 3 of the HeLLM paper, ablation on the test part (Guo et al." in notes
    assert "it does not state its seeds, its LLM rows read LLaMA-2-7B" in notes
    assert "Paper: Table 1" not in notes
    table1 = replace(EXPERIMENT, name="table1", rows=ROWS[:1])
    assert build_toy_table(tmp_path, table1).rows[0].paper_row is None  # the paper's Table 1 has no such row


def test_settings_of_the_command_line_are_a_footnote(tmp_path: Path) -> None:
    settings = {"epochs": {"value": 2, "origin": "--set epochs=2"}, "valid_metric": {"value": "N@20", "origin": "x"}}
    add_toy_run(tmp_path, "HeLLMPre", [1, 1], settings=settings)
    add_toy_run(tmp_path, "HeLLMPre-without-CL", [1, 1])
    table = build_toy_table(tmp_path)
    (footnote,) = [one for one in table.footnotes if "--set epochs=2" in one.text]
    assert table.rows[0].marks == (footnote.mark,)
    assert footnote.mark not in table.rows[1].marks
