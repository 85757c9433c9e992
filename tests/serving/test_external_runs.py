"""Records of external rows: what is in them, which rows may stand beside each other, and the report that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, OutputError, ResultError, SettingsError
from hellm_recbole.experiments.openings import read_openings
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult, read_result
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import build_table
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.external_runs import ReadingOptions, score_files
from hellm_recbole.serving.loading import read_finished


@pytest.fixture
def dataset(toy_dataset: Dataset, toy_split: Split, tmp_path: Path) -> LoadedDataset:
    return LoadedDataset(toy_dataset, toy_split, tmp_path)


def write_lists(path: Path, split: Split, is_hit: Any = lambda user: user % 2 == 0) -> Path:
    """Write a list of one item for each user: the target of every second user, else an item of training."""
    rows = ["user_id,item_id,score"]
    for user, target in zip(split.test.user.tolist(), split.test.item.tolist(), strict=True):
        item = target if is_hit(user) else int(split.train.get_items(user)[0])
        rows.append(f"u{user},i{item},1.0")
    path.write_text("\n".join(rows) + "\n")
    return path


def score(path: Path, dataset: LoadedDataset, output: Path, **changes: Any) -> tuple[RunResult, Path]:
    values: dict[str, Any] = {
        "name": "Mine", "seed": None, "cutoffs": (1, 10), "options": ReadingOptions(), "fresh": False, **changes,
    }  # fmt: skip
    result, _, folder = score_files({"test": path}, dataset, output, **values)
    return result, folder


def test_the_record_says_what_is_known_and_no_more(dataset: LoadedDataset, tmp_path: Path) -> None:
    path, output = write_lists(tmp_path / "lists.csv", dataset.split), tmp_path / "results"
    result, folder = score(path, dataset, output)
    assert folder == output / "toy" / "Mine" / "external"
    assert read_result(folder / "record.json") == result
    assert result.metrics == {"valid": {}, "test": {"R@1": 0.5, "N@1": 0.5, "R@10": 0.5, "N@10": 0.5}}
    assert (result.family, result.source, result.preset, result.device) == ("external",) * 3 + ("unknown",)
    assert (result.identity, result.train_seconds, result.deterministic, result.settings) == (None, None, None, {})
    assert result.external is not None
    file = result.external["files"]["test"]
    assert (file["file"], file["targets"], file["missing"], file["history"]) == ("lists.csv", 60, 30, 30)
    assert [*read_ranks(folder / "ranks.npz", result.ranks_sha256)] == ["test"]
    with pytest.raises(ResultError, match="is a row that another system has made, which has no weights here"):
        read_finished(folder)
    assert "external" in json.loads((folder / "record.json").read_text())


def test_rows_that_exist_are_kept(dataset: LoadedDataset, tmp_path: Path) -> None:
    path, output = write_lists(tmp_path / "lists.csv", dataset.split), tmp_path / "results"
    score(path, dataset, output)
    with pytest.raises(OutputError, match="external exists; replace it with --fresh"):
        score(path, dataset, output)
    with pytest.raises(OutputError, match="name each seed with --seed"):
        score(path, dataset, output, seed=1)
    write_lists(path, dataset.split, is_hit=lambda user: True)
    assert score(path, dataset, output, fresh=True)[0].metrics["test"]["R@1"] == 1
    assert score(path, dataset, output, name="Seeded", seed=1)[1].name == "1"
    assert score(path, dataset, output, name="Seeded", seed=2)[1].name == "2"
    with pytest.raises(OutputError, match="name each seed with --seed"):
        score(path, dataset, output, name="Seeded")


def test_only_folders_of_external_rows_are_replaced(dataset: LoadedDataset, tmp_path: Path) -> None:
    unfinished = tmp_path / "results" / "toy" / "other" / "5" / "checkpoint"
    unfinished.mkdir(parents=True)
    path = write_lists(tmp_path / "lists.csv", dataset.split)
    with pytest.raises(OutputError, match="5 is no external row; choose another name with --name"):
        score(path, dataset, tmp_path / "results", name="other", seed=5, fresh=True)
    assert unfinished.is_dir()


def test_cutoffs_at_which_a_missing_target_would_be_found_are_refused(dataset: LoadedDataset, tmp_path: Path) -> None:
    path = write_lists(tmp_path / "lists.csv", dataset.split)
    with pytest.raises(SettingsError, match=r"cut-off 40: some users have only 3\d candidates"):
        score(path, dataset, tmp_path / "results", cutoffs=[5, 40])


def test_a_scored_list_opens_the_test_part(dataset: LoadedDataset, tmp_path: Path) -> None:
    path = write_lists(tmp_path / "lists.csv", dataset.split)
    result, folder = score(path, dataset, tmp_path / "results")
    (opening,) = read_openings(folder.parents[1])
    assert (opening.model, opening.seed, opening.ranks_sha256) == (result.label, None, result.ranks_sha256)


def test_lists_without_any_user_of_the_test_part_are_refused(dataset: LoadedDataset, tmp_path: Path) -> None:
    path = write_lists(tmp_path / "lists.csv", dataset.split, is_hit=lambda user: False)
    with pytest.raises(DataError, match="lists no candidate for any of the users with a test target"):
        score(path, dataset, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_the_table_shows_the_row_as_external(dataset: LoadedDataset, tmp_path: Path) -> None:
    path, output = write_lists(tmp_path / "lists.csv", dataset.split), tmp_path / "results"
    score(path, dataset, output)
    score(path, dataset, output, name="Seeded", seed=7)
    table = build_table(read_frame(output, "toy"), "unified", read_report_settings())
    assert {(row.model, row.family, row.seeds) for row in table.rows} == {
        ("Mine", "external", ("unknown",)),
        ("Seeded", "external", (7,)),
    }
    assert table.rows[0].cells["R@1"].mean == 0.5
    (note,) = table.footnotes
    assert "external: scores of another system, read from the file lists.csv" in note.text
    assert "0 to 1 candidates are listed for a user, so metrics at K > 0 are lower bounds" in note.text
    assert "30 of 60 targets are not listed and count as misses" in note.text
    assert note.text.endswith("its training, features and code are unknown")
    assert not table.several_presets
    assert "seed 7." in table.notes
