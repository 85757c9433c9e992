"""ML-1M as GroupLens publishes it, and as RecBole's atomic files, in small copies of both layouts."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.importers.archive import unpack_source
from hellm_recbole.data.prepare import Prepared, read_dataset_settings
from hellm_recbole.data.split import split_dataset
from tests.data.importers.small import check_error

Prepare = Callable[..., Prepared]
# User::Movie::Rating::Timestamp; user 1 has two ratings at one time.
RATINGS = "1::1193::5::978300760\n1::661::3::978302109\n1::914::3::978302109\n2::661::4::978299000\n" + (
    "2::1193::4::978298413\n2::914::2::978299999\n"
)
MOVIES = "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n914::My Fair Lady (1964)::Musical\n" + (
    '1193::Misérables, Les: A "Film" (1995)::Drama\n3000::Never rated (1990)::Drama\n'
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "films"
    folder.mkdir(parents=True)
    (folder / "ratings.dat").write_bytes(RATINGS.encode("latin-1"))
    (folder / "movies.dat").write_bytes(MOVIES.encode("latin-1"))
    return folder


def read_histories(prepared: Prepared) -> dict[str, list[str]]:
    dataset = load_dataset(prepared.folder, modalities=())
    split = split_dataset(dataset)
    return {
        str(dataset.user_tokens[user]): [
            str(dataset.item_tokens[item])
            for item in (
                *split.train.items[split.train.repeat_users() == user],
                split.valid.item[row],
                split.test.item[row],
            )
        ]
        for row, user in enumerate(split.test.user.tolist())
    }


def test_ratings_and_movies_are_read(source: Path, prepare_toy: Prepare) -> None:
    prepared = prepare_toy(source, "movielens")
    assert read_histories(prepared) == {"1": ["1193", "661", "914"], "2": ["1193", "661", "914"]}
    inter = pd.read_csv(prepared.folder / "films.inter", sep="\t", dtype=str)
    assert inter["rating:float"].tolist() == ["5", "3", "3", "4", "4", "2"]
    items = pd.read_csv(prepared.folder / "films.item", sep="\t", dtype=str).set_index("item_id:token")
    assert items["title:token_seq"]["1193"] == "Misérables, Les: A Film (1995)"
    assert items["genres:token_seq"]["661"] == "Animation Children's Musical"
    assert "3000" not in items.index


def test_utf_8_and_windows_line_ends_are_read_alike(source: Path, prepare_toy: Prepare) -> None:
    first = (prepare_toy(source, "movielens").folder / "films.item").read_bytes()
    (source / "movies.dat").write_bytes(MOVIES.replace("\n", "\r\n").encode("utf-8"))
    assert (prepare_toy(source, "movielens", fresh=True).folder / "films.item").read_bytes() == first


def test_the_published_archive_and_recboles_files_give_the_same_split(
    source: Path, tmp_path: Path, prepare_toy: Prepare
) -> None:
    hashes = []
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name in ("ratings.dat", "movies.dat"):
            archive.write(source / name, f"ml-1m/{name}")
    with unpack_source(tmp_path / "ml-1m.zip") as folder:
        prepared = prepare_toy(folder, "movielens", name="unpacked")
    hashes.append(split_dataset(load_dataset(prepared.folder, modalities=())).sha256)
    atomic = tmp_path / "source" / "ml"
    atomic.mkdir()
    rows = RATINGS.replace("::", "\t")
    (atomic / "ml.inter").write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{rows}")
    (atomic / "ml.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n661\tJames\t1996\tMusical\n"
    )
    prepared = prepare_toy(atomic, "recbole")
    hashes.append(split_dataset(load_dataset(prepared.folder, modalities=())).sha256)
    assert hashes[0] == hashes[1]
    assert read_dataset_settings("ml-1m", "recbole", {}).text == ("movie_title", "genre")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.dat", "1::2::5\n", "ratings.dat:1: 3 fields instead of 4 (user_id::item_id::rating::timestamp)"),
        ("ratings.dat", "1::2::5::9\n1::3::good::9\n", "ratings.dat:2: rating 'good' is not a number"),
        ("movies.dat", "1::A::B\n1::C::D\n", "movies.dat:2: movie '1' occurs before"),
        ("movies.dat", "1,A,B\n", "movies.dat:1: 1 fields instead of 3"),
    ],
)
def test_faulty_files_are_refused(source: Path, prepare_toy: Prepare, name: str, content: str, message: str) -> None:
    (source / name).write_text(content)
    check_error(prepare_toy, source, "movielens", message)


def test_a_folder_without_ratings_is_refused(tmp_path: Path, prepare_toy: Prepare) -> None:
    (tmp_path / "empty").mkdir()
    check_error(prepare_toy, tmp_path / "empty", "movielens", "ratings.dat cannot be read")
