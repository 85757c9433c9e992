"""Coverage, Gini, novelty, popularity and diversity as columns, from the test lists of runs on the toy dataset."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import report
from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.further_columns import Columns
from hellm_recbole.report.list_columns import build_list_columns
from hellm_recbole.report.settings import ReportSettings, read_report_settings
from tests.report.toy_tables import read_csv
from tests.toy import write_prepared
from tests.toy_lists import add_listed_run, draw_scores, make_lists

ALL = "Coverage@5,Gini@5,Novelty@5,ARP@5,PopLift@5,ILD@5"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset, toy_split: Split) -> Path:
    """The working folder: the dataset, two seeds of LightGCN and one of BPR with lists, and one of Pop without."""
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    add_listed_run(tmp_path / "results", toy_split, draw_scores(toy_split, 1), k=10)
    add_listed_run(tmp_path / "results", toy_split, draw_scores(toy_split, 2), k=10, seed=2025)
    add_listed_run(tmp_path / "results", toy_split, draw_scores(toy_split, 3), k=10, model="BPR")
    add_listed_run(tmp_path / "results", toy_split, draw_scores(toy_split, 4), model="Pop")
    return tmp_path


def build(folder: Path, names: str) -> Columns:
    settings = read_report_settings()
    few = ReportSettings(**{**settings.model_dump(), "n_resamples": 200})
    return build_list_columns(read_frame(folder / "results", "toy"), parse_metric_names(names), few, folder / "dataset")


def test_values_equal_slow_loops_over_the_lists(workplace: Path, toy_split: Split) -> None:
    columns = build(workplace, ALL)
    assert columns.names == ("Coverage@5", "Gini@5", "Novelty@5", "ARP@5", "PopLift@5", "ILD-image@5", "ILD-text@5")
    names = [group[0].label for group in read_frame(workplace / "results", "toy").groups]
    cells = {names[index]: row for index, row in columns.cells.items()}
    assert {*cells} == {"LightGCN", "BPR"}
    popularity = np.bincount(toy_split.train.items, minlength=41)
    for label, seeds in (("BPR", [3]), ("LightGCN", [1, 2])):
        coverage, arp, lift, image = [], [], [], []
        features = toy_split.features["image"].astype(float)
        for seed in seeds:
            lists = make_lists(draw_scores(toy_split, seed), toy_split, 5)
            coverage.append(len({*lists.item.tolist()}) / 40)
            by_user = {user: lists.item[lists.user == user] for user in np.unique(lists.user).tolist()}
            means = {user: popularity[items].mean() for user, items in by_user.items()}
            arp.append(np.mean([*means.values()]))
            profile = {user: popularity[toy_split.train.get_items(user)].mean() for user in by_user}
            lift.append(np.mean([means[user] / profile[user] - 1 for user in by_user]))
            distances = []
            for items in by_user.values():
                unit = features[items] / np.linalg.norm(features[items], axis=1, keepdims=True)
                upper = np.triu_indices(len(items), 1)
                distances.append((1 - unit @ unit.T)[upper].mean())
            image.append(np.mean(distances))
        row = cells[label]
        for name, values in {"Coverage@5": coverage, "ARP@5": arp, "PopLift@5": lift, "ILD-image@5": image}.items():
            assert row[name].mean == pytest.approx(np.mean(values), abs=1e-6), name
            assert row[name].sd == (None if len(seeds) == 1 else pytest.approx(np.std(values, ddof=1), abs=1e-6))
            assert not row[name].position
            assert not row[name].significant


def test_what_has_no_value_for_each_user_has_no_interval_and_no_p_value(workplace: Path) -> None:
    columns = build(workplace, ALL)
    for row in columns.cells.values():
        for name, cell in row.items():
            assert ((cell.low, cell.high, cell.p) == (None, None, None)) == name.startswith(("Coverage", "Gini")), name
    assert any("Holm-corrected over the 5 comparisons of these columns" in note for note in columns.notes)


def test_a_row_without_lists_that_are_long_enough_says_which_command_makes_them(workplace: Path) -> None:
    (note,) = [note for note in build(workplace, "Gini@5").notes if "empty cells" in note]
    assert note.startswith("Without test lists of 5 items, so with empty cells: Pop; `hellm-recbole run --models Pop ")
    assert "--dataset toy --seeds 2024 --export test-lists --export-k 5`" in note
    longer = build(workplace, "Gini@5,Gini@20")
    assert [sorted(row) for row in longer.cells.values()] == [["Gini@5"], ["Gini@5"]]
    (note,) = [note for note in longer.notes if "empty cells" in note]
    assert "empty cells: BPR, LightGCN, Pop; `hellm-recbole run --models BPR,LightGCN,Pop " in note
    assert build(workplace, "Gini@20").cells == {}


def test_only_the_modality_that_is_named(workplace: Path) -> None:
    columns = build(workplace, "ILD-text@3")
    assert columns.names == ("ILD-text@3",)
    assert any(re.fullmatch(r"ILD-text: features with SHA-256 [0-9a-f]{12}\.", note) for note in columns.notes)
    with pytest.raises(DataError, match="no modality 'txt'"):
        build(workplace, "ILD-txt@3")


def test_users_without_training_part_have_no_lift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset
) -> None:
    part = np.full(toy_dataset.n_interactions, 0, np.int8)
    last = np.append(toy_dataset.user[1:] != toy_dataset.user[:-1], True)
    part[last], part[np.roll(last, -1)] = 2, 1
    part[(toy_dataset.user == 4) & (part == 0)] = 1
    given = replace(toy_dataset, part=part)
    split = split_dataset(given)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    monkeypatch.setattr("hellm_recbole.report.list_columns.load_dataset", lambda folder, modalities: given)
    add_listed_run(tmp_path / "results", split, draw_scores(split, 1), k=5, split_kind="given")
    add_listed_run(tmp_path / "results", split, draw_scores(split, 2), k=5, split_kind="given", model="BPR")
    columns = build(tmp_path, "PopLift@5,ARP@5")
    assert "PopLift@5: mean over the 59 of 60 users with a training part." in columns.notes
    assert all(np.isfinite([row["PopLift@5"].mean, row["PopLift@5"].low]).all() for row in columns.cells.values())


def test_a_dataset_that_is_not_prepared_or_has_another_split_is_refused(workplace: Path, toy_dataset: Dataset) -> None:
    (workplace / "dataset").rename(workplace / "moved")
    with pytest.raises(DataError, match="run `hellm-recbole prepare toy` first"):
        build(workplace, "Gini@5")
    write_prepared(workplace / "dataset" / "toy", replace(toy_dataset, item=np.roll(toy_dataset.item, 1)))
    with pytest.raises(DataError, match="prepare the dataset as it was for the runs"):
        build(workplace, "Gini@5")


def test_the_command_writes_them_to_all_files(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--dataset", "toy", "--metrics", "MRR,Coverage@10,ARP@10"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("MRR", "Coverage@10", "ARP@10", "empty cells: Pop"))
    rows = read_csv(workplace / "results" / "toy" / "table.csv")
    assert float(rows["BPR"]["Coverage@10"]) > 0
    assert (rows["BPR"]["Coverage@10_low"], rows["BPR"]["Coverage@10_p"], rows["Pop"]["Coverage@10"]) == ("", "", "")
    assert float(rows["Pop"]["MRR"]) > 0
    for ending in ("md", "tex"):
        assert "Coverage@10" in (workplace / "results" / "toy" / f"table.{ending}").read_text()
    page = (workplace / "results" / "toy" / "report.html").read_text()
    assert ">ARP@10</button>" in page
    assert '<td data-value="NaN">\u2013</td>' in page
