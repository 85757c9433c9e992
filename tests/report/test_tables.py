"""Comparison tables: numbers, stars, captions and footnotes in all output formats, and runs that are refused."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import OutputError, ResultError, SettingsError
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.significance import correct_holm
from hellm_recbole.experiments.results import find_results, read_ranks
from hellm_recbole.report.tables import (
    Row,
    Table,
    build_table,
    read_report_settings,
    read_test_ranks,
    to_latex,
    to_markdown,
    to_terminal,
    write_tables,
)
from tests.evaluation.test_significance import paired_bootstrap
from tests.toy_records import add_run, rewrite, toy_identity, toy_ranks

EXPECTED = Path(__file__).parents[1] / "reference" / "toy_table.md"
N_USERS = 40


def build_ranks(n: int, rank: int) -> np.ndarray:
    """Return the ranks of 40 users' targets: the first `n` have this rank, the others rank 500."""
    return np.where(np.arange(N_USERS) < n, rank, 500)


def write_toy_runs(folder: Path, **changes: Any) -> Path:
    """Write the runs of four rows of three families; one run failed, and two rows have two seeds."""
    add_run(folder, build_ranks(10, 1), train_seconds=90.0, **changes)
    add_run(folder, build_ranks(20, 1), seed=2025, train_seconds=150.0, **changes)
    add_run(folder, build_ranks(30, 3), model="VBPR", family="multimodal", **changes)
    add_run(folder, build_ranks(30, 3), seed=2025, model="VBPR", family="multimodal", **changes)
    add_run(folder, None, model="BM3", family="multimodal", **changes)
    add_run(folder, build_ranks(8, 15), model="SAS_Rec", family="sequential", train_seconds=None, **changes)
    return folder


def make_table(folder: Path, protocol: Any = "unified", dataset: str = "Toy", **options: Any) -> Table:
    records = find_results(folder, dataset)
    return build_table(records, read_test_ranks(records), protocol, read_report_settings(), **options)


def by_model(table: Table) -> Mapping[str, Row]:
    return {row.model: row for row in table.rows}


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in csv.DictReader(io.StringIO(path.read_text()))}


def test_toy_records_give_the_stored_table(tmp_path: Path) -> None:
    # LightGCN: R@10 = N@10 = 1/4 and 1/2. VBPR: R = 30/40, N = R / log2(4), which ties with LightGCN's 3/8.
    # SAS_Rec: R@20 = 8/40, N@20 = R / log2(16).
    write_tables(write_toy_runs(tmp_path), "Toy", "unified")
    assert (tmp_path / "Toy" / "table.md").read_text() == EXPECTED.read_text()


def test_all_numbers_by_hand(tmp_path: Path) -> None:
    rows = by_model(make_table(write_toy_runs(tmp_path)))
    cell = rows["LightGCN"].cells["R@10"]
    assert (cell.mean, cell.sd) == (3 / 8, pytest.approx(1 / (4 * 2**0.5)))
    assert rows["VBPR"].cells["N@20"].mean == 3 / 8
    assert rows["VBPR"].cells["N@20"].sd == 0
    assert rows["SAS_Rec"].cells["N@20"].sd is None
    assert rows["SAS_Rec"].cells["N@20"].mean == pytest.approx(1 / 20)
    assert rows["SAS_Rec"].cells["R@10"].mean == 0
    assert rows["LightGCN"].train_seconds == 120
    assert rows["SAS_Rec"].train_seconds is None
    assert rows["LightGCN"].seeds == (2024, 2025)


def test_numbers_come_from_the_ranks_and_agree_with_the_records(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = add_run(tmp_path, generator.integers(1, 40, 100))
    recorded = json.loads(path.read_text())["metrics"]["test"]
    cells = make_table(tmp_path).rows[0].cells
    assert {name: cell.mean for name, cell in cells.items()} == pytest.approx(recorded, abs=1e-15)

    rewrite(path, lambda content: content["metrics"].update(test={"R@10": 0.99}))
    assert make_table(tmp_path).rows[0].cells == cells


def test_other_cutoffs_from_the_same_ranks(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    table = make_table(tmp_path, cutoffs=[50, 1])
    assert table.metrics == ("R@1", "N@1", "R@50", "N@50")
    assert by_model(table)["VBPR"].cells["R@1"].mean == 0
    assert by_model(table)["LightGCN"].cells["R@1"].mean == 3 / 8


def test_groups_are_in_order_and_the_best_row_of_a_group_is_first(tmp_path: Path) -> None:
    for index, family in enumerate(("llm", "sequential", "multimodal", "collaborative")):
        add_run(tmp_path, build_ranks(5 + index, 1), model=f"Low{index}", family=family)
        add_run(tmp_path, build_ranks(20 + index, 12), model=f"High{index}", family=family)
    table = make_table(tmp_path)
    assert [row.family for row in table.rows[::2]] == ["collaborative", "multimodal", "sequential", "llm"]
    by_r10 = make_table(tmp_path, metric="R@10")
    assert [row.model for row in by_r10.rows[:2]] == ["Low3", "High3"]
    by_r20 = make_table(tmp_path, metric="R@20")
    assert [row.model for row in by_r20.rows[:2]] == ["High3", "Low3"]


@pytest.mark.parametrize("metric", ["MRR", "N@", "N@0", "n@20", "R@10 "])
def test_an_unknown_metric_is_refused(tmp_path: Path, metric: str) -> None:
    write_toy_runs(tmp_path)
    with pytest.raises(SettingsError, match=r"neither R@K nor N@K; choose a metric such as N@20"):
        make_table(tmp_path, metric=metric)


def test_equal_means_have_the_same_position(tmp_path: Path) -> None:
    table = by_model(make_table(write_toy_runs(tmp_path)))
    positions = {
        name: [table[name].cells[metric].position for metric in ("R@10", "N@10")] for name in ("LightGCN", "VBPR")
    }
    assert positions == {"LightGCN": [2, 1], "VBPR": [1, 1]}
    assert table["SAS_Rec"].cells["R@10"].position == 0
    # Equal means are never significant, whichever row comes first.
    assert not any(table[name].cells["N@10"].significant for name in positions)


def test_p_values_equal_those_of_separate_tests(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    ranks = {name: generator.geometric(p, 300) for name, p in (("A", 0.02), ("B", 0.04), ("C", 0.042))}
    for name, rank in ranks.items():
        add_run(tmp_path, rank, model=name)
    table = by_model(make_table(tmp_path))
    settings = read_report_settings()
    values = {n: metrics.compute_per_user(toy_ranks(r).user, toy_ranks(r).rank, [10, 20])[1] for n, r in ranks.items()}
    expected = []
    for metric in ("R@10", "N@10", "R@20", "N@20"):
        best = max(ranks, key=lambda name: values[name][metric].mean())
        for name in sorted(ranks.keys() - {best}):
            p = paired_bootstrap(
                values[best][metric], values[name][metric], settings.n_resamples, settings.bootstrap_seed
            )
            expected.append((metric, best, name, p))
    for (metric, best, name, _), p in zip(expected, correct_holm(np.array([e[3] for e in expected])), strict=True):
        assert table[name].cells[metric].p == pytest.approx(p)
        assert not table[name].cells[metric].significant
        rival = max(ranks.keys() - {best}, key=lambda n: values[n][metric].mean())
        assert table[best].cells[metric].p == table[rival].cells[metric].p
    assert table["A"].cells["R@20"].p < 0.05  # the test data has a significant difference
    assert all(cell.low < cell.mean < cell.high for cell in table["B"].cells.values())


def test_a_clear_win_is_marked_and_a_close_one_is_not(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1), model="Winner")
    add_run(tmp_path, build_ranks(5, 1), model="Other")
    assert all(cell.significant for cell in by_model(make_table(tmp_path))["Winner"].cells.values())
    add_run(tmp_path, build_ranks(37, 1), model="Close")
    assert not any(cell.significant for row in make_table(tmp_path).rows for cell in row.cells.values())


def test_no_star_between_rows_with_different_numbers_of_seeds(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1), model="Winner")
    add_run(tmp_path, build_ranks(5, 1), model="Other")
    add_run(tmp_path, build_ranks(38, 1), model="Winner", seed=2025)
    table = make_table(tmp_path)
    assert not any(cell.significant for row in table.rows for cell in row.cells.values())
    assert "Numbers of seeds differ (" in table.notes[-1]
    assert "so no star stands between a row and a rival with another number of seeds" in to_markdown(table)
    add_run(tmp_path, build_ranks(5, 1), model="Other", seed=2025)
    add_run(tmp_path, build_ranks(3, 1), model="Third")  # neither the best row nor the best other row
    table = make_table(tmp_path)
    assert all(cell.significant for cell in by_model(table)["Winner"].cells.values())
    assert "Numbers of seeds differ (Third 1, all others 2)" in table.notes[-1]


def test_footnotes_are_in_every_output_format(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(30, 1), model="VBPR", identity=toy_identity("aaaaaaaaa", ["a_b"]))
    add_run(tmp_path, build_ranks(20, 1), model="BM3", identity=toy_identity("bbbbbbbbb", ["c"]))
    add_run(tmp_path, build_ranks(10, 1), model="Pop")
    table = make_table(tmp_path)
    rows = by_model(table)
    letters = {name: row.marks for name, row in rows.items()}
    assert sorted([*letters["VBPR"], *letters["BM3"]]) == ["a", "b"]
    assert letters["Pop"] == ()
    (letter,) = letters["VBPR"]
    assert f"VBPR <sup>{letter}</sup>" in to_markdown(table)
    assert rf"- {letter}: reads text features aaaaaaaa, MiniLM on a\_b; other" in to_markdown(table)
    assert f"VBPR$^{{{letter}}}$" in to_latex(table)
    assert rf"{letter}: reads text features aaaaaaaa, MiniLM on a\_b;" in to_latex(table)
    shown = " ".join(to_terminal(table, 80).split())
    assert f"VBPR ({letter})" in shown
    assert f"({letter}) reads text features aaaaaaaa, MiniLM on a_b;" in shown
    write_tables(tmp_path, "Toy", "unified")
    lines = read_csv(tmp_path / "Toy" / "table.csv")
    assert lines["VBPR"]["footnotes"].startswith("reads text features aaaaaaaa")
    assert lines["Pop"]["footnotes"] == ""


def test_a_footnote_about_every_row_has_no_letter(tmp_path: Path) -> None:
    given = {"epochs": {"value": 3, "origin": "--epochs=3"}}
    for model in ("VBPR", "BM3"):
        add_run(tmp_path, build_ranks(20, 1), model=model, settings=given)
    table = make_table(tmp_path)
    assert [row.marks for row in table.rows] == [(), ()]
    assert "- Every row: run with --epochs=3." in to_markdown(table)
    add_run(tmp_path, build_ranks(20, 1), model="Pop")
    assert sorted(len(row.marks) for row in make_table(tmp_path).rows) == [0, 1, 1]


def test_seeds_of_one_row_with_different_features_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(20, 1), model="VBPR", identity=toy_identity("a"))
    add_run(tmp_path, build_ranks(20, 1), model="VBPR", seed=2025, identity=toy_identity("b"))
    with pytest.raises(
        ResultError, match="seeds of one table row but differ in features of text; run one of them again"
    ):
        make_table(tmp_path)


def test_a_single_row_has_no_p_value(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(38, 1))
    cell = make_table(tmp_path).rows[0].cells["R@10"]
    assert (cell.p, cell.significant, cell.position) == (None, False, 1)


def test_protocols_take_the_policy_of_each_family(tmp_path: Path) -> None:
    for family in ("collaborative", "multimodal", "sequential", "llm"):
        add_run(tmp_path, build_ranks(N_USERS, 10), model=family, family=family, train=5, none=15)
    unified, paper = by_model(make_table(tmp_path)), by_model(make_table(tmp_path, "paper"))
    assert {name: row.cells["R@10"].mean for name, row in unified.items()} == dict.fromkeys(unified, 1.0)
    seen = {name: (row.cells["R@10"].mean, row.cells["R@20"].mean) for name, row in paper.items()}
    assert seen == {"collaborative": (0, 1), "multimodal": (0, 1), "sequential": (0, 0), "llm": (0, 0)}
    notes = " ".join(make_table(tmp_path, "paper").notes)
    assert "Collaborative train, Multimodal train, Sequential none, LLM none" in notes


def test_numbers_of_the_paper_are_only_in_the_table_of_the_protocol_paper(tmp_path: Path) -> None:
    write_toy_runs(tmp_path, dataset="Beauty", paper="Beauty")
    shown = write_tables(tmp_path, "Beauty", "unified")
    folder = tmp_path / "Beauty"
    assert "0.0426" not in shown + "".join((folder / f"table.{end}").read_text() for end in ("md", "csv", "tex"))
    assert "table-paper" in shown
    for ending in ("md", "csv", "tex"):
        assert "0.0426" in (folder / f"table-paper.{ending}").read_text()
    rows = read_csv(folder / "table-paper.csv")
    assert rows["LightGCN"]["R@10_paper"] == "0.0426"
    assert rows["SAS_Rec"]["R@10_paper"] == ""
    line = next(line for line in (folder / "table-paper.md").read_text().splitlines() if "SAS" in line)
    assert [cell.strip() for cell in line.split("|")][4] == "\u2013"
    assert "(0.0426)" in write_tables(tmp_path, "Beauty", "paper")


def test_other_datasets_have_a_paper_table_only_if_it_is_requested(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    write_tables(tmp_path, "Toy", "unified")
    written = {name for name in os.listdir(tmp_path / "Toy") if "." in name}
    assert written == {"table.md", "table.csv", "table.tex"}
    assert "Protocol paper" in write_tables(tmp_path, "Toy", "paper")
    assert (tmp_path / "Toy" / "table-paper.md").is_file()


def test_a_dataset_that_the_paper_does_not_have_is_refused(tmp_path: Path) -> None:
    write_toy_runs(tmp_path, paper="Books")
    with pytest.raises(ResultError, match="name Books as their dataset"):
        make_table(tmp_path, "paper")


def test_stored_numbers_of_the_paper() -> None:
    table = load_yaml(find_properties() / "paper" / "table1.yaml")
    assert list(table) == ["Sports", "Beauty", "Toys"]
    methods = ["LightGCN", "VBPR", "GRCN", "LATTICE", "SLMRec", "BM3", "FREEDOM", "CoLLM", "LLaRA", "HeLLM"]
    for rows in table.values():
        assert list(rows) == methods
        for row in rows.values():
            assert list(row) == ["R@10", "N@10", "R@20", "N@20"]
            assert row["N@10"] < row["R@10"] < row["R@20"]
            assert row["N@10"] < row["N@20"] < row["R@20"]
    # HeLLM is first in all columns but three.
    not_first = [
        (dataset, metric)
        for dataset, rows in table.items()
        for metric in rows["HeLLM"]
        if max(rows, key=lambda name: rows[name][metric]) != "HeLLM"
    ]
    assert not_first == [("Beauty", "N@10"), ("Toys", "R@10"), ("Toys", "N@10")]


def test_a_failed_row_shows_its_reason_and_no_number(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    shown = write_tables(tmp_path, "Toy", "unified")
    assert "BM3: failed: loss is NaN at step 7" in shown
    line = next(line for line in (tmp_path / "Toy" / "table.md").read_text().splitlines() if "BM3" in line)
    assert [cell for cell in map(str.strip, line.split("|")) if cell] == ["BM3", "failed: loss is NaN at step 7"]
    row = read_csv(tmp_path / "Toy" / "table.csv")["BM3"]
    assert row["status"] == "failed"
    assert row["n_seeds"] == "0"
    assert {value for key, value in row.items() if "@" in key or "bytes" in key or "parameters" in key} == {""}


def test_a_table_of_failed_runs_shows_their_reasons(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    add_run(tmp_path, None, model="VBPR", status="cancelled", reason="stopped by the user")
    shown = write_tables(tmp_path, "Toy", "unified")
    assert "VBPR: cancelled: stopped by the user" in shown


def test_a_failed_seed_is_in_the_notes_and_not_in_the_mean(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, None, seed=2025)
    table = make_table(tmp_path)
    assert table.rows[0].seeds == (2024,)
    assert table.rows[0].cells["R@10"].mean == 1 / 4
    assert "LightGCN, seed 2025, failed: loss is NaN at step 7." in table.notes


def test_each_preset_has_its_own_row(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(20, 1), seed=2025, preset="quick")
    table = make_table(tmp_path)
    assert [(row.preset, row.cells["R@10"].mean) for row in table.rows] == [("quick", 1 / 2), ("paper", 1 / 4)]
    for text in (to_markdown(table), to_latex(table), to_terminal(table, 80)):
        assert "Preset" in text
        assert "quick" in text


def test_seeds_may_differ_in_a_setting_that_changes_no_number(tmp_path: Path) -> None:
    for seed, users in ((1, 64), (2, 128)):
        settings = {"eval_block_users": {"value": users, "origin": "--set"}}
        add_run(tmp_path, build_ranks(10, 1), seed=seed, settings=settings)
    assert make_table(tmp_path).rows[0].seeds == (1, 2)


def test_seeds_of_one_row_with_different_settings_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1), seed=2025, settings={"emb_dim": {"value": 32, "origin": "--set"}})
    with pytest.raises(ResultError, match=r"2024/record\.json and .*2025/record\.json .* emb_dim \(64 and 32\)"):
        make_table(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split_hash", "f" * 64),
        ("split_kind", "given"),
        ("mask_history", "none"),
        ("n_candidates", 9),
        ("cutoffs", (5,)),
    ],
)
def test_runs_that_cannot_be_compared_write_no_table(tmp_path: Path, key: str, value: Any) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", **{key: value})
    with pytest.raises(ResultError, match=rf"LightGCN/2024/record\.json and .*VBPR/2024/record\.json .*{key}"):
        write_tables(tmp_path, "Toy", "unified")
    assert not (tmp_path / "Toy" / "table.md").exists()


def test_ranks_of_other_targets_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1)[:-1], model="VBPR")
    with pytest.raises(ResultError, match=r"VBPR/2024/ranks\.npz .* different \(user, target\) pairs"):
        make_table(tmp_path)


def test_missing_ranks_are_refused(tmp_path: Path) -> None:
    path = add_run(tmp_path, build_ranks(10, 1))
    path.with_name("ranks.npz").unlink()
    with pytest.raises(ResultError, match=r"ranks\.npz cannot be read"):
        make_table(tmp_path)


def test_a_dataset_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ResultError, match=r"no record of dataset Toy in .*Toy; run `python benchmarks/run\.py .* first"
    ):
        write_tables(tmp_path, "Toy", "unified")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_runs(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the test may run as root, who may write anywhere
    with pytest.raises(OutputError, match="read-only"):
        write_tables(tmp_path, "Toy", "unified")


def test_csv_is_plain_and_exact(tmp_path: Path) -> None:
    write_tables(write_toy_runs(tmp_path), "Toy", "unified")
    rows = read_csv(tmp_path / "Toy" / "table.csv")
    cells = by_model(make_table(tmp_path))
    for model in ("LightGCN", "VBPR", "SAS_Rec"):
        for name, cell in cells[model].cells.items():
            assert float(rows[model][name]) == cell.mean
            assert float(rows[model][f"{name}_low"]) == cell.low
            assert float(rows[model][f"{name}_high"]) == cell.high
            assert float(rows[model][f"{name}_p"]) == cell.p
    assert float(rows["LightGCN"]["R@10_sd"]) == cells["LightGCN"].cells["R@10"].sd
    assert rows["SAS_Rec"]["R@10_sd"] == ""
    assert rows["LightGCN"]["seeds"] == "2024 2025"
    assert rows["LightGCN"]["trainable_parameters"] == "123456"
    assert rows["LightGCN"]["split_hash"] == "0123456789abcdef" * 4


def test_latex_escapes_and_keeps_its_columns(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    add_run(tmp_path, None, model="Odd_Model", reason=r"50% of {a} & b_c # $x ~ ^ \ < é →" + "\n two lines")
    text = to_latex(make_table(tmp_path))
    assert r"SAS\_Rec & 0.0000" in text
    assert (
        r"Odd\_Model & \multicolumn{8}{l}{failed: 50\% of \{a\} \& b\_c \# \$x \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textless{} e ? two lines} \\"
    ) in text
    assert r"\textbf{0.7500}$^{*}$" in text
    assert r"\underline{0.3750} $\pm$ 0.1768" in text
    assert text.isascii()
    n_columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert n_columns == "lrrrrrrrr"
    for line in text.splitlines():
        if line.startswith(("Model", "LightGCN", "VBPR", "SAS")):
            assert line.replace(r"\&", "").count("&") == len(n_columns) - 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_escapes(tmp_path: Path) -> None:
    add_run(tmp_path, None, model="Odd_Model", reason="a | b *c* <d>")
    assert r"| Odd\_Model | failed: a \| b \*c\* \<d\> |" in to_markdown(make_table(tmp_path))


def test_device_memory_has_a_column_where_there_is_any(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    assert "Device memory" not in to_markdown(make_table(tmp_path))
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", peak_memory_bytes={"host": 2**20, "device": 5 * 2**30})
    text = to_markdown(make_table(tmp_path))
    assert "Device memory" in text
    assert "5.0 GiB" in text
    assert "1.0 MiB" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_view_fits_and_cuts_no_number(tmp_path: Path, width: int) -> None:
    write_toy_runs(tmp_path, dataset="Beauty", paper="Beauty")
    add_run(
        tmp_path, build_ranks(10, 1), model="[b]A_long_model_name", preset="quick", dataset="Beauty", paper="Beauty"
    )
    text = to_terminal(make_table(tmp_path, "paper", "Beauty"), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    assert "\x1b" not in text
    for shown in ("0.7500\u00b9*", "0.3750\u00b2", "\u00b10.1768", "(0.0669)", "2.0 min", "Sequential"):
        assert shown in text
    assert "[b]" in text
    assert ("R@10" in text) == (width >= 80)


def test_the_terminal_view_of_language_models_in_80_columns_has_each_on_one_line(tmp_path: Path) -> None:
    name = "HeLLM@gemma-3-270m-q4-2L"
    add_run(tmp_path, build_ranks(10, 1), model=name, seed=2024)
    lines = to_terminal(make_table(tmp_path), 80).splitlines()
    assert any(name in line and "0.2500" in line for line in lines)
    assert not any("Seeds" in line for line in lines)
    add_run(tmp_path, build_ranks(10, 1), model=name, seed=2025)
    assert any("Seeds" in line for line in to_terminal(make_table(tmp_path), 80).splitlines())


def test_the_caption_says_what_was_measured(tmp_path: Path) -> None:
    text = to_terminal(make_table(write_toy_runs(tmp_path)), 400)
    for sentence in (
        "Toy, test part, full ranking over 1,000 candidates, K = 10, 20.",
        "Protocol unified: mask policy seen for every row.",
        "Split leave-one-out, 0123456789ab.",
        "Preset paper; seeds 2024, 2025",
        "10,000 resamples, seed 2024",
        "Holm-corrected over the 8 comparisons",
    ):
        assert sentence in text


def test_speed_at_the_size_of_beauty(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for model in range(10):
        add_run(tmp_path, generator.geometric(1 / (100 + 10 * model), 22_363), model=f"M{model}", cutoffs=(5, 10, 20))
    start = time.process_time()
    make_table(tmp_path)
    assert time.process_time() - start < 20  # about 4 s; the margin is for a busy machine


def test_a_user_with_several_targets_counts_once(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 500, 500])
    ranks_path = path.with_name("ranks.npz")
    with np.load(ranks_path) as stored:
        arrays = dict(stored)
    arrays["test_user"] = np.array(["a", "a", "b"])
    np.savez(ranks_path, **arrays)
    assert len(read_ranks(ranks_path)["test"].user) == 3
    assert make_table(tmp_path).rows[0].cells["R@10"].mean == 1 / 4
