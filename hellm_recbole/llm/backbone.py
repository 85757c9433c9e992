"""The language model as a module that maps embeddings to states: a frozen decoder with LoRA, and embedded prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from hellm_recbole.llm.adapters import adapt_decoder
from hellm_recbole.llm.loading import load_with_tokenizer
from hellm_recbole.llm.prefix_attention import Context
from hellm_recbole.llm.settings import BackboneSettings
from hellm_recbole.llm.source import find_source
from hellm_recbole.llm.texts import embed_tokens, refuse_unknown_tokens, tokenize_items, tokenize_prompt
from hellm_recbole.system.quiet import silence_loading


class Backbone(nn.Module):
    """A frozen decoder with LoRA that maps embeddings to states, without token embeddings and output head.

    Args:
        settings: which language model is loaded, and its adapters.
        texts: prompts whose token embeddings are kept.
        item_texts: [I + 1] texts of the items; empty if they are not read.
        item_tokens: maximum number of tokens of an item's text.
        inner_texts: texts inside a prompt, which get no special tokens; they are numbered after `texts`.
    """

    def __init__(
        self,
        settings: BackboneSettings,
        texts: Sequence[str],
        item_texts: Sequence[str] = (),
        item_tokens: int = 0,
        inner_texts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        source = find_source(settings.llm)
        with silence_loading():
            model, tokenizer = load_with_tokenizer(settings, source)
        decoder = model.get_decoder()
        self.tokens = [tokenize_prompt(tokenizer, text) for text in texts]
        self.tokens += [tokenize_prompt(tokenizer, text, special=False) for text in inner_texts]
        embeddings = decoder.get_input_embeddings()
        with torch.no_grad():
            words, word_index, count = tokenize_items(tokenizer, item_texts, item_tokens)
            refuse_unknown_tokens([*chain(*self.tokens), *words.tolist()], embeddings, settings.llm)
            for number, ids in enumerate(self.tokens):
                embedded = embed_tokens(embeddings, ids)
                self.register_buffer(f"text_{number}", embedded, persistent=False)
            self.register_buffer("words", embeddings(words).float(), persistent=False)
            self.register_buffer("word_of", word_index, persistent=False)
            self.register_buffer("n_words", count, persistent=False)
            sample = torch.linspace(0, embeddings.num_embeddings - 1, settings.sampled_tokens).long()
            self.token_rms = float(embeddings(sample).float().square().mean().sqrt())
        self.residual_dtype: torch.dtype = settings.residual_dtype
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
        """Return the [P, H] token embeddings of prompt `number` (its index in `texts`, then `inner_texts`)."""
        embedded: Tensor = getattr(self, f"text_{number}")
        return embedded

    def compute_states(self, embedded: Tensor, context: Context) -> Tensor:
        """Compute the [N, H] last hidden states of packed sequences.

        Args:
            embedded: [N, H] token embeddings.
            context: packed batch, rotary positions, prefix and prompt.
        """
        out = self.decoder(
            inputs_embeds=embedded.to(self.residual_dtype)[None],
            position_ids=context.position[None],
            use_cache=False,
            context=context,
        )
        states: Tensor = out.last_hidden_state
        return states[0]
