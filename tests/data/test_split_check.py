from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.manifest import SplitComparison, read_manifest
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.data.split_check import compare_split, describe_comparison, hash_without_users
from hellm_recbole.data.ties import shuffle_ties

Prepare = Callable[..., Prepared]
LINES = ["u1 a b c", "u2 b c a", "u3 c a b d"]


@pytest.fixture
def split_lines(sequences: Path, prepare_toy: Prepare) -> Callable[[list[str]], Split]:
    def split(lines: list[str]) -> Split:
        (sequences / "user_sequences.txt").write_text("\n".join(lines) + "\n")
        return split_dataset(load_dataset(prepare_toy(sequences, "sequences", fresh=True).folder, modalities=()))

    return split


def test_the_hash_without_users_sees_items_and_parts_only(split_lines: Callable[[list[str]], Split]) -> None:
    first = split_lines(LINES)
    renamed = split_lines(["x c a b d", "y a b c", "z b c a"])
    assert first.sha256 != renamed.sha256
    assert hash_without_users(first) == hash_without_users(renamed)
    for other in (["u1 a c b", *LINES[1:]], [*LINES, "u4 a b c"], [*LINES[:2], "u3 c a b e"]):
        assert hash_without_users(split_lines(other)) != hash_without_users(first)


def test_the_order_in_a_given_split_does_not_count(splits: Path, prepare_toy: Prepare) -> None:
    def split(rows: list[str]) -> Split:
        (splits / "interactions.tsv").write_text("user_id\titem_id\tsplit\n" + "\n".join(rows) + "\n")
        return split_dataset(load_dataset(prepare_toy(splits, "splits", fresh=True).folder, modalities=()))

    rows = ["0\t3\ttrain", "0\t1\ttrain", "0\t0\tvalid", "1\t0\ttest"]
    first = hash_without_users(split(rows))
    assert hash_without_users(split([rows[1], rows[0], *rows[2:]])) == first
    assert hash_without_users(split(["0\t3\ttrain", "0\t1\tvalid", "0\t0\ttrain", "1\t0\ttest"])) != first


def test_three_results_of_a_comparison(split_lines: Callable[[list[str]], Split]) -> None:
    split = split_lines(LINES)
    own, items = split.sha256, hash_without_users(split)
    assert compare_split(split, None, None) is None
    for stored, stored_items, result, sentence in (
        (own, None, "same", f"the split is the stored one ({own[:16]})"),
        ("f" * 64, items, "same, with other user ids", f"(hash {own[:16]}, stored {'f' * 16})"),
        (
            "f" * 64,
            "e" * 64,
            "different",
            "usual causes: another version of the raw files, interactions at equal times",
        ),
        ("f" * 64, None, "different", f"(hash {own[:16]}, stored {'f' * 16}; dataset.json has them in full)"),
    ):
        comparison = compare_split(split, stored, stored_items)
        assert comparison == SplitComparison(result=result, sha256=own, stored_sha256=stored)
        assert sentence in describe_comparison(comparison)


def test_a_variant_with_shuffled_ties_is_not_compared(recbole: Path, root: Path) -> None:
    settings = read_dataset_settings("films", "recbole", {"k_core": 0, "split_sha256": "f" * 64, "text": []})
    prepared = prepare("films", recbole, settings, read_feature_settings({}), root, fresh=False, progress=False)
    comparison = read_manifest(prepared.folder).split_comparison
    assert comparison is not None
    assert comparison.result == "different"
    assert read_manifest(shuffle_ties(prepared.folder, root, 1)).split_comparison is None


@pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="recbole is not installed")
def test_ml_100k_has_its_stored_split(root: Path) -> None:
    settings = read_dataset_settings("ml-100k", None, {"text": []})
    source = find_source("ml-100k", settings.kind, None, None, None)
    prepared = prepare("ml-100k", source, settings, read_feature_settings({}), root, fresh=False, progress=False)
    stored = load_yaml(find_properties() / "dataset" / "ml-100k.yaml")
    assert f"the split is the stored one ({stored['split_sha256'][:16]})" in prepared.warnings
    split = split_dataset(load_dataset(prepared.folder, modalities=()))
    assert hash_without_users(split) == stored["split_sha256_without_users"]
