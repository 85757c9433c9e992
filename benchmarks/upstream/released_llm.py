"""Training and scoring of HeLLM with the method of the released code, for timing. Written from its description.

A sample is one prefix of a history, and a batch has seven samples. The items are padded on the left and placed between
the two halves of a full prompt. The padded [B, T] batch goes through the language model with the standard attention of
transformers. The graph prefixes of a sample are computed for all layers and positions at once. Scoring reads one user
at a time.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.llm.loading import load_config, load_model, refuse_unloadable
from hellm_recbole.llm.source import find_source
from hellm_recbole.llm.texts import refuse_unknown_tokens, tokenize_prompt
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.system.quiet import silence_loading
from hellm_recbole.training.sampling import PrefixSource
from hellm_recbole.types import TrainData, as_ids

PROMPT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\nThe items that a customer has bought are "
    "given in the order of purchase. Predict the item that the customer will buy next.\n\n### Input:\n"
)
ENDING = "\n\n### Response:\n"
BATCH, POOLED, DROPOUT, WARM_UP = 7, 64, 0.3, 2


class ReleasedLLM:
    """HeLLM with the training and scoring method of the released code.

    Args:
        settings: settings of HeLLM, which name the language model.
        data: training part with the pretrained embeddings.

    Raises:
        DataError: the language model cannot be loaded, is incomplete or does not fit its tokenizer.
        ModelError: the language model has fewer layers than requested.
    """

    def __init__(self, settings: LLMSettings, data: TrainData) -> None:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(2024)
        backbone, source = settings.backbone(), find_source(settings.llm)
        with silence_loading(), refuse_unloadable(backbone, source):
            config, tokenizer, options = load_config(backbone, source)
            model = load_model(config, backbone, source, options, attention=None)
        model.requires_grad_(False)
        embed = model.get_input_embeddings()
        tokens = [tokenize_prompt(tokenizer, text) for text in (PROMPT, ENDING)]
        refuse_unknown_tokens([*chain(*tokens)], embed, settings.llm)
        with torch.no_grad():
            self.halves = [embed(torch.tensor([ids])).float() for ids in tokens]
        lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.05, target_modules=["gate_proj", "up_proj", "down_proj"])
        get_peft_model(model, lora)
        self.decoder: Any = model.get_decoder()
        width, self.n_layers = config.hidden_size, config.num_hidden_layers
        self.graph, self.sequence = (torch.from_numpy(data.pretrained[name]) for name in ("HeLLMPre", "SASRec"))
        n_prefix = settings.prefix_length
        self.parts = nn.ModuleDict(
            {
                "projector": nn.Sequential(
                    nn.Linear(self.graph.shape[1] + self.sequence.shape[1], width), nn.GELU(), nn.Linear(width, width)
                ),
                **{side: _make_network(width) for side in ("key", "value")},
                **{f"{side}_{norm}": nn.RMSNorm(width) for side in ("key", "value") for norm in ("inner", "outer")},
            }
        )
        self.learned = nn.ParameterDict(
            {side: nn.Parameter(torch.randn(self.n_layers, n_prefix, width)) for side in ("key", "value")}
        )
        self.classes = torch.empty(data.n_items, width).uniform_(-(width**-0.5), width**-0.5)
        trained = [p for p in model.parameters() if p.requires_grad]
        trained += [*self.parts.parameters(), *self.learned.parameters()]
        self.optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95))
        self.data = data
        self._batches = PrefixSource(data, BATCH, settings.max_history, None, torch.device("cpu"))

    def measure_samples_per_second(self, steps: int) -> float:
        """Measure the training samples per second, over `steps` steps after a few warm-up steps."""
        self.parts.train()
        self.decoder.train()
        started = 0.0
        for step, batch in enumerate(self._batches.epoch(1)):
            if step == WARM_UP:
                started = time.perf_counter()
            if step == WARM_UP + steps:
                break
            self.optimizer.zero_grad()
            label = batch.targets.max(dim=1).values - 1
            F.cross_entropy(self._compute_scores(batch.items), label).backward()
            self.optimizer.step()
        return steps * BATCH / (time.perf_counter() - started)

    @torch.no_grad()
    def measure_users_per_second(self, n_users: int) -> float:
        """Measure the users scored per second, one at a time."""
        self.parts.eval()
        self.decoder.eval()
        users = np.flatnonzero(self.data.history.count_items())[:n_users]
        started = time.perf_counter()
        for user in users:
            self._compute_scores(as_ids(self.data.history.get_items(int(user))[None, -50:], torch.device("cpu"))).topk(
                20
            )
        return len(users) / (time.perf_counter() - started)

    def _compute_scores(self, items: Tensor) -> Tensor:
        """Compute the [B, I] scores of right-padded [B, L] histories."""
        from transformers import DynamicCache

        known = items != 0
        source = known.sum(1, keepdim=True) - items.shape[1] + torch.arange(items.shape[1])
        items = torch.where(source >= 0, items.gather(1, source.clamp(min=0)), 0)  # moves the padding to the left
        vectors = torch.cat([self.graph[items], self.sequence[items]], dim=-1)
        before, after = (half.expand(len(items), -1, -1) for half in self.halves)
        embedded = torch.cat([before, self.parts["projector"](vectors), after], dim=1)
        prefixes = self._compute_prefixes(self.graph[items])
        cache = DynamicCache()
        for number, layer in enumerate(self.decoder.layers):
            attention = layer.self_attn
            key, value = (
                project(prefix[:, number].to(self.decoder.dtype)).view(*prefix.shape[:1], prefix.shape[2], -1, width)
                for project, prefix, width in (
                    (attention.k_proj, prefixes["key"], attention.head_dim),
                    (attention.v_proj, prefixes["value"], attention.head_dim),
                )
            )
            if hasattr(attention, "k_norm"):
                key = attention.k_norm(key)
            cache.update(key.transpose(1, 2), value.transpose(1, 2), number)
        n_prefix = prefixes["key"].shape[2]
        ones = known.new_ones(len(items), 1)
        mask = torch.cat([ones.expand(-1, before.shape[1]), items != 0, ones.expand(-1, after.shape[1])], dim=1)
        position = n_prefix + (mask.long().cumsum(1) - 1).clamp(min=0)
        states = self.decoder(
            inputs_embeds=embedded.to(self.decoder.dtype),
            attention_mask=torch.cat([ones.expand(-1, n_prefix), mask], dim=1).long(),
            position_ids=position,
            past_key_values=cache,
        ).last_hidden_state
        scores: Tensor = states[:, -1].float() @ self.classes.T
        return scores

    def _compute_prefixes(self, vectors: Tensor) -> dict[str, Tensor]:
        """Compute the [B, layers, n, H] prefixes of keys and values from [B, L, D] graph embeddings."""
        pooled = (vectors.transpose(1, 2) @ vectors).flatten(1)
        prefixes = {}
        for side in ("key", "value"):
            graph = self.parts[f"{side}_inner"](self.parts[side](pooled))
            prefixes[side] = self.parts[f"{side}_outer"](self.learned[side] + graph[:, None, None])
        return prefixes


def _make_network(width: int) -> nn.Sequential:
    """Make the network that computes a prefix, with `width` outputs, from the pooled graph embeddings."""
    hidden = POOLED**2
    return nn.Sequential(
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, width),
        nn.GELU(),
        nn.Dropout(DROPOUT),
    )
