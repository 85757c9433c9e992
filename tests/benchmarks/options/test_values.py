"""Values of options: names of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.benchmarks.options.values import check_mask, parse_dataset, parse_datasets
from hellm_recbole.errors import SettingsError


def test_datasets_get_the_names_that_they_have_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_datasets("Sports_and_Outdoors, toys,Toys_and_Games,Mine") == ("Sports", "Toys", "Mine")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "dataset Sports_and_Outdoors is named Sports here",
        "dataset toys is named Toys here",
        "dataset Toys_and_Games is named Toys here",
    ]


def test_a_prepared_folder_of_that_name_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset" / "toys").mkdir(parents=True)
    assert parse_datasets("toys,TOYS") == ("toys", "Toys")
    assert parse_dataset("toys", [tmp_path / "other"]) == "Toys"
    assert capsys.readouterr().err == "dataset TOYS is named Toys here\ndataset toys is named Toys here\n"


def test_a_name_that_cannot_be_a_folder_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"dataset '\.\./toys' is not usable as a file name"):
        parse_dataset("../toys")


def test_a_mask_for_all_rows_contradicts_masks_of_families() -> None:
    assert check_mask("none", "unified") == "none"
    assert check_mask(None, "paper") is None
    with pytest.raises(
        SettingsError, match="--mask none is for all rows, but --protocol paper has a mask policy for each"
    ):
        check_mask("none", "paper")
