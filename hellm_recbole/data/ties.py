"""Write a variant of a prepared dataset with random order of ties in time.

Results on such variants show how much results depend on the order of ties in the source.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.diagnostics.card import write_card
from hellm_recbole.data.diagnostics.warnings import examine
from hellm_recbole.data.feature_files import FEATURES, MISSING, TOKENS, list_features
from hellm_recbole.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from hellm_recbole.data.split import split_dataset
from hellm_recbole.data.stored_split import store_columns, store_split
from hellm_recbole.data.tsv import read_lines
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS, create_scratch_folder, remove_leftovers, sha256_file
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.types import IdArray


def shuffle_ties(folder: Path, output: Path, seed: int) -> Path:
    """Write `output/NAME-ties<SEED>`, a variant in which a user's interactions with equal times are in random order.

    Everything else is the same: rows without ties keep their lines in `NAME.inter`, and items and features are copied.
    Internal item ids follow the order of the rows, so they may differ. Then the initial weights differ too, as with
    another seed. The variant is written completely or not at all.

    Args:
        folder: folder of a prepared dataset.
        output: parent folder of the variant.
        seed: random seed of the order of ties.

    Returns:
        Folder of the variant; its manifest states how many targets have changed.

    Raises:
        DataError: the dataset is not prepared, has changed, has no times or has its own split, the seed is negative,
            or the variant exists.
        OutputError: the variant cannot be written, or another process is writing it.
    """
    manifest = read_manifest(folder)
    name = manifest.name
    variant = f"{name}-ties{seed}"
    if seed < 0:
        raise DataError(f"the seed {seed} of --shuffle-ties is negative; use 0 or more")
    dataset = load_dataset(folder, modalities=())
    if not dataset.time_known or dataset.time is None:
        raise DataError(
            f"dataset {name} has no times, so it has no ties to shuffle; prepare the dataset from a source with times"
        )
    if dataset.part is not None:
        raise DataError(
            f"dataset {name} has its own split, which does not depend on ties; choose a dataset without its own split"
        )
    with FolderLock(output / variant, f"dataset {variant}"):
        remove_leftovers(output)
        return _write_variant(folder, output / variant, manifest, dataset, seed)


def _write_variant(folder: Path, target: Path, manifest: Manifest, dataset: Dataset, seed: int) -> Path:
    """Write the variant; see `shuffle_ties`. `target` is the folder of the variant."""
    output, variant = target.parent, target.name
    if target.exists():
        raise DataError(f"{target} exists already; remove it, or choose another seed")
    source_rows = shuffle_rows(dataset, seed)
    new_names = _map_file_names(folder, manifest, variant)
    n_bytes = sum((folder / file).stat().st_size for file in new_names)
    with create_scratch_folder(output, variant, n_bytes=n_bytes) as temporary:
        _write_files(folder, temporary, new_names, source_rows)
        digests = {new_names[file]: sha256_file(temporary / new_names[file]) for file in manifest.files}
        sums = "".join(f"{digest}  {file}\n" for file, digest in digests.items())
        (temporary / SUMS).write_text(sums, encoding="utf-8")
        parent = {"shuffled_ties": seed, "parent_manifest": sha256_file(folder / MANIFEST)}
        content = {
            **({"split_comparison": None} if manifest.split_comparison else {}),  # that of the published data
            "name": variant,
            "paper": None,  # the paper reports results on the published data, not on a variant
            "warnings": (*manifest.warnings, _describe_changes(dataset, source_rows, seed)),
            "inputs": manifest.inputs.model_copy(update=parent),
            "files": digests,
        }
        write_manifest(temporary, manifest.model_copy(update=content))
        store_columns(temporary)
        examination = examine(temporary)
        store_split(temporary, examination.split)
        write_card(temporary, examination)
        os.replace(temporary, target)
    return target


def shuffle_rows(dataset: Dataset, seed: int) -> IdArray:
    """Draw a random order of ties.

    Returns:
        [E] for each row of the file, the index of the row that replaces it. That row has the same user and time, and
        all such rows are equally likely.
    """
    assert dataset.time is not None
    random_keys = np.random.default_rng(seed).random(dataset.n_interactions)
    source_rows = np.empty(dataset.n_interactions, dtype=np.int64)
    source_rows[np.lexsort((dataset.time, dataset.user))] = np.lexsort((random_keys, dataset.time, dataset.user))
    return source_rows


def _describe_changes(dataset: Dataset, source_rows: IdArray, seed: int) -> str:
    """Return a sentence for the manifest: how many targets the new order changes."""
    before, after = split_dataset(dataset), split_dataset(replace(dataset, item=dataset.item[source_rows]))
    n_test, n_valid = (
        int(np.sum(old.item != new.item)) for old, new in ((before.test, after.test), (before.valid, after.valid))
    )
    return (
        f"interactions of one user at one time stand in a random order (seed {seed}): of {len(before.test):,} users "
        f"{n_test:,} have another test target than in {dataset.name}, and {n_valid:,} another validation target"
    )


def _map_file_names(folder: Path, manifest: Manifest, variant: str) -> Mapping[str, str]:
    """Map the name of each file of the dataset, including features added by hand, to its name in the variant."""
    feature_files = [
        f"{modality}{ending}" for modality in list_features(folder) for ending in (FEATURES, TOKENS, MISSING)
    ]
    files = dict.fromkeys([*manifest.files, *(name for name in feature_files if (folder / name).is_file())])
    renamed = {f"{manifest.name}{ending}": f"{variant}{ending}" for ending in (".inter", ".item")}
    return {name: renamed.get(name, name) for name in files}


def _write_files(folder: Path, temporary: Path, new_names: Mapping[str, str], source_rows: IdArray) -> None:
    """Write the interactions in their new order, and copy all other files."""
    for name, new_name in new_names.items():
        if name.endswith(".inter"):
            header, *rows = read_lines(folder / name)
            lines = [header, *(rows[row] for row in source_rows)]
            (temporary / new_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(folder / name, temporary / new_name)
