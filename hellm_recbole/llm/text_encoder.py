"""Encode item texts with a causal language model: the mean of a text's token states after one of its blocks.

Special tokens that the tokenizer adds, such as the one for the beginning of a text, are read but left out of the mean:
their states are large and nearly the same in all texts. States in the middle of the model are the default, because the
last ones serve the prediction of the next token. They are those between two blocks, without the last normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hellm_recbole.data.encoders import PACKAGED, TextEncoder, find_encoder
from hellm_recbole.data.encoding_blocks import FoundEncoder
from hellm_recbole.data.encoding_cache import compute_hash
from hellm_recbole.data.features import (
    DEVICE_OPTION,
    REVISION,
    FeatureSettings,
    find_sentence_encoder,
)
from hellm_recbole.errors import DataError, ModelError, SettingsError, shorten
from hellm_recbole.identity.weights import digest_language_model, digest_settings
from hellm_recbole.llm import packaged
from hellm_recbole.llm.loading import keep_layers, load_config, load_model, refuse_unloadable
from hellm_recbole.llm.origin import describe_origin
from hellm_recbole.llm.settings import RANDOM, CheckpointSettings
from hellm_recbole.llm.source import Source, find_source
from hellm_recbole.llm.texts import refuse_unknown_tokens
from hellm_recbole.system.quiet import silence_loading
from hellm_recbole.system.runtime import choose_device
from hellm_recbole.types import FloatArray

PACKAGED_MODEL = f"packaged:{packaged.NAME}"  # name of the packaged language model among the encoders
LANGUAGE_MODEL = "_llm"  # end of the names of modalities that only causal language models may make
_SENTENCE_TRANSFORMER = "modules.json"  # a folder with this file says itself how token states become one vector


def find_text_encoder(modality: str, encoder: str, settings: FeatureSettings) -> FoundEncoder:
    """Find the files of a text encoder: a causal language model, or an encoder of sentences.

    Args:
        modality: name of the modality that its encodings become.
        encoder: `packaged:...`, a hub id, a folder or a GGUF file.
        settings: settings of the encoders.

    Raises:
        DataError: the encoder cannot be found or read, or its kind does not fit the modality.
        ModelError: it has fewer blocks or positions than the settings ask for.
        SettingsError: the setting `pooling` is not for language models.
        MissingDependency: a packaged encoder is not installed.
    """
    source = find_language_model(encoder)
    if source is not None:
        found = _describe_language_model(encoder, source, settings)
        return replace(found, find_again=partial(find_text_encoder, modality, encoder, settings))
    if modality.endswith(LANGUAGE_MODEL):
        name = modality.removesuffix(LANGUAGE_MODEL)
        raise DataError(
            f"--encoder {modality}={encoder}: {_describe_kind(encoder)}; a modality whose name ends in "
            f"{LANGUAGE_MODEL} is made by a causal language model, so name one, or call the modality {name}_2"
        )
    return find_sentence_encoder(modality, encoder, settings)


def find_language_model(encoder: str) -> Source | None:
    """Find the files of an encoder if it is a causal language model; None if it is another one.

    A folder of sentence-transformers is no language model here, whatever it is made from: it has its own pooling.

    Raises:
        DataError: the encoder cannot be found.
        MissingDependency: a packaged encoder is not installed.
    """
    if encoder in (packaged.AUTO, PACKAGED_MODEL):
        return find_source(packaged.AUTO)
    if encoder.startswith("packaged:") and encoder not in PACKAGED:
        known = ", ".join([*PACKAGED, PACKAGED_MODEL])
        raise DataError(
            f"encoder {encoder} is not a packaged one; choose {known}, a hub id, a local folder or a GGUF file"
        )
    path = Path(encoder).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return Source(path.parent, path.name)
    folder = find_encoder(encoder)
    return Source(folder) if _is_causal(folder) else None


def _read_kind(folder: Path) -> tuple[list[str], bool] | None:
    """Read from config.json which classes a model is of, and whether it has an encoder; None without such a file."""
    from transformers import PretrainedConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        content, _ = PretrainedConfig.get_config_dict(folder)
    except (OSError, ValueError):  # reported by whoever loads the model
        return None
    return list(content.get("architectures") or []), bool(content.get("is_encoder_decoder"))


def _is_causal(folder: Path) -> bool:
    """Return whether a folder holds a causal language model, and not an encoder of sentences that was made from one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = None if (folder / _SENTENCE_TRANSFORMER).is_file() else _read_kind(folder)
    return kind is not None and not kind[1] and not {*kind[0]}.isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def _describe_kind(encoder: str) -> str:
    """Describe what an encoder is that is no causal language model."""
    folder = find_encoder(encoder)
    kind = _read_kind(folder)
    if (folder / _SENTENCE_TRANSFORMER).is_file():
        return f"this is an encoder of sentences ({_SENTENCE_TRANSFORMER} in {folder})"
    if kind is None:
        return f"{folder} has no config.json that can be read"
    named = f" ({', '.join(kind[0])})" if kind[0] else ""
    return f"this is an encoder-decoder model{named}" if kind[1] else f"this is no causal language model{named}"


def _describe_language_model(encoder: str, source: Source, settings: FeatureSettings) -> FoundEncoder:
    """Describe a causal language model as an encoder; its weights are hashed, but not loaded.

    Raises:
        DataError: its configuration or tokenizer cannot be read.
        ModelError: it has fewer blocks or positions than the settings ask for.
        SettingsError: the setting `pooling` is not for language models.
    """
    if settings.pooling not in ("auto", "mean"):
        raise SettingsError(
            f"--pooling {settings.pooling} is for encoders of sentences, and encoder {encoder} is a causal language "
            "model, whose token states are averaged; leave it out"
        )
    llm = packaged.AUTO if encoder == PACKAGED_MODEL else encoder
    dtype = getattr(torch, settings.encoder_dtype)
    checkpoint = CheckpointSettings(llm, None, settings.encoder_weights, dtype, quantization="none")
    with silence_loading(), refuse_unloadable(checkpoint, source):
        config, tokenizer, options = load_config(checkpoint, source)  # a GGUF file takes half a minute, so only once
    layer = _choose_layer(encoder, config, tokenizer, settings)
    checkpoint = replace(checkpoint, n_layers=layer)
    keep_layers(config, checkpoint)
    weights = None
    if settings.encoder_weights != RANDOM:
        weights = digest_language_model(source.folder, source.gguf, layer)
    files = digest_settings(source.folder) if source.gguf is None else digest_language_model(source.folder, source.gguf)
    origin = None if weights is None else describe_origin(llm)
    about = {
        "encoder": PACKAGED_MODEL if llm == packaged.AUTO else encoder,
        "revision": compute_hash([weights, files])[:REVISION],
        "pooling": "mean",
        "layer": layer,
        "max_tokens": settings.encoder_tokens,
        "weights_dtype": settings.encoder_dtype,
        "weights": settings.describe_weights(),
        **({} if origin is None else {"origin": origin}),
    }
    key = [weights, files, layer, settings.encoder_tokens, settings.encoder_dtype, settings.describe_weights()]

    def load() -> TextEncoder:
        device = choose_device(settings.encode_device, DEVICE_OPTION)
        with silence_loading(), refuse_unloadable(checkpoint, source), torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.encoder_seed)
            model = load_model(config, checkpoint, source, options, attention=None)
        return _Encoder(model.get_decoder().to(device).eval(), tokenizer, checkpoint, settings).encode

    return FoundEncoder(about, key, settings.encoder_part, load)


def _choose_layer(encoder: str, config: Any, tokenizer: Any, settings: FeatureSettings) -> int:
    """Return the number of the block after which states are averaged: that of the settings, or the middle one.

    Raises:
        ModelError: the model has fewer blocks or positions than the settings ask for.
    """
    n_blocks = int(config.num_hidden_layers)
    layer = (n_blocks + 1) // 2 if settings.encoder_layer is None else settings.encoder_layer
    if layer > n_blocks:
        raise ModelError(f"--encoder-layer {layer}: {encoder} has {n_blocks} blocks; give at most {n_blocks}")
    n_positions = getattr(config, "max_position_embeddings", None)
    n_read = settings.encoder_tokens + tokenizer.num_special_tokens_to_add()
    if n_positions is not None and n_read > n_positions:
        raise ModelError(
            f"--encoder-tokens {settings.encoder_tokens}: {encoder} reads at most {n_positions} tokens, special tokens "
            "included; give fewer"
        )
    return layer


class _Encoder:
    """A causal language model that encodes texts.

    Args:
        decoder: the model without its output head, cut to the blocks that are run.
        tokenizer: its tokenizer.
        checkpoint: which model it is.
        settings: number of tokens and batch size.
    """

    def __init__(self, decoder: nn.Module, tokenizer: Any, checkpoint: CheckpointSettings, settings: FeatureSettings):
        self._decoder: Any = decoder
        self._tokenizer = tokenizer
        self._llm = checkpoint.llm
        self._batch_size = settings.encode_batch_size
        self._n_tokens = settings.encoder_tokens + tokenizer.num_special_tokens_to_add()
        tokenizer.truncation_side = "right"
        self._states: list[Tensor] = []
        blocks = [
            part for part in decoder.modules() if isinstance(part, nn.ModuleList) and len(part) == checkpoint.n_layers
        ]
        if not blocks:
            raise ModelError(
                f"language model {checkpoint.llm!r} ({type(decoder).__name__}) has no list of blocks; choose a causal "
                "decoder such as Llama, Mistral, Qwen2, Qwen3 or Gemma 3"
            )
        blocks[0][-1].register_forward_hook(self._keep_states)

    def _keep_states(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the [B, T, H] states after the last block, before the normalisation that follows it."""
        self._states = [output[0] if isinstance(output, tuple) else output]

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Encode n texts as [n, H] float32."""
        tokens, counted = self._tokenize(texts)
        embeddings = self._decoder.get_input_embeddings()
        refuse_unknown_tokens([max(ids) for ids in tokens], embeddings, self._llm)
        order = sorted(range(len(texts)), key=lambda text: len(tokens[text]), reverse=True)
        parts = []
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            parts.append(self._encode_batch([tokens[text] for text in batch], [counted[text] for text in batch]))
        rows = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        rows[order] = np.concatenate(parts)
        return rows

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[bool]]]:
        """Tokenize texts.

        Returns:
            For each text, its token ids with special tokens, and whether each of them is counted in the mean.

        Raises:
            DataError: a text has no token.
        """
        found = self._tokenizer(
            list(texts), truncation=True, max_length=self._n_tokens, return_special_tokens_mask=True, verbose=False
        )
        counted = [[not special for special in mask] for mask in found["special_tokens_mask"]]
        for text, mask in zip(texts, counted, strict=True):
            if not any(mask):
                raise DataError(
                    f"the tokenizer of language model {self._llm!r} finds no token in the item text "
                    f"{shorten(repr(text))}; give such items an empty text"
                )
        return found["input_ids"], counted

    @torch.inference_mode()
    def _encode_batch(self, tokens: Sequence[Sequence[int]], counted: Sequence[Sequence[bool]]) -> FloatArray:
        """Compute the [B, H] means of the counted token states of B texts."""
        device = next(self._decoder.parameters()).device
        ids = _pad([torch.tensor(row) for row in tokens]).to(device)
        mask = _pad([torch.ones(len(row), dtype=torch.int64) for row in tokens]).to(device)
        chosen = _pad([torch.tensor(row) for row in counted]).to(device)
        self._decoder(input_ids=ids, attention_mask=mask, use_cache=False)
        states = self._states.pop().float()  # [B, T, H]
        total = torch.where(chosen.unsqueeze(2), states, 0.0).sum(1)
        means: FloatArray = (total / chosen.sum(1, keepdim=True)).cpu().numpy()
        return means


def _pad(rows: list[Tensor]) -> Tensor:
    """Stack rows of different lengths, with zeros at the right: [B, T]."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
