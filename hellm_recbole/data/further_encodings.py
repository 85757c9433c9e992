"""Add further encodings of the item texts to a prepared dataset, each as a modality of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.data.atomic import write_features
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.diagnostics.card import CARD, write_card
from hellm_recbole.data.diagnostics.warnings import examine
from hellm_recbole.data.encoding_blocks import HERE, Encoding
from hellm_recbole.data.encoding_cache import Speed
from hellm_recbole.data.feature_files import FEATURES, FeatureMatrix, list_features
from hellm_recbole.data.features import TEXT, FeatureSettings, FindEncoder
from hellm_recbole.data.manifest import MANIFEST, Manifest, Modality, read_manifest, write_manifest
from hellm_recbole.data.modalities import encode_modality
from hellm_recbole.data.stored_split import store_columns, store_split
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS, create_scratch_folder, ensure_folder, replace_folder, sha256_file
from hellm_recbole.system.locks import FolderLock

ENCODINGS = ".cache"  # subfolder of the folder of all datasets: the cache of encodings
_ANOTHER_NAME = "give the encoding another name, or prepare the dataset again with --fresh"


def add_to_prepared(
    folder: Path, encoding: FeatureSettings, find: FindEncoder, *, progress: bool, where: Encoding = HERE
) -> dict[str, Speed]:
    """Add the further encodings of the settings to a prepared dataset, without its source; see `add_encodings`.

    Raises:
        OutputError: another process is writing the dataset.
    """
    with FolderLock(folder, f"dataset {folder.name}"):
        return add_encodings(folder, encoding, find, progress=progress, where=where)


def add_encodings(
    folder: Path, encoding: FeatureSettings, find: FindEncoder, *, progress: bool, where: Encoding = HERE
) -> dict[str, Speed]:
    """Add the further encodings of the settings to a prepared dataset. The caller holds the lock of the folder.

    Features that the dataset has are kept as they are, byte for byte. The folder is replaced completely or not at all.

    Args:
        folder: folder of the dataset.
        encoding: settings of the encoders.
        find: function that finds the text encoders.
        progress: whether to show progress bars.
        where: where texts are encoded.

    Returns:
        Modality -> amount and duration of encoding, for those that the dataset did not have.

    Raises:
        DataError: the dataset has no item texts, has changed, or has a modality of this name with other features.
        MissingDependency: the package of an encoder is not installed.
        OutputError: the dataset cannot be written.
    """
    encoders = encoding.list_further_encoders()
    if not encoders:
        return {}
    manifest = read_manifest(folder)
    dataset = load_dataset(folder, modalities=())
    items, texts = dataset.item_tokens[1:].tolist(), dataset.item_text[1:]
    if not any(texts):
        raise DataError(
            f"{folder} has no item texts to encode; prepare it with --text, from a source with texts, and with --fresh"
        )
    found = {modality: find(modality, encoder, encoding) for modality, encoder in encoders.items()}
    for modality in [*found]:
        if modality in list_features(folder):
            _refuse_other_features(folder, modality, manifest, found[modality].about, encoding)
            del found[modality]
    cache = ensure_folder(folder.parent) / ENCODINGS
    made = {
        modality: encode_modality(modality, encoder, items, texts, encoding, cache, progress=progress, where=where)
        for modality, encoder in found.items()
    }
    if made:
        _write_with(folder, manifest, {modality: matrix for modality, (matrix, _) in made.items()})
    return {modality: speed for modality, (_, speed) in made.items()}


def check_same_encoding(folder: Path, encoding: FeatureSettings) -> None:
    """Check that the modality `text` of a prepared dataset was made with the settings for causal language models.

    The encoder itself is among the inputs, which are compared elsewhere. Other encoders do not read these settings.

    Raises:
        DataError: a setting differs; the error names it.
    """
    about = read_manifest(folder).modalities.get(TEXT)
    if about is None or about.layer is None:
        return
    wanted: dict[str, Any] = {
        "layer": about.layer if encoding.encoder_layer is None else encoding.encoder_layer,
        "max_tokens": encoding.encoder_tokens,
        "weights_dtype": encoding.encoder_dtype,
        "weights": encoding.describe_weights(),
    }
    if differing := _list_differing(about, wanted):
        raise DataError(f"{folder} has {TEXT} features of another {', '.join(differing)}; replace it with --fresh")


def _refuse_other_features(
    folder: Path, modality: str, manifest: Manifest, wanted: Mapping[str, Any], encoding: FeatureSettings
) -> None:
    """Refuse an encoding whose modality the dataset has already, if it was not made in the same way.

    Raises:
        DataError: it was not.
    """
    about = manifest.modalities.get(modality)
    if about is None:
        raise DataError(
            f"{folder / modality}{FEATURES} was added by hand, so its encoder is not known; {_ANOTHER_NAME}"
        )
    wanted = {**wanted, "dtype": encoding.feature_dtype}
    if about.missing:
        wanted["fill"] = encoding.fill
    if differing := _list_differing(about, wanted):
        raise DataError(f"{folder} has {modality} features of another {', '.join(differing)}; {_ANOTHER_NAME}")


def _list_differing(about: Modality, wanted: Mapping[str, Any]) -> list[str]:
    """List the entries of a modality that differ from the wanted ones, in words."""
    has = about.to_json()
    return [key.replace("_", " ") for key, value in wanted.items() if has.get(key) != value]


def _write_with(folder: Path, manifest: Manifest, features: Mapping[str, FeatureMatrix]) -> None:
    """Write a copy of a prepared dataset with more features, and put it in the place of the dataset.

    Args:
        folder: folder of the dataset.
        manifest: its manifest.
        features: modality -> features of all items.
    """
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    n_bytes += sum(matrix.values.nbytes for matrix in features.values())
    with create_scratch_folder(folder.parent, folder.name, n_bytes=n_bytes) as temporary:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.copytree(path, temporary / path.name)
            elif path.name not in (CARD, SUMS, MANIFEST):
                shutil.copy2(path, temporary / path.name)
        before = {path.name for path in temporary.iterdir()}
        modalities = {name: write_features(temporary, name, matrix) for name, matrix in features.items()}
        written = sorted({path.name for path in temporary.iterdir()} - before)
        digests = dict(sorted({**manifest.files, **{name: sha256_file(temporary / name) for name in written}}.items()))
        (temporary / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()), "utf-8")
        content = {"modalities": {**manifest.modalities, **modalities}, "files": digests}
        write_manifest(temporary, manifest.model_copy(update=content))
        store_columns(temporary)
        examination = examine(temporary)
        store_split(temporary, examination.split)
        write_card(temporary, examination)
        replace_folder(temporary, folder)
