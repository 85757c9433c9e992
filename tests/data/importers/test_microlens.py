"""MicroLens with 50,000 and 100,000 users, in small copies of both published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.importers.microlens import read_microlens
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from tests.data.importers.small import check_error

Prepare = Callable[..., Prepared]
# Milliseconds; user 2 is not in time order.
PAIRS = "user,item,timestamp\n1,10,1583378629552\n1,11,1583378629553\n1,12,1583378629560\n" + (
    "2,12,1583378630000\n2,10,1583378620000\n2,11,1583378625000\n"
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The files of 50k: quoted titles with a header, and covers."""
    folder = tmp_path / "source" / "MicroLens-50k"
    (folder / "MicroLens-50k_covers").mkdir(parents=True)
    (folder / "MicroLens-50k_pairs.csv").write_text(PAIRS)
    (folder / "MicroLens-50k_pairs.tsv").write_text("1\t10 11 12\n2\t10 11 12\n")
    (folder / "MicroLens-50k_titles.csv").write_text('item,title\n10,A cat\n11,"A dog, a ""big"" one"\n12,Two\n')
    Image.new("RGB", (8, 8)).save(folder / "MicroLens-50k_covers" / "10.jpg")
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The files of 100k: titles without header and quotes."""
    folder = tmp_path / "source" / "MicroLens-100k"
    folder.mkdir(parents=True)
    (folder / "MicroLens-100k_pairs.csv").write_text(PAIRS.replace("user,item", "userID,videoID"))
    (folder / "MicroLens-100k_title_en.csv").write_text("10,A cat\n11,A dog, a big one\n12,Two\n")
    return folder


def read(folder: Path) -> tuple[str, list[str]]:
    dataset = load_dataset(folder, modalities=())
    texts = pd.read_csv(folder / f"{dataset.name}.item", sep="\t", dtype=str)
    return split_dataset(dataset).sha256, texts["title:token_seq"].tolist()


def test_both_layouts_give_the_same_dataset(small: Path, large: Path, prepare_toy: Prepare) -> None:
    first, second = (read(prepare_toy(folder, "microlens").folder) for folder in (small, large))
    assert first == second
    assert first[1] == ["A cat", "A dog, a big one", "Two"]


def test_lists_without_times_give_the_same_split(small: Path, prepare_toy: Prepare) -> None:
    first = read(prepare_toy(small, "microlens").folder)
    (small / "MicroLens-50k_pairs.csv").unlink()
    assert read(prepare_toy(small, "microlens", fresh=True).folder) == first


def test_covers_are_found(small: Path, large: Path) -> None:
    for folder, covers in ((small, small / "MicroLens-50k_covers"), (large, None)):
        data = read_microlens(folder, Request(folder.name, "", {}, None, progress=False))
        assert data.image_folder == covers


def test_covers_that_are_not_used_are_mentioned(small: Path, prepare_toy: Prepare) -> None:
    warnings = prepare_toy(small, "microlens").warnings
    assert "the items' pictures are not used; --pictures makes features of them" in warnings


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.csv", "a,b,c\n1,2,3\n", "pairs.csv:1: the header is 'a,b,c', not user,item,timestamp"),
        ("pairs.csv", "user,item,timestamp\n1,2\n", "pairs.csv:2: the line is not user,item,timestamp with"),
        ("pairs.csv", "user,item,timestamp\n1,2,2020-01-01\n", "pairs.csv:2: the line is not"),
        ("titles.csv", "item,title\n10,A\n10,B\n", "row 3: item '10' occurs before"),
    ],
)
def test_faulty_files_are_refused(small: Path, prepare_toy: Prepare, name: str, content: str, message: str) -> None:
    (small / f"MicroLens-50k_{name}").write_text(content)
    check_error(prepare_toy, small, "microlens", message)


def test_a_folder_without_pairs_is_refused(tmp_path: Path, prepare_toy: Prepare) -> None:
    (tmp_path / "Toy").mkdir()
    check_error(prepare_toy, tmp_path / "Toy", "microlens", "holds no Toy_pairs.csv; copy it there as it is published")
