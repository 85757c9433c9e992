from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.data.ties import shuffle_rows, shuffle_ties
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.files import sha256_file
from hellm_recbole.system.locks import FolderLock

Prepare = Callable[..., Prepared]
ITEMS = "abcdefgh"


@pytest.fixture
def tied(recbole: Path, prepare_toy: Prepare) -> Path:
    """User t has the eight items at time 5, between two others; user n no ties, rows of both mixed and n's unsorted."""
    t = [f"t\t{item}\t5\t{stars}" for stars, item in enumerate(ITEMS)]
    n = [f"n\t{item}\t{50 - place}\t1" for place, item in enumerate(ITEMS)]
    rows = ["t\ty\t1\t9", *itertools.chain(*zip(t, n, strict=True)), "s\ta\t7\t1", "s\tb\t7\t2", "s\tc\t7\t3"]
    header = "user_id:token\titem_id:token\ttimestamp:float\trating:float\n"
    (recbole / "films.inter").write_text(header + "\n".join(rows) + "\n")
    (recbole / "films.item").write_text(
        "item_id:token\tmovie_title:token_seq\n" + "".join(f"{i}\t{i}\n" for i in ITEMS)
    )
    np.save(recbole / "image_feat.npy", np.arange(18, dtype=np.float32).reshape(9, 2))
    (recbole / "image_feat.tokens.txt").write_text("\n".join("y" + ITEMS) + "\n")
    return prepare_toy(recbole, "recbole").folder


def read_rows(folder: Path) -> list[str]:
    return (folder / f"{folder.name}.inter").read_text().splitlines()


def load_split(folder: Path) -> Split:
    return split_dataset(load_dataset(folder, modalities=None))


def load_targets(folder: Path) -> dict[str, tuple[str, str]]:
    """Load the validation and the test item of each user."""
    split = load_split(folder)
    return {
        str(split.user_tokens[user]): (str(split.item_tokens[valid]), str(split.item_tokens[test]))
        for user, valid, test in zip(split.test.user, split.valid.item, split.test.item, strict=True)
    }


def test_rows_move_only_among_rows_of_one_user_and_time(tied: Path, tmp_path: Path) -> None:
    before, after = read_rows(tied), read_rows(shuffle_ties(tied, tmp_path / "more", 1))
    assert after != before
    assert Counter(after) == Counter(before)
    for one, other in zip(before[1:], after[1:], strict=True):
        assert one.split("\t")[0] == other.split("\t")[0]
        assert one == other or one.split("\t")[2] == other.split("\t")[2] != "1"
        assert one == other or not one.startswith("n")


def test_times_that_differ_only_as_text_are_no_ties(recbole: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    times = ["1700000000000000001", "1700000000000000002", "1700000000000000002", "17e17", "3", "3"]
    rows = [f"{user}\t{item}\t{time}" for user, item, time in zip("777888", "xyzxyz", times, strict=True)]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (recbole / "films.inter").write_text(header + "\n".join(rows) + "\n")
    folder = prepare_toy(recbole, "recbole").folder
    orders = {tuple(read_rows(shuffle_ties(folder, tmp_path / "more", seed))[1:]) for seed in range(12)}
    x7, y7, z7, x8, y8, z8 = read_rows(folder)[1:]
    assert orders == {(x7, *sevens, x8, *eights) for sevens in ((y7, z7), (z7, y7)) for eights in ((y8, z8), (z8, y8))}
    assert x7 == "7\tx\t2\t1700000000000000001"
    assert {load_split(tmp_path / "more" / f"films-ties{seed}").kind for seed in range(12)} == {"leave-one-out"}


def test_the_seed_decides_the_order(tied: Path, tmp_path: Path) -> None:
    orders = [read_rows(shuffle_ties(tied, tmp_path / place, seed)) for place, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert orders[0] == orders[1] != orders[2]


def test_every_order_of_ties_is_as_likely(tied: Path) -> None:
    dataset = load_dataset(tied, modalities=())
    s = np.flatnonzero(dataset.user == np.flatnonzero(dataset.user_tokens == "s")[0])
    seen = Counter(tuple(shuffle_rows(dataset, seed)[s]) for seed in range(1200))
    assert set(seen) == set(itertools.permutations(s))
    assert max(abs(number - 200) for number in seen.values()) < 4.5 * (1200 * 5 / 36) ** 0.5  # standard deviations


def test_the_variant_is_a_prepared_dataset(tied: Path, tmp_path: Path) -> None:
    folder = shuffle_ties(tied, tmp_path / "more", 3)
    assert folder == tmp_path / "more" / "films-ties3"
    assert (folder / "films-ties3.item").read_bytes() == (tied / "films.item").read_bytes()
    one, other = load_dataset(tied, modalities=None), load_dataset(folder, modalities=None)
    assert other.name == "films-ties3"
    for dataset in (one, other):  # y has the first row of features, a to h the others
        rows = {
            str(token): row.tolist() for token, row in zip(dataset.item_tokens, dataset.features["image"], strict=True)
        }
        assert rows["y"] == [0, 1]
        assert rows["h"] == [16, 17]
    assert load_split(folder).sha256 != load_split(tied).sha256


def test_the_manifest_names_the_origin_of_the_variant(tied: Path, tmp_path: Path) -> None:
    folder = shuffle_ties(tied, tmp_path / "more", 3)
    before, after = read_manifest(tied), read_manifest(folder)
    parent = sha256_file(tied / "dataset.json")
    inputs = {**before.inputs.to_json(), "shuffled_ties": 3, "parent_manifest": parent}
    assert after.inputs.to_json() == inputs
    assert after.files == {name: sha256_file(folder / name) for name in after.files}
    assert set(after.files) == {name.replace("films.", "films-ties3.") for name in before.files}
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == after.files
    assert (after.counts, after.modalities, after.kind) == (before.counts, before.modalities, before.kind)


def test_a_manifest_edited_by_hand_is_refused_with_how_to_make_the_variant_again(tied: Path, tmp_path: Path) -> None:
    folder = shuffle_ties(tied, tmp_path / "more", 3)
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"k_core": 0', '"k_core": 5'))
    with pytest.raises(DataError, match=r"remove the folder and .* hellm-recbole prepare films --shuffle-ties 3, and"):
        load_dataset(folder, modalities=None)


@pytest.mark.parametrize("seed", range(4))
def test_changed_targets_are_counted(tied: Path, tmp_path: Path, seed: int) -> None:
    folder = shuffle_ties(tied, tmp_path / "more", seed)
    before, after = load_targets(tied), load_targets(folder)
    assert before["n"] == after["n"]
    n_valid, n_test = (sum(before[user][index] != after[user][index] for user in before) for index in (0, 1))
    assert read_manifest(folder).warnings[-1] == (
        f"interactions of one user at one time stand in a random order (seed {seed}): of 3 users {n_test} have another "
        f"test target than in films, and {n_valid} another validation target"
    )


def test_the_variant_is_not_the_papers_dataset(tied: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tied)
    (tied / "dataset.json").write_text(json.dumps({**manifest.to_json(), "paper": "Beauty"}))
    assert read_manifest(shuffle_ties(tied, tmp_path / "more", 0)).paper is None


def test_features_added_by_hand_are_copied(tied: Path, tmp_path: Path) -> None:
    np.save(tied / "audio_feat.npy", np.eye(9))
    shutil.copy(tied / "image_feat.tokens.txt", tied / "audio_feat.tokens.txt")
    folder = shuffle_ties(tied, tmp_path / "more", 0)
    assert load_dataset(folder, modalities=None).features["audio"].shape == (10, 9)
    assert "audio_feat.npy" not in read_manifest(folder).files


def get_refusal(folder: Path, output: Path, seed: int = 0) -> str:
    with pytest.raises(DataError) as raised:
        shuffle_ties(folder, output, seed)
    assert not list(output.glob(".*"))
    return str(raised.value)


def test_data_without_times_are_refused(sequences: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    message = get_refusal(prepare_toy(sequences, "sequences").folder, tmp_path / "more")
    assert (
        message
        == "dataset Toy has no times, so it has no ties to shuffle; prepare the dataset from a source with times"
    )


def test_a_given_split_is_refused(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    rows = ["0\t3\ttrain\t1", "0\t1\ttest\t1", "0\t0\tvalid\t1"]
    (splits / "interactions.tsv").write_text("user_id\titem_id\tsplit\ttimestamp\n" + "\n".join(rows) + "\n")
    message = get_refusal(prepare_toy(splits, "splits").folder, tmp_path / "more")
    assert (
        message
        == "dataset Clips has its own split, which does not depend on ties; choose a dataset without its own split"
    )


def test_an_output_that_exists_is_refused(tied: Path, tmp_path: Path) -> None:
    folder = shuffle_ties(tied, tmp_path / "more", 0)
    assert get_refusal(tied, tmp_path / "more") == f"{folder} exists already; remove it, or choose another seed"


def test_two_processes_do_not_make_one_variant_at_once(tied: Path, tmp_path: Path) -> None:
    output = tmp_path / "more"
    with FolderLock(output / "films-ties0", "another"):
        with pytest.raises(OutputError, match=f"^dataset films-ties0 is in use by process {os.getpid()} on .*; wait"):
            shuffle_ties(tied, output, 0)
        assert shuffle_ties(tied, output, 1) == output / "films-ties1"
    assert os.listdir(output) == ["films-ties1"]


def test_an_incomplete_variant_of_a_killed_process_is_removed(tied: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "more" / f".films-ties1.tmp-{gone.pid}").mkdir(parents=True)
    shuffle_ties(tied, tmp_path / "more", 0)
    assert os.listdir(tmp_path / "more") == ["films-ties0"]


def test_a_negative_seed_is_refused(tied: Path, tmp_path: Path) -> None:
    assert "the seed -1 of --shuffle-ties is negative" in get_refusal(tied, tmp_path / "more", -1)


def test_a_dataset_that_has_changed_is_refused(tied: Path, tmp_path: Path) -> None:
    with (tied / "image_feat.npy").open("ab") as stream:
        stream.write(b"x")
    assert "image_feat.npy has changed since it was prepared" in get_refusal(tied, tmp_path / "more")


def test_nothing_is_left_of_a_variant_that_cannot_be_written(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        OutputError, match=r"films-ties0: no space left on .*, 0\.1 MB needed, .*; free some space there"
    ):
        shuffle_ties(tied, tmp_path / "more", 0)
    assert list((tmp_path / "more").iterdir()) == []
