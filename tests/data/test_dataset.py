from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


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


def test_the_columns_of_the_items_are_known(sequences: Path, splits: Path, prepare_toy: Prepare) -> None:
    with_table = prepare_toy(sequences, "sequences").folder
    (with_table / "Toy.item").write_text("item_id:token\ttitle:token_seq\n")
    assert load_dataset(with_table, modalities=None, verify=False).item_columns == ("item_id", "title")
    without_table = prepare_toy(splits, "splits").folder
    assert not list(without_table.glob("*.item"))
    assert load_dataset(without_table, modalities=None).item_columns == ()


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


def test_item_data_is_held_once(splits: Path, prepare_toy: Prepare) -> None:
    dataset = load_dataset(prepare_toy(splits, "splits").folder, modalities=None)
    split = split_dataset(dataset)
    data = split.make_train_data()
    for holder in (split, data):
        assert holder.features is dataset.features
        assert holder.item_text is dataset.item_text
        assert holder.covered is dataset.covered
    assert split.make_selection_data().train.features is dataset.features
    mapped = dataset.features["image"].base
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == dataset.features["image"].shape  # no view of a larger array
