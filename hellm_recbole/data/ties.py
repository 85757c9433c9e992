"""A variant of a prepared dataset in which ties in time are broken at random: how far do results hang on the source?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hellm_recbole.data.atomic import (
    FEATURES,
    MANIFEST,
    MISSING,
    SUMS,
    TOKENS,
    Dataset,
    Manifest,
    list_features,
    load_dataset,
    read_manifest,
    write_manifest,
)
from hellm_recbole.data.diagnostics.card import write_card
from hellm_recbole.data.split import split_dataset
from hellm_recbole.data.tsv import read_lines
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import scratch_folder, sha256_file, sweep_temporaries
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.types import IdArray


def shuffle_ties(folder: Path, output: Path, seed: int) -> Path:
    """Write `output/NAME-ties<SEED>`, in which interactions of one user at one time stand in a random order.

    All else stays: the other rows of `NAME.inter` keep their lines, users without ties all of theirs, and items and
    features are copied. Internal item ids follow the rows and may differ, so weights start elsewhere, as with another
    seed. The variant is written whole or not at all.

    Args:
        folder: of a prepared dataset.
        output: folder of the variant's folder.
        seed: of the order.

    Returns:
        The variant's folder; its manifest says how many targets are other items than before.

    Raises:
        DataError: the dataset has no times, brings its own split, has changed or is not prepared, the seed is negative,
            or the variant exists.
        OutputError: it cannot be written, or another process makes it.
    """
    manifest = read_manifest(folder)
    name = manifest["name"]
    variant = f"{name}-ties{seed}"
    if seed < 0:
        raise DataError(f"seed {seed} of the order of ties is negative; use 0 or more")
    dataset = load_dataset(folder, modalities=())
    if not dataset.time_known or dataset.time is None:
        raise DataError(
            f"dataset {name} has no times, so it has no ties to shuffle; prepare it from a source with times"
        )
    if dataset.part is not None:
        raise DataError(f"dataset {name} brings its own split, which ties do not decide; shuffle one without a split")
    with FolderLock(output / variant, f"dataset {variant}"):
        sweep_temporaries(output)
        return _write_variant(folder, output / variant, manifest, dataset, seed)


def _write_variant(folder: Path, place: Path, manifest: Manifest, dataset: Dataset, seed: int) -> Path:
    """See `shuffle_ties`; `place` is the variant's folder."""
    output, variant = place.parent, place.name
    if place.exists():
        raise DataError(f"{place} exists already; remove it or choose another seed")
    moved = shuffle_rows(dataset, seed)
    renamed = _renamed(folder, manifest, variant)
    n_bytes = sum((folder / file).stat().st_size for file in renamed)
    with scratch_folder(output, variant, n_bytes=n_bytes) as temporary:
        _write_files(folder, temporary, renamed, moved)
        digests = {renamed[file]: sha256_file(temporary / renamed[file]) for file in manifest["files"]}
        sums = "".join(f"{digest}  {file}\n" for file, digest in digests.items())
        (temporary / SUMS).write_text(sums, encoding="utf-8")
        content = {
            **manifest,
            "name": variant,
            "paper": None,  # the paper's column is of the data as published
            "warnings": [*manifest["warnings"], _sentence(dataset, moved, seed)],
            "inputs": {
                **manifest.get("inputs", {}),
                "shuffled_ties": seed,
                "parent_manifest": sha256_file(folder / MANIFEST),
            },
            "files": digests,
        }
        write_manifest(temporary, content)
        write_card(temporary)
        os.replace(temporary, place)
    return place


def shuffle_rows(dataset: Dataset, seed: int) -> IdArray:
    """[E] for each row of the file the row that takes its place: one of the same user and time, each as likely."""
    assert dataset.time is not None
    drawn = np.random.default_rng(seed).random(dataset.n_interactions)
    moved = np.empty(dataset.n_interactions, dtype=np.int64)
    moved[np.lexsort((dataset.time, dataset.user))] = np.lexsort((drawn, dataset.time, dataset.user))
    return moved


def _sentence(dataset: Dataset, moved: IdArray, seed: int) -> str:
    """For the manifest: how many targets the new order changes."""
    before, after = split_dataset(dataset), split_dataset(replace(dataset, item=dataset.item[moved]))
    n_test, n_valid = (
        int(np.sum(one.item != other.item)) for one, other in ((before.test, after.test), (before.valid, after.valid))
    )
    return (
        f"interactions of one user at one time stand in a random order (seed {seed}): of {len(before.test):,} users "
        f"{n_test:,} have another test target than in {dataset.name}, and {n_valid:,} another validation target"
    )


def _renamed(folder: Path, manifest: Manifest, variant: str) -> Mapping[str, str]:
    """Each file of the dataset, features added by hand included, and its name in the variant."""
    by_hand = [f"{modality}{ending}" for modality in list_features(folder) for ending in (FEATURES, TOKENS, MISSING)]
    files = dict.fromkeys([*manifest["files"], *(name for name in by_hand if (folder / name).is_file())])
    own = {f"{manifest['name']}{ending}": f"{variant}{ending}" for ending in (".inter", ".item")}
    return {name: own.get(name, name) for name in files}


def _write_files(folder: Path, temporary: Path, renamed: Mapping[str, str], moved: IdArray) -> None:
    for name, new in renamed.items():
        if name.endswith(".inter"):
            header, *rows = read_lines(folder / name)
            lines = [header, *(rows[row] for row in moved)]
            (temporary / new).write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(folder / name, temporary / new)
