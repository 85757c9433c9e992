from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.data.atomic import find_k_core, load_dataset, read_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def slow_k_core(pairs: list[tuple[int, int]], k_core: int) -> list[bool]:
    """Drop one user or item at a time, until nothing changes."""
    alive = [True] * len(pairs)
    changed = True
    while changed:
        changed = False
        for side in (0, 1):
            for node in {pair[side] for pair in pairs}:
                rows = [row for row, pair in enumerate(pairs) if alive[row] and pair[side] == node]
                if 0 < len(rows) < k_core:
                    for row in rows:
                        alive[row] = False
                    changed = True
    return alive


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(0, 4),
)
def test_k_core_equals_dropping_users_and_items_one_by_one(pairs: list[tuple[int, int]], k_core: int) -> None:
    user, item = np.array(pairs, dtype=np.int64).T
    assert find_k_core(user, item, k_core).tolist() == slow_k_core(pairs, k_core)


def test_k_core_is_repeated_until_it_is_stable() -> None:
    # Item 2 goes first, which takes user 1 below two, which takes items 0 and 1 below two.
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 2])
    assert not find_k_core(user, item, 2).any()
    assert find_k_core(user, item, 0).all()


def test_a_dataset_is_loaded_as_it_was_written(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    dataset = load_dataset(prepare_toy(sequences, "sequences").folder, modalities=None)
    assert dataset.user_tokens.tolist() == ["", "u1", "u2", "u3"]
    assert dataset.item_tokens.tolist() == ["", "a", "b", "c", "d"]
    assert dataset.user.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert dataset.item.tolist() == [1, 2, 3, 2, 3, 1, 3, 1, 2, 4]
    assert dataset.time is not None
    assert dataset.time.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert (dataset.time_known, dataset.part, dict(dataset.features)) == (False, None, {})
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (3, 4, 10)
    assert (root / "Toy" / "Toy.inter").read_text().splitlines()[:2] == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "u1\ta\t0",
    ]


def test_features_follow_tokens_not_rows(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.array([[4.0], [2.0], [1.0], [3.0]]))
    (folder / "image_feat.tokens.txt").write_text("d\nb\na\nc\n")
    loaded = load_dataset(folder, modalities=["image"]).features["image"]
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[0], [1], [2], [3], [4]]
    assert load_dataset(folder, modalities=[]).features == {}


def test_k_core_is_recorded_and_dropped_items_may_keep_features(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences", k_core=3).folder
    np.save(folder / "image_feat.npy", np.eye(4))
    (folder / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")  # d was dropped, so its features are allowed
    dataset = load_dataset(folder, modalities=None)
    assert (dataset.k_core, dataset.n_dropped, dataset.n_items) == (3, 1, 3)
    assert dataset.features["image"].shape == (4, 4)
    assert read_manifest(folder)["counts"] == {
        "before": {"users": 3, "items": 4, "interactions": 10},
        "after": {"users": 3, "items": 3, "interactions": 9},
    }


def test_users_that_the_filter_drops_are_counted(sequences: Path, prepare_toy: Prepare) -> None:
    (sequences / "user_sequences.txt").write_text("u1 a b c\nu2 b c a\nu3 c a b d\nu4 a\nu5 b c\n")
    for k_core, n_dropped in ((3, 2), (0, 0)):
        folder = prepare_toy(sequences, "sequences", k_core=k_core, name=f"Toy{k_core}").folder
        assert load_dataset(folder, modalities=None).n_dropped_users == n_dropped


def test_the_error_about_a_filter_that_drops_everything_gives_advice(
    sequences: Path, root: Path, prepare_toy: Prepare
) -> None:
    with pytest.raises(DataError, match=r"the 4-core filter drops all 10 interactions; choose a lower --k-core"):
        prepare_toy(sequences, "sequences", k_core=4)
    assert not root.exists() or list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "tokens", "message"),
    [
        (np.eye(4), "a\nb\nc\n", "4 rows but image_feat.tokens.txt has 3 tokens"),
        (np.eye(4), "a\nb\nc\na\n", "image_feat.tokens.txt:4: token 'a' is already on line 1"),
        (np.eye(3), "a\nb\nc\n", "no row for 1 item ('d')"),
        (np.eye(5), "a\nb\nc\nd\nq\n", "rows for 1 item ('q') without interactions"),
        (np.eye(4) * np.nan, "a\nb\nc\nd\n", "row 0 (item 'a') contains NaN or infinity, 4 such rows in total"),
        (np.diag([1, 1, np.inf, 1]), "a\nb\nc\nd\n", "row 2 (item 'c') contains NaN or infinity"),
        (np.diag([1, 1, 1e300, 1]), "a\nb\nc\nd\n", "row 2 (item 'c') contains NaN or infinity"),
        (np.ones(4), "a\nb\nc\nd\n", "must hold one matrix of numbers"),
        (np.array([["x"]] * 4), "a\nb\nc\nd\n", "must hold one matrix of numbers"),
        (np.eye(4), "", "image_feat.tokens.txt is empty"),
        (np.eye(4), None, "image_feat.tokens.txt cannot be read"),
        (None, "a\nb\nc\nd\n", "image_feat.npy cannot be read as a .npy matrix"),
    ],
)
def test_faulty_features(
    sequences: Path, prepare_toy: Prepare, values: np.ndarray | None, tokens: str | None, message: str
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    if values is None:
        (folder / "image_feat.npy").write_bytes(b"\x93NUMPY half a file")
    else:
        np.save(folder / "image_feat.npy", values)
    if tokens is not None:
        (folder / "image_feat.tokens.txt").write_text(tokens)
    with pytest.raises(DataError) as caught:
        load_dataset(folder, modalities=None)
    assert message in str(caught.value)


def test_a_pickled_matrix_is_refused(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.array([[{}]] * 4), allow_pickle=True)
    (folder / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match=r"cannot be read as a \.npy matrix"):
        load_dataset(folder, modalities=None)


def test_an_unknown_modality_names_the_nearest(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    with pytest.raises(DataError, match=r"no modality 'imagee' .*did you mean 'image'"):
        load_dataset(folder, modalities=["imagee"])
    with pytest.raises(DataError, match=r"no modality 'zzz' .*available: image"):
        load_dataset(folder, modalities=["zzz"])


def test_files_that_changed_since_they_were_prepared_are_refused(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder

    def other_number(content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1])

    def other_order(content: bytes) -> bytes:
        first, *others, last = content.splitlines(keepends=True)
        return b"".join([first, last, *others])

    for name, change in (
        ("Clips.inter", other_order),
        ("image_feat.npy", other_number),
        ("image_feat.tokens.txt", other_order),
    ):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(change(content))
        with pytest.raises(DataError, match=f"{name} has changed since it was prepared, .* prepare the dataset again"):
            load_dataset(folder, modalities=None)
        path.write_bytes(content)
    assert load_dataset(folder, modalities=None).n_items == 3


def test_permuted_rows_are_refused_and_permuted_tokens_are_followed(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    as_prepared = load_dataset(folder, modalities=None).features["image"]
    path, tokens = folder / "image_feat.npy", folder / "image_feat.tokens.txt"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(DataError, match=r"image_feat\.npy has changed"):
        load_dataset(folder, modalities=None)
    tokens.write_text("".join(reversed(tokens.read_text().splitlines(keepends=True))))
    np.testing.assert_array_equal(load_dataset(folder, modalities=None, verify=False).features["image"], as_prepared)


def test_checksums_have_the_format_of_sha256sum(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["Clips.inter", "image_feat.npy", "image_feat.tokens.txt"]
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "Toy.inter is empty"),
        (lambda text: text.replace("timestamp:float", "time:float"), "Toy.inter:1: no column 'timestamp'"),
        (lambda text: text.replace("u1\tb\t1", "u1\tb\tsoon"), "Toy.inter:3: timestamp is 'soon'"),
        (lambda text: text.replace("u1\tb\t1", "u1\t\t1"), "Toy.inter:3: item_id is empty"),
        (lambda text: text.replace("u3\td\t3\n", ""), "9 interactions but dataset.json counts 10"),
    ],
)
def test_faulty_interactions(sequences: Path, prepare_toy: Prepare, change: object, message: str) -> None:
    path = prepare_toy(sequences, "sequences").folder / "Toy.inter"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        load_dataset(path.parent, modalities=None, verify=False)
    assert message in str(caught.value)


def test_faulty_manifests(sequences: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    path = folder / "dataset.json"
    content = path.read_text()
    with pytest.raises(DataError, match="holds no prepared dataset"):
        load_dataset(tmp_path / "nowhere", modalities=None)
    path.write_text(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_dataset(folder, modalities=None)
    path.write_text(json.dumps({**json.loads(content), "schema": 99}))
    with pytest.raises(DataError, match="not a manifest of version 1"):
        load_dataset(folder, modalities=None)
    path.write_text(content)
    (folder / "Toy.item").unlink()
    with pytest.raises(DataError, match=r"Toy\.item is missing"):
        load_dataset(folder, modalities=None)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.update(k_core=5),
        lambda manifest: manifest.update(paper="Beauty"),
        lambda manifest: manifest["counts"]["before"].update(users=4),
        lambda manifest: manifest.update(sha256=None),
        lambda manifest: manifest.update(one_key_more=1),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(
    sequences: Path, prepare_toy: Prepare, edit: Callable[[dict[str, Any]], None]
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    path, before = folder / "dataset.json", split_dataset(load_dataset(folder, modalities=None))
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest, sort_keys=True))  # the same content in another layout
    assert "sha256" not in read_manifest(folder)
    edit(manifest)
    path.write_text(json.dumps(manifest))
    for read in (lambda: load_dataset(folder, modalities=None), lambda: prepare_toy(sequences, "sequences")):
        with pytest.raises(DataError, match=r"dataset\.json has changed since it was prepared .* again with --fresh"):
            read()
    prepare_toy(sequences, "sequences", fresh=True)
    assert split_dataset(load_dataset(folder, modalities=None)).sha256 == before.sha256


def test_a_manifest_of_an_earlier_version_has_no_checksum(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    manifest = json.loads((folder / "dataset.json").read_text())
    del manifest["sha256"]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    assert load_dataset(folder, modalities=None).k_core == 0
    assert not prepare_toy(sequences, "sequences").fresh


def test_a_wrong_part_is_named(splits: Path, prepare_toy: Prepare) -> None:
    path = prepare_toy(splits, "splits").folder / "Clips.inter"
    path.write_text(path.read_text().replace("valid", "dev"))
    with pytest.raises(DataError, match=r"Clips\.inter:3: split is 'dev', but it must be one of train, valid, test"):
        load_dataset(path.parent, modalities=None, verify=False)


def test_users_with_few_interactions_are_kept_and_counted(tmp_path: Path, prepare_toy: Prepare) -> None:
    source = tmp_path / "source" / "Short"
    source.mkdir(parents=True)
    (source / "user_sequences.txt").write_text("u1 a b c\nu2 a\nu3 b c\n")
    split = split_dataset(load_dataset(prepare_toy(source, "sequences").folder, modalities=None))
    assert (split.n_users, split.n_short_users, len(split.test)) == (3, 2, 1)
    assert split.train.count_items().tolist() == [0, 1, 1, 2]


def test_recboles_reader_sees_the_same_fields(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    # RecBole 1.2.1's own call, quoting included
    items = pd.read_csv(folder / "Toy.item", delimiter="\t", dtype=str, encoding="utf-8", engine="python")
    assert items.columns.tolist() == ["item_id:token", "title:token_seq", "keywords:token_seq"]
    assert items["item_id:token"].tolist() == ["a", "b", "c"]  # z was never bought
    assert items["title:token_seq"].fillna("").tolist() == ["12 red comb", "", "blue soap"]
