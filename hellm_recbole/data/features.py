"""Encode item texts and pictures as features: one row of an encoder's output for each item.

Items without text, picture or row in a feature file get fill values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from hellm_recbole.config.settings import Settings
from hellm_recbole.data.encoding_blocks import HERE, Encoding, FoundEncoder
from hellm_recbole.data.encoding_cache import LAYOUT, Speed, compute_hash, encode_with_cache
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import (
    sha256_file,
)
from hellm_recbole.system.runtime import choose_device
from hellm_recbole.types import FloatArray

REVISION = 12  # length of the hash prefix that identifies an encoder's files in the manifest
DEVICE_OPTION = "--encode-device"
TEXT, IMAGE = "text", "image"  # names of the modalities that texts and pictures become
_NAMED_ENCODER = re.compile(
    r"([A-Za-z0-9_]+)=(.*)", re.DOTALL
)  # MODALITY=ENCODER; a path such as ./a=b is no such form
_FURTHER_TEXT = re.compile(r"text_[a-z0-9_]+")


def parse_encoder(text: str) -> tuple[str, str]:
    """Parse a text encoder of the form `[MODALITY=]ENCODER`.

    Returns:
        Name of the modality, `text` if it is left out, and name of the encoder.

    Raises:
        ValueError: the modality is not one of texts, or the encoder is empty.

    >>> parse_encoder("text_llm=google/gemma-3-270m"), parse_encoder("bert-base-uncased")
    (('text_llm', 'google/gemma-3-270m'), ('text', 'bert-base-uncased'))
    """
    found = _NAMED_ENCODER.fullmatch(text)
    modality, encoder = (found[1], found[2]) if found else (TEXT, text)
    if modality == IMAGE:
        raise ValueError(
            f"is an encoder of texts for the modality {IMAGE}; name the one of pictures by --image-encoder"
        )
    if modality != TEXT and not _FURTHER_TEXT.fullmatch(modality):
        raise ValueError(
            f"is for the modality {modality!r}, but encodings of texts are named text, or text_ and small letters "
            "(such as text_llm); a path with = is written ./a=b"
        )
    if not encoder.strip():
        raise ValueError("is empty; give a Hugging Face id or a folder")
    return modality, encoder


class FeatureSettings(Settings):
    """Settings of the encoders of text and pictures.

    Attributes:
        encoder: text encoder: `packaged:...`, a sentence-transformers or Hugging Face id, a folder, or a GGUF file.
        further_encoders: entries `text_NAME=ENCODER`: text encoders whose features are modalities of their own.
        pooling: pooling of token states: `auto` (the encoder's own), `mean` or `cls`.
        image_encoder: picture encoder: a Hugging Face id or a local folder.
        fill: fill values for items without text, picture or row in a feature file: `mean` (of the other rows) or
            `zero`.
        feature_dtype: data type of the features on disk.
        encode_device: device for encoding: auto, cpu or cuda:N.
        encode_batch_size: number of texts or pictures in a batch.
        encode_part: number of texts or pictures in a part of the cache.
        encoder_layer: number of the block of a causal language model after which token states are averaged; None: the
            middle one.
        encoder_tokens: maximum number of tokens of a text that a causal language model reads.
        encoder_dtype: number type of the weights of a causal language model.
        encoder_weights: weights of a causal language model: pretrained or random.
        encoder_seed: random seed of random weights.
        encoder_part: number of texts in a part of the cache, for causal language models.
        encode_actors: on a Ray cluster, number of processes that encode, each with an encoder of its own; None: as
            many as the cluster has CPUs or GPUs for.
        encode_cpus: CPUs of such a process, which is also its number of threads.
        encode_gpus: GPUs of such a process, if the cluster has any.
        encode_block_batches: number of batches that such a process encodes at a time.
    """

    encoder: str
    further_encoders: tuple[str, ...]
    pooling: Literal["auto", "mean", "cls"]
    image_encoder: str
    fill: Literal["mean", "zero"]
    feature_dtype: Literal["float32", "float16"]
    encode_device: str
    encode_batch_size: int = Field(ge=1)
    encode_part: int = Field(ge=1)
    encoder_layer: int | None = Field(ge=1)
    encoder_tokens: int = Field(ge=1)
    encoder_dtype: Literal["float32", "bfloat16"]
    encoder_weights: Literal["pretrained", "random"]
    encoder_seed: int = Field(ge=0)
    encoder_part: int = Field(ge=1)
    encode_actors: int | None = Field(ge=1)
    encode_cpus: float = Field(gt=0)
    encode_gpus: float = Field(ge=0)
    encode_block_batches: int = Field(ge=1)

    @field_validator("further_encoders")
    @classmethod
    def _check_further_encoders(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse entries that name no further modality, or one of another entry."""
        names = [parse_encoder(entry)[0] for entry in entries]
        if TEXT in names:
            raise ValueError("contains an entry without a modality such as text_llm=")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"names the modality {twice[0]} twice")
        return entries

    def list_further_encoders(self) -> dict[str, str]:
        """Return the further text encoders: modality -> encoder."""
        return dict(parse_encoder(entry) for entry in self.further_encoders)

    def describe_weights(self) -> str:
        """Describe which weights a causal language model encodes with: `pretrained`, or `random` and the seed."""
        return self.encoder_weights if self.encoder_weights != "random" else f"random, seed {self.encoder_seed}"


FindEncoder = Callable[[str, str, FeatureSettings], FoundEncoder]  # (modality, encoder, settings) -> its files


def find_sentence_encoder(modality: str, encoder: str, settings: FeatureSettings) -> FoundEncoder:
    """Find the files of an encoder of sentence-transformers, or of a plain Hugging Face encoder.

    Args:
        modality: name of the modality that its encodings become; it changes nothing here.
        encoder: name or folder of the encoder.
        settings: pooling, device and batch size.

    Raises:
        MissingDependency: the packaged encoder is not installed.
        DataError: the encoder is not a folder and cannot be fetched from the hub.
    """
    # Imported here, because it loads torch, and most commands encode nothing.
    from hellm_recbole.data.encoders import TextEncoder, find_encoder, hash_encoder, load_text_encoder

    revision = hash_encoder(find_encoder(encoder))

    def load() -> TextEncoder:
        device = choose_device(settings.encode_device, DEVICE_OPTION)
        return load_text_encoder(encoder, settings.pooling, device, settings.encode_batch_size)

    about = {"encoder": encoder, "revision": revision[:REVISION], "pooling": settings.pooling}
    find_again = partial(find_sentence_encoder, modality, encoder, settings)
    return FoundEncoder(about, [revision, settings.pooling], settings.encode_part, load, find_again)


def find_picture_encoder(settings: FeatureSettings) -> FoundEncoder:
    """Find the files of the encoder of pictures.

    Raises:
        MissingDependency: the packaged encoder is not installed.
        DataError: the encoder is not a folder and cannot be fetched from the hub.
    """
    # Imported here, because it loads torch, and most commands encode nothing.
    from hellm_recbole.data.encoders import PictureEncoder, find_encoder, hash_encoder, load_picture_encoder

    revision = hash_encoder(find_encoder(settings.image_encoder))

    def load() -> PictureEncoder:
        device = choose_device(settings.encode_device, DEVICE_OPTION)
        return load_picture_encoder(settings.image_encoder, device, settings.encode_batch_size)

    about = {"encoder": settings.image_encoder, "revision": revision[:REVISION]}
    return FoundEncoder(about, [revision], settings.encode_part, load, partial(find_picture_encoder, settings))


def encode_texts(
    ids: Sequence[str],
    texts: Sequence[str],
    settings: FeatureSettings,
    cache: Path,
    *,
    progress: bool,
    found: FoundEncoder | None = None,
    where: Encoding = HERE,
) -> tuple[FeatureMatrix, Speed]:
    """Encode the texts of items as features.

    Args:
        ids: [n] item tokens.
        texts: [n] text of each item; "" for an item without text.
        settings: settings of the encoder, and the fill values for items without text.
        cache: folder for encodings.
        progress: whether to show a progress bar.
        found: the encoder; None takes the sentence encoder of the settings.
        where: where blocks of texts are encoded.

    Returns:
        Features of all items; amount and duration of encoding.

    Raises:
        DataError: no item has a text, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    own = {item: text for item, text in zip(ids, texts, strict=True) if text}
    if not own:
        raise DataError(
            "no item has a text in the chosen columns; choose other columns with --text, or give --text without a value"
        )
    found = found or find_sentence_encoder(TEXT, settings.encoder, settings)
    # Texts of similar length share a batch, so it needs little padding. The first batch needs the most memory.
    distinct = sorted(dict.fromkeys(own.values()), key=len, reverse=True)
    folder = cache / compute_hash([LAYOUT, distinct, *found.key])
    rows, speed = encode_with_cache(distinct, found, folder, progress=progress, unit="text", encoding=where)
    if len(rows) > 1 and (rows == rows[0]).all():
        raise DataError(
            f"encoder {found.about['encoder']!r} gives the same vector for all texts; pass a whole model with its "
            "tokenizer"
        )
    row_of_text = {text: row for row, text in enumerate(distinct)}
    values = rows[[row_of_text[text] for text in own.values()]]
    return _fill_missing_rows(ids, list(own), values, settings, found.about), speed


def encode_pictures(
    ids: Sequence[str],
    files: Mapping[str, Path],
    settings: FeatureSettings,
    cache: Path,
    *,
    progress: bool,
    where: Encoding = HERE,
) -> tuple[FeatureMatrix, Speed]:
    """Encode the pictures of items as features.

    Args:
        ids: [n] item tokens.
        files: item -> picture file; items without a picture are left out.
        settings: settings of the encoder, and the fill values for items without a picture.
        cache: folder for encodings.
        progress: whether to show a progress bar.
        where: where blocks of pictures are encoded.

    Returns:
        Features of all items; amount and duration of encoding.

    Raises:
        DataError: no item has a picture, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    own = {item: files[item] for item in ids if item in files}
    if not own:
        raise DataError("no item has a picture; prepare the dataset without --pictures")
    found = find_picture_encoder(settings)
    digests = {file: sha256_file(file) for file in dict.fromkeys(own.values())}
    distinct = list({digest: file for file, digest in digests.items()}.values())  # equal pictures are encoded once
    key = compute_hash([LAYOUT, [digests[file] for file in distinct], *found.key])
    rows, speed = encode_with_cache(distinct, found, cache / key, progress=progress, unit="picture", encoding=where)
    row_of_digest = {digests[file]: row for row, file in enumerate(distinct)}
    values = rows[[row_of_digest[digests[file]] for file in own.values()]]
    return _fill_missing_rows(ids, list(own), values, settings, found.about), speed


def fill_features(matrix: FeatureMatrix, ids: Sequence[str], settings: FeatureSettings, where: Path) -> FeatureMatrix:
    """Add rows for the items that a feature file leaves out: the mean of the other items' own rows, or zeros.

    Args:
        matrix: features of the file; `missing` lists the items whose rows hold fill values already.
        ids: [n] items that need a row.
        settings: settings with the fill values.
        where: path of the file, for messages.

    Returns:
        Features of all items; `matrix` itself if it has a row for each item.

    Raises:
        DataError: no item has features of its own.
    """
    described, filled = set(matrix.tokens), set(matrix.missing)
    if described.issuperset(ids):
        return matrix
    own = [item for item in ids if item in described and item not in filled]
    if not own:
        raise DataError(f"{where}: no item has features of its own; add rows, or remove the file")
    full = _fill_missing_rows(ids, own, matrix.select_items(own).values, settings, matrix.about)
    values, row_of_item = full.values, {item: row for row, item in enumerate(ids)}
    if filled_before := [item for item in ids if item in described and item in filled]:
        values[[row_of_item[item] for item in filled_before]] = matrix.select_items(filled_before).values
    return replace(full, half=matrix.half)


def _fill_missing_rows(
    ids: Sequence[str], own: Sequence[str], values: FloatArray, settings: FeatureSettings, about: Mapping[str, Any]
) -> FeatureMatrix:
    """Make a feature matrix of all items; items without features get the mean of the given rows, or zeros.

    Args:
        ids: [n] all items.
        own: [m] items with features.
        values: [m, D] features of the items of `own`.
        settings: settings with the fill values and the data type.
        about: entries for the manifest.
    """
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    fill = mean if settings.fill == "mean" else np.zeros_like(mean)
    row_of_item = {item: row for row, item in enumerate(own)}
    missing = [item for item in ids if item not in row_of_item]
    filled = np.stack([values[row_of_item[item]] if item in row_of_item else fill for item in ids])
    return FeatureMatrix(
        tokens=list(ids),
        values=filled,
        about={**about, "coverage": len(own) / len(ids), "fill": settings.fill if missing else None},
        missing=missing,
        half=settings.feature_dtype == "float16",
    )
