from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.baselines.tiger import TIGER, TIGERSettings
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, ModelError
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.types import HistoryBatch, QueryBatch
from tests.toy_llm import SMALL_TIGER

N_ITEMS, N_DIGITS = 30, 4
ITEMS = torch.tensor([[3, 5, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [1, 2, 30, 4]])
USER = torch.tensor([1, 9, 3, 2])


def make_settings(**changes: Any) -> TIGERSettings:
    values = {**SMALL_TIGER, "n_blocks": 2, "codebook_size": N_DIGITS, "dropout": 0.0, **changes}
    overrides = [Override("TIGER", key, value, key) for key, value in values.items()]
    settings: TIGERSettings = resolve_own_run("TIGER", "toy", REGISTRY, "paper", overrides).model_settings
    return settings


def build_model(**changes: Any) -> TIGER:
    torch.manual_seed(5)
    numbers = torch.randperm(N_DIGITS**3)[:N_ITEMS]
    codes = torch.stack([numbers // N_DIGITS**level % N_DIGITS for level in range(3)], dim=1)
    model = TIGER(make_settings(**changes), codes)
    for name, value in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(value, 0.5, 1.5)  # norms that change the states
    return model.eval()


def compute_bucket(distance: int, n_buckets: int, *, both_sides: bool) -> int:
    """Compute the bucket of a relative position, key less query (Raffel et al., Section 2.1; T5's code)."""
    start = 0
    if both_sides:
        n_buckets //= 2
        start = n_buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = n_buckets // 2
    if distance < exact:
        return start + distance
    large = exact + int(math.log(distance / exact) / math.log(128 / exact) * (n_buckets - exact))
    return start + min(large, n_buckets - 1)


def normalize(weight: Tensor, x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * weight


class Transcription:
    """T5's encoder and decoder for one sequence in double precision, with a loop over heads, positions and keys."""

    def __init__(self, model: TIGER) -> None:
        self.model, self.weights = model, {name: value.detach().double() for name, value in model.named_parameters()}
        self.n_heads = SMALL_TIGER["n_heads"]

    def attend(self, name: str, query: Tensor, memory: Tensor, bias_of: str | None, *, causal: bool) -> Tensor:
        q, k, v = (
            x @ self.weights[f"{name}.{part}.weight"].T for part, x in zip("qkv", (query, memory, memory), strict=True)
        )
        width = q.shape[1] // self.n_heads
        rows = []
        for i in range(len(query)):
            heads = []
            for head in range(self.n_heads):
                part = slice(head * width, (head + 1) * width)
                last = i + 1 if causal else len(memory)
                logits = k[:last, part] @ q[i, part]
                if bias_of is not None:
                    table = self.weights[f"{bias_of}.relative_attention_bias.weight"]
                    buckets = [compute_bucket(j - i, len(table), both_sides=not causal) for j in range(last)]
                    logits = logits + table[buckets, head]
                heads.append(logits.softmax(dim=0) @ v[:last, part])
            rows.append(torch.cat(heads))
        return torch.stack(rows) @ self.weights[f"{name}.o.weight"].T

    def run(self, stack: str, x: Tensor, memory: Tensor | None = None) -> Tensor:
        causal = memory is not None
        for block in range(SMALL_TIGER["n_blocks"] + 1):
            layers = f"{stack}.block.{block}.layer"
            normed = normalize(self.weights[f"{layers}.0.layer_norm.weight"], x)
            bias_of = f"{stack}.block.0.layer.0.SelfAttention"
            x = x + self.attend(f"{layers}.0.SelfAttention", normed, normed, bias_of, causal=causal)
            if memory is not None:
                normed = normalize(self.weights[f"{layers}.1.layer_norm.weight"], x)
                x = x + self.attend(f"{layers}.1.EncDecAttention", normed, memory, None, causal=False)
            number = 2 if causal else 1
            normed = normalize(self.weights[f"{layers}.{number}.layer_norm.weight"], x)
            hidden = (normed @ self.weights[f"{layers}.{number}.DenseReluDense.wi.weight"].T).clamp(min=0)
            x = x + hidden @ self.weights[f"{layers}.{number}.DenseReluDense.wo.weight"].T
        return normalize(self.weights[f"{stack}.final_layer_norm.weight"], x)

    def compute_log_probabilities(self, user: int, items: list[int], target: int) -> Tensor:
        """Compute the [L] log-probabilities of the target's digits."""
        digit, codes = self.weights["digit.weight"], self.model.codes.tolist()
        tokens = [self.weights["user.weight"][user % SMALL_TIGER["n_user_tokens"]]]
        tokens += [digit[level * N_DIGITS + code] for item in items for level, code in enumerate(codes[item])]
        memory = self.run("encoder", torch.stack(tokens))
        start = [self.weights["start"], *(digit[level * N_DIGITS + codes[target][level]] for level in (0, 1))]
        states = self.run("decoder", torch.stack(start), memory)
        logs = []
        for level, state in enumerate(states):
            logits = digit[level * N_DIGITS : (level + 1) * N_DIGITS] @ state / math.sqrt(len(state))
            logs.append(logits.log_softmax(dim=0)[codes[target][level]])
        return torch.stack(logs)


def list_items(row: int) -> list[int]:
    return [item for item in ITEMS[row].tolist() if item]


def test_the_loss_is_that_of_a_plain_transcription() -> None:
    model = build_model()
    plain = Transcription(model)
    targets = torch.tensor([[0, 0, 7, 0], [30, 0, 0, 0], [0, 0, 0, 0], [0, 11, 0, 12]])  # several targets of a row, too
    expected = torch.cat(
        [
            plain.compute_log_probabilities(int(USER[row]), list_items(row)[: last + 1], int(targets[row, last]))
            for row, last in targets.nonzero().tolist()
        ]
    )
    loss = model.loss(HistoryBatch(ITEMS, targets, USER))["cross_entropy"]
    assert float(loss.detach()) == pytest.approx(-float(expected.mean()), rel=1e-5)


@torch.no_grad()
def test_with_a_beam_of_all_items_scores_are_those_of_a_plain_transcription() -> None:
    model = build_model(beam_size=N_ITEMS)
    plain = Transcription(model)
    scores = model.score(QueryBatch(USER, ITEMS))
    assert scores.shape == (4, N_ITEMS)
    for row in range(4):
        for item in range(1, N_ITEMS + 1, 4):
            expected = plain.compute_log_probabilities(int(USER[row]), list_items(row), item).sum()
            assert float(scores[row, item - 1]) == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_scores_are_the_log_probabilities_of_training() -> None:
    model = build_model(beam_size=N_ITEMS)
    assert torch.allclose(model.score(QueryBatch(USER, ITEMS)), _score_by_training(model), atol=1e-4)


@torch.no_grad()
def test_a_small_beam_keeps_the_scores_of_its_items_and_ties_the_others_below_them() -> None:
    whole, small = build_model(beam_size=N_ITEMS), build_model(beam_size=6)
    every, found = (model.score(QueryBatch(USER, ITEMS)) for model in (whole, small))
    for row in range(4):
        beyond = found[row] == found[row].min()
        assert int((~beyond).sum()) <= 6
        assert torch.allclose(found[row][~beyond], every[row][~beyond], atol=1e-4)
        assert float(found[row][beyond][0]) == pytest.approx(float(found[row][~beyond].min()) - 1, abs=1e-5)
        assert int(every[row].argmax()) == int(found[row].argmax())


def test_a_target_beyond_the_beam_ranks_last(toy_split: Split) -> None:
    overrides = [Override("TIGER", key, value, key) for key, value in {**SMALL_TIGER, "beam_size": 3}.items()]
    learner = resolve_own_run("TIGER", "toy", REGISTRY, "paper", overrides).build_learner(
        toy_split.make_train_data(), 1, torch.device("cpu")
    )
    train = toy_split.train
    ranks = rank_targets(learner, toy_split.valid, train=train, seen=train, block_users=20, who="TIGER")
    counts = train.count_items()[toy_split.valid.user]
    beyond = ranks.none > 3
    assert beyond.any()
    assert (ranks.none[beyond] == toy_split.n_items).all()
    assert (ranks.seen[beyond] == (toy_split.n_items - counts)[beyond]).all()


def test_loaded_codes_are_the_ones_that_are_searched() -> None:
    model, other = build_model(beam_size=N_ITEMS), build_model(beam_size=N_ITEMS)
    other.codes[1:] = other.codes[1:].flip(0)
    state = other.state_dict()
    model.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(model.score(QueryBatch(USER, ITEMS)), _score_by_training(other), atol=1e-4)


def _score_by_training(model: TIGER) -> Tensor:
    every = torch.arange(1, N_ITEMS + 1)
    rows = []
    for row in range(4):
        items = torch.tensor([list_items(row)], dtype=torch.int64).expand(N_ITEMS, -1)
        logits = model.compute_target_logits(USER[row].expand(N_ITEMS), items, every).log_softmax(dim=2)
        rows.append(logits.gather(2, model.codes[1:, :, None]).sum(dim=(1, 2)))
    return torch.stack(rows)


def test_with_one_token_all_users_are_the_same() -> None:
    one, several = build_model(n_user_tokens=1), build_model()
    batch = QueryBatch(torch.tensor([1, 2]), torch.tensor([[3, 4], [3, 4]]))
    with torch.no_grad():
        same, other = one.score(batch), several.score(batch)
    assert torch.allclose(same[0], same[1], atol=1e-5)
    assert not torch.allclose(other[0], other[1], atol=1e-3)


def test_codes_come_from_the_named_modalities_and_from_no_interaction(toy_split: Split) -> None:
    data = toy_split.make_train_data()
    settings = make_settings(codebook_size=16)

    torch.manual_seed(1)
    text = TIGER.build(settings, data).codes
    torch.manual_seed(1)
    shuffled = replace(data, history=replace(data.history, items=data.history.items[::-1].copy()))
    assert torch.equal(TIGER.build(settings, shuffled).codes, text)
    torch.manual_seed(1)
    image = TIGER.build(settings.model_copy(update={"modalities": ("image",)}), data).codes
    assert not torch.equal(image, text)
    assert not text[0].any()
    with pytest.raises(ModelError, match="audio"):
        TIGER.build(settings.model_copy(update={"modalities": ("audio",)}), data)
    same = {name: np.ones_like(matrix) for name, matrix in data.features.items()}
    with pytest.raises(DataError, match="40 items have the same codes"):
        TIGER.build(settings, replace(data, features=same))
