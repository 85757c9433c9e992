"""Statistics of datasets, in both ways of counting interactions."""

from __future__ import annotations

import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.report.dataset_statistics import (
    CountedDataset,
    count_dataset,
    render_statistics_csv,
    render_statistics_markdown,
    render_statistics_terminal,
)
from hellm_recbole.report.references import read_statistics
from hellm_recbole.report.rendering import MISSING

# All users and interactions of the three datasets; each user has one validation interaction.
COUNTS = {"Sports": (35598, 18357, 296337), "Beauty": (22363, 12101, 198502), "Toys": (19412, 11924, 167597)}


def count(name: str) -> CountedDataset:
    users, items, interactions = COUNTS[name]
    return CountedDataset(name, users, items, interactions, users, read_statistics()[name])


@pytest.mark.parametrize("name", COUNTS)
def test_counted_in_its_way_our_numbers_are_those_of_the_paper(name: str) -> None:
    counted = count(name)
    assert counted.paper is not None
    assert counted.in_the_papers_way == counted.paper["interactions"]
    sparsity = counted.compute_sparsity(counted.in_the_papers_way)
    assert f"{sparsity:.3f}" == f"{counted.paper['sparsity_percent']:.3f}"
    assert f"{counted.compute_sparsity(counted.interactions):.3f}" != f"{sparsity:.3f}"


def test_a_dataset_is_counted(toy_split: Split) -> None:
    counted = count_dataset(toy_split, None)
    assert (counted.name, counted.users, counted.items, counted.paper) == ("toy", 60, 40, None)
    assert counted.interactions == toy_split.n_interactions
    assert counted.in_the_papers_way == toy_split.n_interactions - 60  # one validation interaction for each user
    beauty = count_dataset(toy_split, "Beauty").paper
    assert beauty is not None
    assert beauty["users"] == 22363


def test_the_formats_show_both_counts_and_the_papers() -> None:
    datasets = [count("Beauty"), CountedDataset("my_data", 10, 20, 50, 10, None)]
    markdown = render_statistics_markdown("Title", datasets, ["A note."]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown if line.startswith("|")]
    assert cells[2] == [
        *("Beauty", "22,363", "22,363", "12,101", "12,101", "198,502", "176,139", "176,139"),
        *("99.927 %", "99.935 %", "99.935 %"),
    ]
    assert cells[3] == ["my\\_data", "10", MISSING, "20", MISSING, "50", "40", MISSING, "75.000 %", "80.000 %", MISSING]
    assert markdown[-1] == "A note."
    lines = render_statistics_csv(datasets).splitlines()
    assert lines[2] == "my_data,10,20,50,40,75.0,80.0,,,,"
    shown = render_statistics_terminal("Title", datasets, ["A note."], width=120)
    assert "(176,139)" in shown
    assert "99.927 %" in shown


def test_names_fit_80_characters_and_nothing_stands_below_a_dataset_that_the_paper_does_not_have() -> None:
    other = CountedDataset("ml-100k", 943, 1349, 99287, 943, None)
    shown = render_statistics_terminal("Title", [count("Sports"), other], ["A note."], width=80)
    lines = [line.split() for line in shown.splitlines()]
    assert [line[0].strip("\u2500") for line in lines if line][1:4] == ["Dataset", "", "Sports"]
    assert max(map(len, shown.splitlines())) <= 80
    assert MISSING not in shown
    after = lines[next(index for index, line in enumerate(lines) if line[:1] == ["ml-100k"]) + 1]
    assert after == []
    assert "In parentheses" in shown
    assert "In parentheses" not in render_statistics_terminal("Title", [other], ["A note."], width=80)
