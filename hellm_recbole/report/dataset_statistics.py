"""Statistics of datasets, counted in two ways, beside those of the paper's Table 2.

The paper's interactions are those of the training and test parts: the validation part is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rich.markup

from hellm_recbole.data.split import Split
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.report.references import DatasetStatistics, read_statistics
from hellm_recbole.report.rendering import MISSING, render_csv_lines, render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view

_HEADER = (
    *("Dataset", "Users", "paper's users", "Items", "paper's items"),
    *("Interactions", "counted as in the paper", "paper's interactions"),
    *("Sparsity", "computed as in the paper", "paper's sparsity"),
)
_COUNTED = "train\n+ test"  # two lines, so that the names of the datasets fit a terminal of 80 characters


@dataclass(frozen=True)
class CountedDataset:
    """Counts of one dataset.

    Attributes:
        name: name of the dataset.
        users: number of users.
        items: number of items.
        interactions: number of all interactions.
        validation: number of validation interactions.
        paper: the paper's statistics; None if it does not have the dataset.
    """

    name: str
    users: int
    items: int
    interactions: int
    validation: int
    paper: DatasetStatistics | None

    @property
    def in_the_papers_way(self) -> int:
        """Number of interactions of the training and test parts."""
        return self.interactions - self.validation

    def compute_sparsity(self, interactions: int) -> float:
        """Compute the share of user-item pairs without interaction, in percent."""
        return 100.0 * (1.0 - interactions / (self.users * self.items))


def count_dataset(split: Split, paper_name: str | None) -> CountedDataset:
    """Count users, items and interactions of a dataset.

    Args:
        split: split of the dataset.
        paper_name: name of the dataset in the paper; None if the paper does not have it.
    """
    paper = None if paper_name is None else read_statistics().get(paper_name)
    return CountedDataset(
        split.dataset, split.n_users, split.n_items, split.n_interactions, len(split.valid.user), paper
    )


def render_statistics_markdown(title: str, datasets: Sequence[CountedDataset], notes: Sequence[str]) -> str:
    """Render the statistics as GitHub Markdown, with title and caption."""
    lines = [[escape_markdown(cell) for cell in _list_cells(dataset)] for dataset in datasets]
    table = render_markdown_table(_HEADER, lines, ["left"] + ["right"] * (len(_HEADER) - 1))
    return f"# {escape_markdown(title)}\n\n{table}\n\n{' '.join(map(escape_markdown, notes))}\n"


def render_statistics_csv(datasets: Sequence[CountedDataset]) -> str:
    """Render the statistics as CSV; an empty field is a number that the paper does not have."""
    lines: list[dict[str, object]] = []
    for dataset in datasets:
        paper: dict[str, object] = dict(dataset.paper or {})
        lines.append(
            {
                "dataset": dataset.name,
                "users": dataset.users,
                "items": dataset.items,
                "interactions": dataset.interactions,
                "interactions_train_and_test": dataset.in_the_papers_way,
                "sparsity_percent": dataset.compute_sparsity(dataset.interactions),
                "sparsity_percent_train_and_test": dataset.compute_sparsity(dataset.in_the_papers_way),
                **{f"paper_{key}": paper.get(key) for key in ("users", "items", "interactions", "sparsity_percent")},
            }
        )
    return render_csv_lines(lines, list(lines[0]))


def render_statistics_terminal(
    title: str, datasets: Sequence[CountedDataset], notes: Sequence[str], width: int | None = None
) -> str:
    """Render the statistics for the terminal, with the paper's number, if there is one, below ours.

    Args:
        title: title of the table.
        datasets: the datasets.
        notes: sentences of the caption.
        width: width in characters; None takes the width of the terminal.
    """
    console = create_console(width)
    view = create_view(["Dataset"], ["Users", "Items", "Interactions", _COUNTED, "Sparsity", _COUNTED])
    for dataset in datasets:
        name, users, users_paper, items, items_paper, *counts = map(rich.markup.escape, _list_cells(dataset))
        total, counted, counted_paper, sparsity, sparsity_counted, sparsity_paper = counts
        pairs = [(users, users_paper), (items, items_paper), (total, ""), (counted, counted_paper), (sparsity, "")]
        pairs.append((sparsity_counted, sparsity_paper))
        view.add_row(name, *(f"{ours} " + ("" if paper in ("", MISSING) else f"\n({paper})") for ours, paper in pairs))
    has_paper = any(dataset.paper is not None for dataset in datasets)
    return print_view(console, view, [title, *(["In parentheses: the paper's number."] if has_paper else []), *notes])


def _list_cells(dataset: CountedDataset) -> list[str]:
    """Write the cells of a dataset in the columns of `_HEADER`."""
    paper = dataset.paper
    counted = dataset.in_the_papers_way
    return [
        dataset.name,
        f"{dataset.users:,}",
        MISSING if paper is None else f"{paper['users']:,}",
        f"{dataset.items:,}",
        MISSING if paper is None else f"{paper['items']:,}",
        f"{dataset.interactions:,}",
        f"{counted:,}",
        MISSING if paper is None else f"{paper['interactions']:,}",
        f"{dataset.compute_sparsity(dataset.interactions):.3f} %",
        f"{dataset.compute_sparsity(counted):.3f} %",
        MISSING if paper is None else f"{paper['sparsity_percent']:.3f} %",
    ]
