"""MRR, hit rate and MAP as columns, and as the metric that sorts the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.config.plugin_points import METRICS
from hellm_recbole.errors import SettingsError
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.table_request import TableRequest
from tests.plugin_site import use_site, write_package
from tests.report.toy_tables import build_ranks, by_model, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run

NAMES = parse_metric_names("MRR,HR@10,MAP@10")


def test_numbers_by_hand_in_all_formats(tmp_path: Path) -> None:
    shown = write_reports(write_toy_runs(tmp_path), "Toy", "unified", TableRequest(metrics=NAMES))
    rows = read_csv(tmp_path / "Toy" / "table.csv")
    assert float(rows["VBPR"]["MRR"]) == pytest.approx((30 / 3 + 10 / 500) / 40)
    assert float(rows["VBPR"]["MAP@10"]) == pytest.approx(1 / 4)
    assert float(rows["LightGCN"]["HR@10"]) == 3 / 8
    assert float(rows["LightGCN"]["HR@10_sd"]) == pytest.approx(1 / (4 * 2**0.5))
    assert float(rows["VBPR"]["MRR_low"]) < float(rows["VBPR"]["MRR"]) < float(rows["VBPR"]["MRR_high"])
    for text in (shown, *((tmp_path / "Toy" / f"table.{ending}").read_text() for ending in ("md", "tex"))):
        assert "MAP@10" in text
        assert "Holm-corrected over the 6 comparisons of these columns alone" in " ".join(text.split())


def test_further_columns_change_no_other_cell(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    plain, more = make_table(tmp_path), make_table(tmp_path, rank_metrics=NAMES)
    assert more.metrics == (*plain.metrics, "MRR", "HR@10", "MAP@10")
    for name, row in by_model(plain).items():
        assert row.cells == {key: by_model(more)[name].cells[key] for key in row.cells}
    # with one target, the hit rate is the recall, but its p-value has another correction
    assert by_model(more)["VBPR"].cells["HR@10"].mean == by_model(more)["VBPR"].cells["R@10"].mean
    assert by_model(more)["VBPR"].cells["HR@10"].low == pytest.approx(by_model(more)["VBPR"].cells["R@10"].low)


def test_rows_can_be_sorted_by_them(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(20, 12), model="Wide")  # better in HR@20
    add_run(tmp_path, build_ranks(5, 1), model="Sharp")  # better in MRR
    assert [row.model for row in make_table(tmp_path, metric="HR@20").rows] == ["Wide", "Sharp"]
    assert [row.model for row in make_table(tmp_path, metric="MRR").rows] == ["Sharp", "Wide"]
    assert [row.model for row in make_table(tmp_path, metric="MAP@20").rows] == ["Sharp", "Wide"]
    with pytest.raises(SettingsError, match="is not MRR, MRR@K, HR@K or MAP@K, and is neither R@K nor N@K"):
        make_table(tmp_path, metric="Gini@10")


def test_the_masking_policy_is_that_of_the_table(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 3], train=1)
    add_run(tmp_path, [1, 1], model="BPR")
    frame = read_frame(tmp_path, "Toy")
    record = next(record for record in frame.records if record.path == path)
    assert frame.compute_per_user(record, "seen", ["MRR", "R@1"]).tolist() == [[1, 1], [1 / 3, 0]]
    assert frame.compute_per_user(record, "train", ["MRR"]).tolist() == [[1 / 2], [1 / 4]]


def test_a_metric_of_an_installed_package_keeps_its_column(tmp_path: Path) -> None:
    code = "def mine(ranks, k):\n    return ranks.average_by_user(0 * ranks.rank + 0.25)\n"
    write_package(tmp_path / "site", "toy_mrr", {METRICS: {"MRR": "toy_mrr.m:mine"}}, {"m.py": code})
    write_toy_runs(tmp_path)
    with use_site(tmp_path / "site"):
        assert by_model(make_table(tmp_path))["VBPR"].cells["MRR@10"].mean == 0.25
        with pytest.raises(SettingsError, match="--metrics MRR@10: an installed package has a metric of this name"):
            write_reports(tmp_path, "Toy", "unified", TableRequest(metrics=parse_metric_names("MRR@10")))
        with pytest.raises(SettingsError, match="--metric MRR@10: an installed package"):
            make_table(tmp_path, metric="MRR@10")
