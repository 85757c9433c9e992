"""Load a causal language model and its tokenizer, cut to some layers, and quantized if the settings say so.

Hub ids, folders that `save_pretrained` wrote and GGUF files are all loaded by `transformers.AutoModelForCausalLM`. Code
that comes with a model is never run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.errors import DataError, MissingDependency, ModelError
from hellm_recbole.identity.loading import (
    ADAPTER_CONFIG,
    LOADING_ERRORS,
    collect_loading_reports,
    describe_error,
    refuse_missing_tokenizer,
    refuse_missing_weights,
)
from hellm_recbole.llm.prefix_attention import ATTENTION, register_attention
from hellm_recbole.llm.settings import CheckpointSettings
from hellm_recbole.llm.source import Source, find_source

_WHOLE_MODEL = "pass the folder of a whole causal language model with its tokenizer, as save_pretrained writes it"
# Tensor names of the language model inside a model of text and pictures -> names in that language model alone
_TEXT_PART = {r"^(?:model\.)?language_model\.(?:model\.)?": "model."}


@contextmanager
def refuse_unloadable(settings: CheckpointSettings, source: Source) -> Iterator[None]:
    """Turn the errors of libraries in the block, about files that they cannot load, into one sentence.

    Args:
        settings: which language model is loaded.
        source: its files.

    Raises:
        DataError: something in the block could not be loaded.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # not an error of the files
    except LOADING_ERRORS as error:
        reason = describe_error(error)
        raise DataError(
            f"language model {settings.llm!r} cannot be loaded from {source.folder} ({reason}); {_WHOLE_MODEL}"
        ) from error


def load_with_tokenizer(settings: CheckpointSettings, source: Source) -> tuple[Any, Any]:
    """Load the language model, with its output head, and its tokenizer."""
    register_attention()
    with refuse_unloadable(settings, source):
        config, tokenizer, options = load_config(settings, source)
        model = load_model(config, settings, source, options)
    return model, tokenizer


def load_config(settings: CheckpointSettings, source: Source) -> tuple[Any, Any, dict[str, Any]]:
    """Load the configuration of a language model, cut to the kept layers, and its tokenizer; no weights are read.

    Args:
        settings: which language model is loaded.
        source: its files.

    Returns:
        Configuration, tokenizer, and keyword arguments for `load_model`.

    Raises:
        DataError: there is no tokenizer.
        ModelError: the model has fewer layers than `n_layers`.
    """
    from transformers import AutoConfig, AutoTokenizer

    options: dict[str, Any] = {**source.options, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source.folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(source.folder, **options)
    if source.gguf is None:
        refuse_missing_tokenizer(tokenizer, source.folder, f"language model {settings.llm!r}")
    if getattr(config, "text_config", None):
        config = config.text_config
        options = {**options, "key_mapping": _TEXT_PART}
    keep_layers(config, settings)
    if getattr(config, "attention_dropout", 0.0):
        config.attention_dropout = 0.0  # frozen layers need no regularisation
    return config, tokenizer, options


def load_model(
    config: Any,
    settings: CheckpointSettings,
    source: Source,
    options: dict[str, Any],
    attention: str | None = ATTENTION,
) -> Any:
    """Load the language model with pretrained or random weights.

    Args:
        config: configuration from `load_config`.
        settings: which language model is loaded.
        source: its files.
        options: keyword arguments from `load_config`. With `device_map="meta"`, names and shapes of tensors are checked
            and none is read.
        attention: name of the attention implementation; None leaves it to transformers.

    Raises:
        DataError: a tensor of the decoder is missing, or not finite.
    """
    from transformers import AutoModelForCausalLM

    if settings.weights == "random":
        config._attn_implementation = attention
        return AutoModelForCausalLM.from_config(config, dtype=settings.dtype)
    if settings.quantization != "none":
        options["quantization_config"] = make_quantization_config(settings)
        options["device_map"] = {"": torch.cuda.current_device()}
    with collect_loading_reports() as reports, _hide_adapter(source.folder) as folder:
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=settings.dtype, attn_implementation=attention, **options
        )
    if folder != source.folder:
        model = _merge_adapter(model, source.folder)
    decoder = model.get_decoder()
    inside = next(f"{name}." if name else "" for name, part in model.named_modules() if part is decoder)
    who = f"language model {settings.llm!r} ({source.folder})"
    refuse_missing_weights(reports, who, _WHOLE_MODEL, lambda model, name: name.startswith(inside))  # not the head
    return model


@contextmanager
def _hide_adapter(folder: Path) -> Iterator[Path]:
    """Yield the folder, or a temporary folder of links to its files (or copies) without those of an adapter.

    transformers would load such an adapter by itself, and then report missing tensors of the adapter only.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as links:
        for path in folder.resolve().iterdir():
            if not path.name.startswith("adapter_"):
                try:
                    (Path(links) / path.name).symlink_to(path)
                except OSError:  # Windows lets only some users make links
                    shutil.copy(path, Path(links) / path.name)
        yield Path(links)


def _merge_adapter(model: Any, folder: Path) -> Any:
    """Add the adapter in a folder to the weights of the model; otherwise, the adapter of the run would replace it.

    Raises:
        DataError: tensors of the adapter are missing.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    adapted = PeftModel.from_pretrained(model, folder)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    missing = sorted(set(expected) - set(load_peft_weights(str(folder), device="cpu")))
    if missing:
        raise DataError(
            f"the adapter in {folder} lacks {len(missing)} of {len(expected)} tensors, for example {missing[0]}; "
            f"remove {ADAPTER_CONFIG} from that folder, or pass a complete adapter"
        )
    return adapted.merge_and_unload()


def keep_layers(config: Any, settings: CheckpointSettings) -> None:
    """Cut a configuration to its first `n_layers` layers.

    Raises:
        ModelError: it has fewer layers.
    """
    if settings.n_layers is None:
        return
    if settings.n_layers > config.num_hidden_layers:
        raise ModelError(
            f"--llm-layers {settings.n_layers}: {settings.llm} has {config.num_hidden_layers} layers; give fewer"
        )
    config.num_hidden_layers = settings.n_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: settings.n_layers]


def make_quantization_config(settings: CheckpointSettings) -> Any:
    """Make the configuration with which transformers quantises the weights.

    Raises:
        ModelError: there is no CUDA device.
        MissingDependency: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not torch.cuda.is_available():
        raise ModelError(
            f"quantization {settings.quantization} needs a CUDA device, and there is none; set quantization to none"
        )
    if not is_bitsandbytes_available():
        raise MissingDependency("quantization needs bitsandbytes; pip install 'hellm-recbole[quantization]'")
    if settings.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=settings.dtype)


@dataclass(frozen=True)
class Weights:
    """Size of a language model.

    Attributes:
        frozen: number of weights in the layers and the last normalisation, without token embeddings and output head.
        width: hidden width.
    """

    frozen: int
    width: int


def count_weights(settings: CheckpointSettings) -> tuple[Weights, int]:
    """Compute the size and the number of layers of a language model, from its configuration alone.

    Raises:
        DataError: the model cannot be found, or its configuration cannot be loaded.
        ModelError: the model has fewer layers than `n_layers`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = find_source(settings.llm)
    with refuse_unloadable(settings, source):
        config = AutoConfig.from_pretrained(source.folder, **source.options, trust_remote_code=False)
        config = getattr(config, "text_config", None) or config
        keep_layers(config, settings)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    decoder = model.get_decoder()
    n_embeddings = sum(value.numel() for value in decoder.get_input_embeddings().parameters())
    frozen = sum(value.numel() for value in decoder.parameters()) - n_embeddings
    return Weights(frozen, config.hidden_size), config.num_hidden_layers
