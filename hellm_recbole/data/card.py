"""The data card: what a prepared dataset holds and what is odd about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hellm_recbole.data.atomic import Dataset, Manifest, load_dataset, read_manifest
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.files import sha256_file
from hellm_recbole.types import IdArray, Targets

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


def data_card(folder: Path) -> str:
    """The card of a prepared dataset, one `name: value` a line.

    Raises:
        DataError: the dataset is not prepared, or faulty.
    """
    manifest = read_manifest(folder)
    dataset = load_dataset(folder, modalities=None)
    split = split_dataset(dataset)
    lines = [
        ("dataset", f"{dataset.name} (kind {manifest['kind']})"),
        *_counts(dataset, manifest),
        ("last two items tie in time", _ties(dataset)),
        *_split(split),
        *_modalities(dataset, manifest),
        *[("warning", warning) for warning in manifest["warnings"]],
        *[("leak", leak) for leak in leaks(dataset, split, folder, manifest) or ["none found"]],
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _counts(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    per_user = np.bincount(dataset.user, minlength=dataset.n_users + 1)[1:]
    per_item = np.bincount(dataset.item, minlength=dataset.n_items + 1)[1:]
    before = manifest["counts"]["before"]
    lengths = ", ".join(f"{name} {np.quantile(per_user, q, method='lower')}" for name, q in QUANTILES.items())
    return [
        ("users", f"{dataset.n_users:,}"),
        ("items", f"{dataset.n_items:,}"),
        ("interactions", f"{dataset.n_interactions:,}"),
        ("sparsity", f"{1 - dataset.n_interactions / (dataset.n_users * dataset.n_items):.4%}"),
        (
            "filter",
            f"{dataset.k_core}-core asked, {min(per_user.min(), per_item.min())}-core held; before it "
            f"{before['users']:,} users, {before['items']:,} items, {before['interactions']:,} interactions",
        ),
        ("history length", lengths),
        ("users with fewer than 3", f"{np.sum(per_user < 3):,}"),
        (
            "repeated user-item pairs",
            f"{dataset.n_interactions - len(np.unique(_pairs(dataset, dataset.user, dataset.item))):,}",
        ),
    ]


def _ties(dataset: Dataset) -> str:
    """Share of users, among those with two interactions or more, whose last two have the same time."""
    if dataset.time is None or not dataset.time_known:
        return "not known: the source has no times"
    order = np.lexsort((dataset.time, dataset.user))
    user, time = dataset.user[order], dataset.time[order]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
    last = last[(last > 0) & (user[last - 1] == user[last])]
    return f"{np.mean(time[last] == time[last - 1]):.1%} of users" if len(last) else "no user has two"


def _split(split: Split) -> list[tuple[str, str]]:
    seen = np.unique(split.train.items)
    cold = split.n_items - len(seen)
    cold_targets = int(np.sum(~np.isin(split.test.item, seen)))
    return [
        ("split", f"{split.kind}, {split.sha256[:16]}"),
        ("train / valid / test", f"{len(split.train.items):,} / {len(split.valid):,} / {len(split.test):,}"),
        ("cold items", f"{cold:,} without a training interaction; {cold_targets:,} test targets are such items"),
    ]


def _modalities(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    lines = []
    for name, matrix in dataset.features.items():
        known = manifest["modalities"].get(name)
        if known is None:
            said = "added by hand"
        else:
            said = f"coverage {known['coverage']:.2%}" + (f", by {known['encoder']}" if known["encoder"] else "")
            said += f", {known['filled_with_mean']} items have the mean" if known.get("filled_with_mean") else ""
        lines.append((f"modality {name}", f"{matrix.shape[1]}-d, {said}"))
    return lines or [("modalities", "none")]


def leaks(dataset: Dataset, split: Split, folder: Path, manifest: Manifest) -> list[str]:
    """What makes a result look better than it is: targets that are in the user's own history, files changed by hand."""
    train = _pairs(dataset, split.train.users(), split.train.items)
    sides = {"validation": (train, split.valid), "test": (np.append(train, _of(dataset, split.valid)), split.test)}
    found = []
    for name, (earlier, targets) in sides.items():
        if n_repeated := int(np.sum(np.isin(_of(dataset, targets), earlier))):
            found.append(
                f"{n_repeated:,} of {len(targets):,} {name} targets are in the same user's earlier interactions"
            )
    found += [
        f"{name} has changed since it was prepared"
        for name, digest in manifest["files"].items()
        if sha256_file(folder / name) != digest
    ]
    return found


def _of(dataset: Dataset, targets: Targets) -> IdArray:
    return _pairs(dataset, targets.user, targets.item)


def _pairs(dataset: Dataset, user: IdArray, item: IdArray) -> IdArray:
    """One number for each (user, item)."""
    return user * (dataset.n_items + 1) + item
