"""Load a causal language model, cut it to some layers, freeze it and add LoRA, so that it reads embeddings.

Hub ids, folders that `save_pretrained` wrote and GGUF files are all loaded by `transformers.AutoModelForCausalLM`. Code
that comes with a model is never run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.errors import DataError, MissingDependency, ModelError
from hellm_recbole.identity.loading import (
    ADAPTER_CONFIG,
    LOADING_ERRORS,
    collect_loading_reports,
    describe_error,
    refuse_missing_tokenizer,
    refuse_missing_weights,
)
from hellm_recbole.llm import packaged
from hellm_recbole.llm.prefix_attention import ATTENTION, Context, register_attention
from hellm_recbole.llm.quiet import silence_loading

AUTO = packaged.AUTO
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_WHOLE_MODEL = "pass the folder of a whole causal language model with its tokenizer, as save_pretrained writes it"
# Tensor names of the language model inside a model of text and pictures -> names in that language model alone
_TEXT_PART = {r"^(?:model\.)?language_model\.(?:model\.)?": "model."}


@dataclass(frozen=True)
class BackboneSettings:
    """Which language model is loaded, and which adapters are added to it; values come from the settings of a model.

    Attributes:
        llm: `auto`, a hub id, a folder, or a GGUF file.
        n_layers: number of first layers that are kept; None keeps all.
        weights: pretrained, or random (the same shape, freshly initialised).
        dtype: number type of the frozen weights.
        quantization: none, 8bit or 4bit (bitsandbytes, CUDA only).
        sampled_tokens: number of token embeddings used to measure their mean square, spread over the whole table.
        lora_rank: rank of each adapter.
        lora_alpha: alpha; adapters are scaled by alpha / rank.
        lora_dropout: dropout probability of the input of the adapters.
        lora_targets: names of the linear maps that get adapters; empty stands for the feed-forward maps.
        checkpointing: whether activations are recomputed in the backward pass.
    """

    llm: str
    n_layers: int | None
    weights: str
    dtype: torch.dtype
    quantization: str
    sampled_tokens: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: tuple[str, ...]
    checkpointing: bool


@dataclass(frozen=True)
class Source:
    """Where the files of a model are: a folder, and the name of the GGUF file in it, if the model is one."""

    folder: Path
    gguf: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def label_model(llm: str, n_layers: int | None, quantization: str) -> str:
    """Return a short name of a language model, for tables and folders.

    >>> label_model("meta-llama/Llama-2-7b-hf", None, "none"), label_model("auto", 4, "8bit")
    ('Llama-2-7b-hf', 'gemma-3-270m-q4-4L-8bit')
    """
    name = packaged.NAME if llm == AUTO else Path(llm.rstrip("/")).name.removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    parts = [name, "" if n_layers is None else f"{n_layers}L", "" if quantization == "none" else quantization]
    return "-".join(part for part in parts if part)


def find_source(llm: str) -> Source:
    """Find the files of a language model; those of a hub id are fetched unless they are in the local cache.

    Args:
        llm: `auto`, a hub id, a folder, or a GGUF file.

    Raises:
        MissingDependency: `llm` is `auto` and the packaged model is not installed.
        DataError: `llm` is neither a folder nor a file, and cannot be fetched from the hub.
    """
    if llm == AUTO:
        return Source(packaged.unpack_model())
    path = Path(llm).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return Source(path.parent, path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"--llm {llm} is a folder without config.json; pass a folder that save_pretrained wrote")
        return Source(path)
    return Source(_fetch_from_hub(llm))


def _fetch_from_hub(llm: str) -> Path:
    """Return the cached files of a hub id; fetch them if they are not in the cache.

    Raises:
        DataError: the id is wrong, or the hub does not give the files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    message = (
        f"language model {llm!r} is neither a local folder nor a GGUF file, and cannot be fetched from the Hugging "
        "Face hub. Check the name, the network and (for gated models) your login, or pass --llm with a local folder"
    )
    try:
        return Path(snapshot_download(llm, local_files_only=True, allow_patterns=_FILES))
    except HFValidationError as error:
        raise DataError(message) from error
    except LocalEntryNotFoundError:
        pass  # not in the cache yet
    try:
        return Path(snapshot_download(llm, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(message) from error


class Backbone(nn.Module):
    """A frozen decoder with LoRA that maps embeddings to states, without token embeddings and output head.

    Args:
        settings: which language model is loaded, and its adapters.
        texts: prompts whose token embeddings are kept.
        item_texts: [I + 1] texts of the items; empty if they are not read.
        item_tokens: maximum number of tokens of an item's text.
    """

    def __init__(
        self, settings: BackboneSettings, texts: Sequence[str], item_texts: Sequence[str] = (), item_tokens: int = 0
    ) -> None:
        super().__init__()
        source = find_source(settings.llm)
        with silence_loading():
            model, tokenizer = _load_with_tokenizer(settings, source)
        decoder = model.get_decoder()
        self.tokens = [tokenize_prompt(tokenizer, text) for text in texts]
        embeddings = decoder.get_input_embeddings()
        with torch.no_grad():
            words, word_index, count = tokenize_items(tokenizer, item_texts, item_tokens)
            refuse_unknown_tokens([*chain(*self.tokens), *words.tolist()], embeddings, settings.llm)
            for number, ids in enumerate(self.tokens):
                embedded = _embed_tokens(embeddings, ids)
                self.register_buffer(f"text_{number}", embedded, persistent=False)
            self.register_buffer("words", embeddings(words).float(), persistent=False)
            self.register_buffer("word_of", word_index, persistent=False)
            self.register_buffer("n_words", count, persistent=False)
            sample = torch.linspace(0, embeddings.num_embeddings - 1, settings.sampled_tokens).long()
            self.token_rms = float(embeddings(sample).float().square().mean().sqrt())
        self.dtype: torch.dtype = settings.dtype
        self.width: int = model.config.hidden_size
        self.n_layers: int = model.config.num_hidden_layers
        with silence_loading():
            self._adapted = [
                adapt_decoder(model, settings)
            ]  # in a list, so that its parameters are registered once, as those of the decoder
        self.decoder: nn.Module = decoder

    def embed_item_texts(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [M, H] token embeddings of the texts of [N] items, text after text, and the [N] text lengths."""
        count: Tensor = self.n_words[items]  # type: ignore[index]
        word_index: Tensor = self.word_of[items]  # type: ignore[index]
        mask = torch.arange(word_index.shape[1], device=items.device) < count[:, None]
        words: Tensor = self.words[word_index[mask]]  # type: ignore[index]
        return words, count

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter into a folder, in the format of PEFT."""
        with silence_loading():
            self._adapted[0].save_pretrained(folder, save_embedding_layers=False)

    def get_prompt(self, number: int) -> Tensor:
        """Return the [P, H] token embeddings of prompt `number` (its index in `texts`)."""
        embedded: Tensor = getattr(self, f"text_{number}")
        return embedded

    def compute_states(self, embedded: Tensor, context: Context) -> Tensor:
        """Compute the [N, H] last hidden states of packed sequences.

        Args:
            embedded: [N, H] token embeddings.
            context: packed batch, rotary positions, prefix and prompt.
        """
        out = self.decoder(
            inputs_embeds=embedded.to(self.dtype)[None],
            position_ids=context.position[None],
            use_cache=False,
            context=context,
        )
        states: Tensor = out.last_hidden_state
        return states[0]


@dataclass(frozen=True)
class Weights:
    """Size of a language model.

    Attributes:
        frozen: number of weights in the layers and the last normalisation, without token embeddings and output head.
        width: hidden width.
    """

    frozen: int
    width: int


def count_weights(settings: BackboneSettings) -> tuple[Weights, int]:
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
        _keep_layers(config, settings)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    decoder = model.get_decoder()
    n_embeddings = sum(value.numel() for value in decoder.get_input_embeddings().parameters())
    frozen = sum(value.numel() for value in decoder.parameters()) - n_embeddings
    return Weights(frozen, config.hidden_size), config.num_hidden_layers


def _embed_tokens(embeddings: nn.Module, ids: Sequence[int]) -> Tensor:
    """Return the [P, H] embeddings of P token ids, which may be none."""
    if not ids:
        return torch.zeros(0, int(embeddings.embedding_dim))  # type: ignore[arg-type]
    embedded: Tensor = embeddings(torch.tensor([ids], dtype=torch.int64))[0].float()
    return embedded


def refuse_unknown_tokens(used: Sequence[int], embeddings: Any, llm: str) -> None:
    """Refuse token ids for which the model has no embedding.

    Args:
        used: token ids of all texts that are read.
        embeddings: token embeddings of the model.
        llm: name of the model, for the message.

    Raises:
        DataError: a token id is too large.
    """
    if max(used, default=0) >= embeddings.num_embeddings:
        raise DataError(
            f"language model {llm!r} has {embeddings.num_embeddings} token embeddings, but its tokenizer gives token "
            f"{max(used)}; pass a model with the tokenizer that it was trained with"
        )


def tokenize_prompt(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a prompt, with the tokenizer's own special tokens; no token for an empty prompt."""
    return list(tokenizer(text, add_special_tokens=True)["input_ids"]) if text else []


def tokenize_items(tokenizer: Any, texts: Sequence[str], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokenize the texts of items.

    Args:
        tokenizer: tokenizer of the language model.
        texts: [I + 1] texts; an empty one has no token.
        most: maximum number of tokens of a text; the rest is cut off.

    Returns:
        [V] distinct token ids; [I + 1, most] index of each token among these, 0 after the end of a text; and the
        [I + 1] numbers of tokens.
    """
    found = [list(tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"])[:most] for text in texts]
    found = [ids if text else [] for ids, text in zip(found, texts, strict=True)]
    distinct = sorted({token for ids in found for token in ids})
    index_of = {token: index for index, token in enumerate(distinct)}
    indices = torch.zeros(len(found), most, dtype=torch.int64)
    for item, ids in enumerate(found):
        indices[item, : len(ids)] = torch.tensor([index_of[token] for token in ids], dtype=torch.int64)
    return torch.tensor(distinct, dtype=torch.int64), indices, torch.tensor([len(ids) for ids in found])


@contextmanager
def refuse_unloadable(settings: BackboneSettings, source: Source) -> Iterator[None]:
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


def _load_with_tokenizer(settings: BackboneSettings, source: Source) -> tuple[Any, Any]:
    """Load the language model, with its output head, and its tokenizer."""
    register_attention()
    with refuse_unloadable(settings, source):
        config, tokenizer, options = load_config(settings, source)
        model = load_model(config, settings, source, options)
    return model, tokenizer


def load_config(settings: BackboneSettings, source: Source) -> tuple[Any, Any, dict[str, Any]]:
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
    _keep_layers(config, settings)
    if getattr(config, "attention_dropout", 0.0):
        config.attention_dropout = 0.0  # frozen layers need no regularisation
    return config, tokenizer, options


def load_model(
    config: Any, settings: BackboneSettings, source: Source, options: dict[str, Any], attention: str | None = ATTENTION
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
    """Yield the folder, or a temporary folder of links to its files without those of an adapter.

    transformers would load such an adapter by itself, and then report missing tensors of the adapter only.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as links:
        for path in folder.resolve().iterdir():
            if not path.name.startswith("adapter_"):
                (Path(links) / path.name).symlink_to(path)
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


def _keep_layers(config: Any, settings: BackboneSettings) -> None:
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


def make_quantization_config(settings: BackboneSettings) -> Any:
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


def adapt_decoder(model: Any, settings: BackboneSettings) -> Any:
    """Freeze a causal language model, remove its token embeddings and output head, and add LoRA.

    Args:
        model: causal language model; it is changed in place.
        settings: settings of LoRA and of checkpointing.

    Returns:
        PEFT's model that wraps it.

    Raises:
        ModelError: a linear map of `lora_targets` does not exist.
    """
    decoder = model.get_decoder()
    model.requires_grad_(False)
    decoder.set_input_embeddings(nn.Identity())
    model.set_output_embeddings(nn.Identity())
    adapted = _add_lora(model, settings)
    if settings.checkpointing:
        enable = getattr(decoder, "activation_checkpointing_enable", None) or decoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return adapted


def _add_lora(model: Any, settings: BackboneSettings) -> Any:
    """Add LoRA adapters to the linear maps named in the settings.

    Raises:
        ModelError: there is no linear map of such a name.
    """
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, part in model.named_modules() if "Linear" in type(part).__name__}
    targets = settings.lora_targets or tuple(name for name in _FEED_FORWARD if name in names)
    missing = sorted(set(targets) - names)
    if not names:
        raise ModelError(
            f"lora_targets: {settings.llm} ({type(model).__name__}) has no linear maps to which LoRA could be added; "
            "pass --llm with another model, for example a Llama, Mistral, Qwen or Gemma"
        )
    if missing or not targets:
        raise ModelError(
            f"lora_targets: {settings.llm} has no linear map named {', '.join(missing) or ' or '.join(_FEED_FORWARD)}; "
            f"set lora_targets to some of {', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    config.base_model_name_or_path = packaged.HUB_ID if settings.llm == AUTO else settings.llm
    return adapted
