"""Check of the language model of a run, before anything is trained.

Most faults are visible in the configuration, the tokenizer and the headers of the weight files. To find the others, a
model of the same architecture with two layers of zeros reads a few tokens. The weights themselves are only checked for
NaN and infinity, one tensor at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.errors import DataError, HellmError, ModelError
from hellm_recbole.identity.loading import describe_error, is_finite
from hellm_recbole.identity.weights import is_cut_off, is_head, list_weight_files
from hellm_recbole.llm.adapters import adapt_decoder
from hellm_recbole.llm.graph_prefix import GraphPrefix
from hellm_recbole.llm.loading import load_config, load_model, make_quantization_config, refuse_unloadable
from hellm_recbole.llm.packing import PackedBatch
from hellm_recbole.llm.prefix_attention import ATTENTION, Context, register_attention
from hellm_recbole.llm.settings import NO_BACKBONE, RANDOM, BackboneSettings
from hellm_recbole.llm.source import Source, find_source
from hellm_recbole.llm.texts import refuse_unknown_tokens, tokenize_items, tokenize_prompt
from hellm_recbole.models.llm_settings import ReaderSettings, refuse_contradictions
from hellm_recbole.system.quiet import silence_loading

TRIED_LAYERS = 2
_SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}  # kinds of layers that `prefix_attention` computes
_SUGGESTION = "pass --llm with a causal decoder such as Llama, Mistral, Qwen2, Qwen3 or Gemma 3"


class LanguageModelCheck:
    """Check of the language models of runs. Weights that several runs share are read once.

    Args:
        trains_here: whether this process trains the runs, so that its devices are checked. False if the workers of a
            cluster train them.
    """

    def __init__(self, *, trains_here: bool = True) -> None:
        self._trains_here = trains_here
        self._finite: set[tuple[Source, int | None]] = set()
        self._configs: dict[tuple[Source, int | None], tuple[Any, Any, dict[str, Any]]] = {}

    def check(self, settings: ReaderSettings, item_texts: Sequence[str]) -> None:
        """Refuse a language model that a run could not load or train.

        Args:
            settings: settings of the run's model.
            item_texts: [I + 1] texts of the dataset's items, or an empty sequence.

        Raises:
            DataError: the model is not available, is incomplete, or does not fit its tokenizer.
            ModelError: the model has too few layers or an architecture that is not supported.
            MissingDependency: a package that the model needs is not installed.
        """
        refuse_contradictions(settings, item_texts)
        if settings.llm_weights == NO_BACKBONE:
            return
        backbone = settings.backbone()
        if self._trains_here and backbone.quantization != "none":
            make_quantization_config(backbone)
        # The files are the same without quantization, and no device is needed to read them.
        backbone = replace(backbone, quantization="none")
        source = find_source(backbone.llm)
        register_attention()
        with silence_loading(), refuse_unloadable(backbone, source):
            key = (source, backbone.n_layers)
            if key not in self._configs:  # a large tokenizer takes seconds to read
                self._configs[key] = load_config(backbone, source)
            config, tokenizer, options = self._configs[key]
            _refuse_unsupported_layers(config, backbone)
            n_positions = _check_tokens(config, tokenizer, settings, item_texts)
            _try_forward(config, settings, n_positions)
            if settings.llm_weights != RANDOM and source.gguf is None:
                load_model(copy.deepcopy(config), backbone, source, {**options, "device_map": "meta"})
                self._refuse_not_finite(backbone, source)

    def _refuse_not_finite(self, settings: BackboneSettings, source: Source) -> None:
        """Refuse weights with NaN or infinity.

        Raises:
            DataError: a tensor is not finite; the message names the first one.
        """
        if (source, settings.n_layers) in self._finite:
            return
        broken = [
            name
            for path in list_weight_files(source.folder)
            for name, value in _read_tensors(path)
            if not is_cut_off(name, settings.n_layers) and not is_head(name) and not is_finite(value)
        ]
        if broken:
            raise DataError(
                f"language model {settings.llm!r} ({source.folder}) has NaN or infinity in {len(broken)} tensors, "
                f"for example {broken[0]}; download the model again"
            )
        self._finite.add((source, settings.n_layers))


def _read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the value of each tensor in a weight file, one at a time."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():
                yield name, stored.get_tensor(name)
    else:
        from transformers.modeling_utils import load_state_dict

        content: Any = load_state_dict(path, map_location="cpu", weights_only=True)
        yield from ((name, value) for name, value in content.items() if isinstance(value, Tensor))


def _refuse_unsupported_layers(config: Any, settings: BackboneSettings) -> None:
    """Refuse kinds of layers that cannot read packed batches.

    Raises:
        ModelError: the model has such a layer.
    """
    kinds = sorted({*(getattr(config, "layer_types", None) or ())} - _SUPPORTED_LAYERS)
    if kinds:
        raise ModelError(
            f"language model {settings.llm!r} has layers of kind {kinds[0]}, which cannot read several sequences "
            f"packed into one; {_SUGGESTION}"
        )


def _check_tokens(config: Any, tokenizer: Any, settings: ReaderSettings, item_texts: Sequence[str]) -> int:
    """Refuse tokens without an embedding, and return the number of positions of the longest possible sequence.

    Raises:
        DataError: the tokenizer gives a token that has no embedding.
    """
    prompts = [tokenize_prompt(tokenizer, text) for text in settings.prompts]
    inner = [tokenize_prompt(tokenizer, text, special=False) for text in settings.inner_texts]
    texts = item_texts if settings.text_tokens else ()
    item_tokens, _, counts = tokenize_items(tokenizer, texts, settings.text_tokens)
    embeddings = _build_without_weights(config).get_input_embeddings()
    refuse_unknown_tokens([*chain(*prompts, *inner), *item_tokens.tolist()], embeddings, settings.llm)
    separator = sum(map(len, inner[1:]))
    longest = (int(counts.max()) if len(counts) else 0) + 1 + separator  # of an item: text, token and separator
    around = settings.prefix_length + sum(map(len, (*prompts[:2], *inner[:1])))
    return around + (settings.user_model is not None) + settings.max_history * longest


def _build_without_weights(config: Any) -> Any:
    """Build the model of a configuration on the meta device: shapes without values."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=ATTENTION)


def _try_forward(config: Any, settings: ReaderSettings, n_positions: int) -> None:
    """Run a few tokens through two layers of zeros, in the same way as a run does with all layers.

    Args:
        config: configuration of the language model.
        settings: settings of the run's model.
        n_positions: number of positions of the longest possible sequence.

    Raises:
        ModelError: the architecture is not supported; the message says why.
    """
    small, backbone = copy.deepcopy(config), settings.backbone()
    small.num_hidden_layers = min(TRIED_LAYERS, config.num_hidden_layers)
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[: small.num_hidden_layers]
    try:
        model = _build_without_weights(small)
        decoder = model.get_decoder()
        adapt_decoder(model, backbone)
        _fill_with_zeros(decoder)
        width, n_layers = int(model.config.hidden_size), int(model.config.num_hidden_layers)
        prefix = None
        if settings.prefix_length:
            prefix = GraphPrefix(n_layers, settings.prefix_length, width, 0, 1, 0.0, False, settings.prefix_eps)
        context = Context(
            PackedBatch.from_mask(torch.ones(1, 2, dtype=torch.bool)), torch.arange(2), prefix, record=True
        )
        _run_decoder(decoder, width, context)
    except HellmError:
        raise
    except Exception as error:  # an unknown architecture can raise anything
        raise ModelError(_describe_failure(error, settings, config)) from error
    if len(context.prompt) != n_layers:
        raise ModelError(
            f"language model {settings.llm!r} ({config.model_type}) computes attention without the registry of "
            f"transformers, so the sequences of a packed batch would attend to each other; {_SUGGESTION}"
        )
    try:
        last = Context(
            PackedBatch.from_mask(torch.ones(1, 1, dtype=torch.bool)), torch.tensor([n_positions - 1]), prefix
        )
        _run_decoder(decoder, width, last)
    except (IndexError, RuntimeError) as error:
        raise ModelError(
            f"language model {settings.llm!r} has fewer positions than the {n_positions} that prefix, prompt and "
            f"max_history = {settings.max_history} items may need; lower max_history or item_text_tokens"
        ) from error


def _fill_with_zeros(module: nn.Module) -> None:
    """Move a model from the meta device to the CPU, with zeros as values."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for value in chain(module.parameters(), module.buffers()):
            value.zero_()


def _run_decoder(decoder: Any, width: int, context: Context) -> None:
    """Run the decoder on embeddings of zeros, at the positions of the context."""
    n = len(context.position)
    dtype = next(decoder.parameters()).dtype
    decoder(
        inputs_embeds=torch.zeros(1, n, width, dtype=dtype),
        position_ids=context.position[None],
        use_cache=False,
        context=context,
    )


def _describe_failure(error: Exception, settings: ReaderSettings, config: Any) -> str:
    """Describe why the architecture is not supported."""
    who = f"language model {settings.llm!r} ({config.model_type})"
    if settings.prefix_length and any(name in str(error) for name in ("k_proj", "v_proj")):
        return (
            f"{who} has no k_proj and v_proj in its attention, which the prefix needs; set prefix_length=0, or "
            f"{_SUGGESTION}"
        )
    return f"{who} cannot be read as a decoder ({type(error).__name__}: {describe_error(error)}); {_SUGGESTION}"
