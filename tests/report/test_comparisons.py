"""Comparisons of rows: against a chosen row, tests, corrections, effect sizes, captions and columns of the CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hellm_recbole.config.comparison import Comparison
from hellm_recbole.errors import SettingsError
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.significance import correct_holm
from hellm_recbole.report.captions import write_mark_note
from hellm_recbole.report.rendering import render_csv, render_latex, render_markdown
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import Table
from hellm_recbole.report.terminal import render_terminal
from tests.evaluation.test_significance import paired_bootstrap
from tests.report.toy_tables import build_ranks, by_model, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run, toy_ranks

METRICS = ("R@10", "N@10", "R@20", "N@20")


def write_random_runs(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write three runs of 300 users. Return the metrics of each user: row -> metric -> [U]."""
    generator = np.random.default_rng(5)
    ranks = {name: generator.geometric(p, 300) for name, p in (("A", 0.02), ("B", 0.04), ("C", 0.042))}
    for name, rank in ranks.items():
        add_run(folder, rank, model=name)
    return {n: metrics.compute_per_user(toy_ranks(r).user, toy_ranks(r).rank, [10, 20])[1] for n, r in ranks.items()}


def compare(folder: Path, against: str | None = None, *tests: str, correction: str = "holm") -> Table:
    how = Comparison(against, tests or ("bootstrap",), correction)  # type: ignore[arg-type]
    return make_table(folder, comparison=how)


@pytest.mark.parametrize("chosen", ["A", "B", "C"])
def test_every_row_is_compared_with_the_chosen_one(tmp_path: Path, chosen: str) -> None:
    values, settings = write_random_runs(tmp_path), read_report_settings()
    rows = by_model(compare(tmp_path, chosen))
    pairs = [(name, metric) for name in values if name != chosen for metric in METRICS]
    raw = [
        paired_bootstrap(values[name][metric], values[chosen][metric], settings.n_resamples, settings.bootstrap_seed)
        for name, metric in pairs
    ]
    for (name, metric), p in zip(pairs, correct_holm(np.array(raw)), strict=True):
        cell = rows[name].cells[metric]
        assert cell.p == pytest.approx(p)
        assert cell.significant == (p < 0.05)
        assert cell.comparison is not None
        assert cell.comparison.rival == chosen
        difference = values[name][metric] - values[chosen][metric]
        assert cell.comparison.difference == pytest.approx(difference.mean(), abs=1e-12)
        assert cell.comparison.relative == pytest.approx(difference.mean() / values[chosen][metric].mean())
        assert cell.comparison.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
        assert cell.comparison.low < cell.comparison.difference < cell.comparison.high
    assert {(cell.p, cell.significant, cell.comparison) for cell in rows[chosen].cells.values()} == {
        (None, False, None)
    }


def test_a_worse_row_can_have_a_star_only_against_a_chosen_row(tmp_path: Path) -> None:
    write_random_runs(tmp_path)
    against_best = by_model(compare(tmp_path, "C"))
    assert against_best["A"].cells["R@20"].significant
    assert not by_model(make_table(tmp_path))["A"].cells["R@20"].significant


@pytest.mark.parametrize("test", ["wilcoxon", "t"])
def test_other_tests_are_those_of_scipy(tmp_path: Path, test: str) -> None:
    values = write_random_runs(tmp_path)
    rows = by_model(compare(tmp_path, "C", test, correction="none"))
    for name in "AB":
        for metric in METRICS:
            a, b = values[name][metric], values["C"][metric]
            expected = stats.wilcoxon(a - b) if test == "wilcoxon" else stats.ttest_rel(a, b)
            assert rows[name].cells[metric].p == pytest.approx(expected.pvalue, rel=1e-9)


def test_corrections_count_the_comparisons_of_the_table(tmp_path: Path) -> None:
    write_random_runs(tmp_path)
    p = {}
    for correction in ("none", "holm", "bh"):
        rows = by_model(compare(tmp_path, "C", "t", correction=correction))
        p[correction] = [rows[name].cells[metric].p for name in "AB" for metric in METRICS]
    assert p["holm"] == pytest.approx(correct_holm(np.array(p["none"])))
    assert p["bh"] == pytest.approx(stats.false_discovery_control(p["none"]))
    assert p["none"] < p["bh"]
    assert p["bh"] < p["holm"]


def test_without_a_chosen_row_the_best_row_has_the_test_of_its_rival(tmp_path: Path) -> None:
    write_random_runs(tmp_path)
    default, described = by_model(make_table(tmp_path)), by_model(compare(tmp_path, None, "bootstrap", "wilcoxon"))
    for name, row in described.items():
        for metric, cell in row.cells.items():
            plain = default[name].cells[metric]
            assert (cell.p, cell.significant, cell.mean) == (plain.p, plain.significant, plain.mean)
            assert plain.comparison is None
    for metric in METRICS:
        cells = {name: row.cells[metric] for name, row in described.items()}
        best, second, third = sorted(cells, key=lambda name: -cells[name].mean)
        found = {name: cell.comparison for name, cell in cells.items()}
        assert [found[name] and found[name].rival for name in (best, second, third)] == [second, best, best]
        assert found[best].p == found[second].p
        assert found[best].difference == pytest.approx(-found[second].difference)


def test_a_chosen_row_has_no_star_with_another_number_of_seeds(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1), model="Winner")
    add_run(tmp_path, build_ranks(5, 1), model="Other")
    assert by_model(compare(tmp_path, "Other"))["Winner"].cells["R@10"].significant
    add_run(tmp_path, build_ranks(38, 1), model="Winner", seed=2025)
    assert not by_model(compare(tmp_path, "Other"))["Winner"].cells["R@10"].significant


def test_equal_rows_have_no_effect_size(tmp_path: Path) -> None:
    for model in ("First", "Second"):
        add_run(tmp_path, build_ranks(5, 1), model=model)
    table = compare(tmp_path, "First", "t", "wilcoxon", "randomisation", "bootstrap")
    found = by_model(table)["Second"].cells["R@10"].comparison
    assert found is not None
    assert (found.difference, found.low, found.high, found.relative, found.effect_size) == (0, 0, 0, 0, None)
    assert set(found.p.values()) == {1.0}
    line = render_csv(table).splitlines()
    assert line[0].split(",")[-1] == "N@20_p_bootstrap"


def test_the_caption_says_what_was_done(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    table = compare(tmp_path, "SAS_Rec", "wilcoxon", "t", correction="bh")
    sentence = (
        "a row is better or worse than SAS_Rec at p < 0.05: two-sided Wilcoxon signed-rank test over users (zero "
        "differences left out; values are averaged over seeds first), Benjamini-Hochberg-corrected over the 8 "
        "comparisons of a row with SAS_Rec in this table. The CSV file also has p-values of these tests, corrected in "
        "the same way: t."
    )
    assert table.mark_note == sentence
    assert sentence.replace("_", r"\_").replace("<", r"\<") in render_markdown(table)
    assert sentence.replace("_", r"\_").replace("<", r"\textless{}") in render_latex(table)
    assert sentence in " ".join(render_terminal(table, 100).split())
    note = compare(tmp_path, None, "randomisation", correction="none").mark_note
    assert note is not None
    assert "better than its best rival at p < 0.05: two-sided paired randomisation test over users (10,000 " in note
    assert "not corrected for the 8 comparisons of a row with its best rival" in note


def test_nothing_is_corrected_over_no_comparison(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(5, 1), model="Only")
    table = compare(tmp_path, "Only", "t")
    assert table.mark_note is None
    assert "omparison" not in render_markdown(table)
    assert write_mark_note(read_report_settings(), 1, Comparison()).count("the 1 comparison of a row") == 1  # type: ignore[union-attr]


def test_the_csv_file_has_effects_and_further_tests_at_its_end(tmp_path: Path) -> None:
    values = write_random_runs(tmp_path)
    plain = render_csv(make_table(tmp_path)).splitlines()
    path = tmp_path / "described.csv"
    path.write_text(render_csv(compare(tmp_path, "B", "t", "randomisation", correction="bh")))
    assert path.read_text().splitlines()[0].startswith(f"{plain[0]},test,correction,R@10_rival,")
    rows = read_csv(path)
    assert (rows["A"]["test"], rows["A"]["correction"], rows["A"]["R@10_rival"]) == ("t", "bh", "B")
    assert float(rows["A"]["N@20_difference"]) == pytest.approx(values["A"]["N@20"].mean() - values["B"]["N@20"].mean())
    for part in ("rival", "difference", "difference_low", "difference_high", "relative", "effect_size"):
        assert rows["B"][f"R@10_{part}"] == ""
        assert rows["A"][f"R@10_{part}"] != ""
    assert 0 < float(rows["A"]["R@20_p_randomisation"]) < 0.05
    assert "R@10_p_t" not in rows["A"]


def test_an_unknown_or_failed_row_is_refused(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    for name in ("SASRec", "BM3"):  # BM3 failed
        with pytest.raises(SettingsError, match=rf"--against {name}: .* no finished row .* LightGCN, SAS_Rec, VBPR$"):
            compare(tmp_path, name)


def test_a_row_is_named_by_its_label_its_model_or_its_preset(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="HeLLM", backbone="tiny", family="llm")
    add_run(tmp_path, build_ranks(20, 1), model="Pop")
    for name in ("HeLLM@tiny", "HeLLM"):
        comparison = by_model(compare(tmp_path, name))["Pop"].cells["R@10"].comparison
        assert comparison is not None
        assert comparison.rival == "HeLLM@tiny"
    add_run(tmp_path, build_ranks(30, 1), model="Pop", preset="quick", seed=2025)
    with pytest.raises(SettingsError, match=r"several rows .* 'Pop \(paper\)' or 'Pop \(quick\)'"):
        compare(tmp_path, "Pop")
    table = compare(tmp_path, "Pop (quick)")
    assert {row.cells["R@10"].comparison and row.cells["R@10"].comparison.rival for row in table.rows} == {
        None,
        "Pop (quick)",
    }
    assert "worse than Pop (quick) at p" in str(table.mark_note)
