"""BSARec against a slow transcription with Fourier transforms and left padding, and its causality."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hellm_recbole.baselines.bsarec import BSARec, BSARecSettings, compute_low_pass_basis, drop
from hellm_recbole.types import HistoryBatch, QueryBatch

N_ITEMS, LENGTH = 11, 7
HISTORIES = ([4], [2, 9, 2], [1, 2, 3, 4, 5, 6, 7], [8, 3], [11, 10, 9, 8, 7])


def make_settings(**changes: Any) -> BSARecSettings:
    values: dict[str, Any] = {
        "emb_dim": 8,
        "n_blocks": 2,
        "n_heads": 2,
        "forward_multiple": 3,
        "dropout": 0.0,
        "max_history": LENGTH,
        "frequency_share": 0.7,
        "frequency_cutoff": 3,
        "padding": "states",
        "init_std": 0.5,
        "norm_eps": 1e-12,
        "loss": "full",
        "n_negatives": 3,
    }
    return BSARecSettings(**{**values, **changes})


def make_model(**changes: Any) -> BSARec:
    """Make a model in double precision whose normalisations and biases matter."""
    torch.manual_seed(0)
    settings = make_settings(**changes)
    model = BSARec(settings, N_ITEMS)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.3)
    model.double().low_pass = compute_low_pass_basis(settings.max_history, settings.frequency_cutoff)
    return model


def pad(histories: Any = HISTORIES, width: int = LENGTH) -> Tensor:
    return torch.tensor([[*history, *[0] * (width - len(history))] for history in histories])


def filter_by_transform(states: Tensor, cutoff: int) -> Tensor:
    """Keep the lowest frequencies of [L, D] states."""
    spectrum = torch.fft.rfft(states, dim=0)
    spectrum[cutoff // 2 + 1 :] = 0
    return torch.fft.irfft(spectrum, n=len(states), dim=0)


def apply(layer: Any, rows: Tensor) -> Tensor:
    return rows @ layer.weight.T + layer.bias


def normalize(layer: Any, rows: Tensor) -> Tensor:
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def transcribe_attention(block: Any, states: Tensor, n_padding: int) -> Tensor:
    """Compute attention one position and head at a time; the first positions of [L, D] states are padding."""
    query = apply(block.query_map, states)
    key, value = apply(block.key_value_map, states).chunk(2, dim=1)
    width = query.shape[1] // block.n_heads
    rows = []
    for place in range(len(states)):
        seen = range(len(states)) if place < n_padding else range(n_padding, place + 1)
        parts = []
        for head in range(block.n_heads):
            one = slice(head * width, (head + 1) * width)
            logits = torch.stack([query[place, one] @ key[other, one] / width**0.5 for other in seen])
            parts.append(logits.softmax(0) @ torch.stack([value[other, one] for other in seen]))
        rows.append(torch.cat(parts))
    return apply(block.output_map, torch.stack(rows))


def transcribe_state(model: BSARec, history: list[int], settings: BSARecSettings) -> Tensor:
    """Compute the state at the last item of one history, in the order of the module's docstring."""
    n_padding = settings.max_history - len(history)
    items = torch.tensor([0] * n_padding + history)
    positions = model.position.weight.flip(0)  # row 0 of the table: the most recent item
    states = normalize(model.input_norm, model.item.weight[items] + positions)
    inside = (torch.arange(len(items)) >= n_padding).double()[:, None]
    for module in model.blocks:
        block: Any = module
        filtered_input = states if settings.padding == "states" else states * inside
        low = filter_by_transform(filtered_input, settings.frequency_cutoff)
        mixed = low + block.beta**2 * (filtered_input - low)
        frequency = normalize(block.frequency_norm, states + mixed)
        attention = normalize(block.attention_norm, states + transcribe_attention(block, states, n_padding))
        both = settings.frequency_share * frequency + (1 - settings.frequency_share) * attention
        hidden = apply(block.forward_in, both)
        gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        states = normalize(block.forward_norm, both + apply(block.forward_out, gelu))
    return states[-1]


@pytest.mark.parametrize("padding", ["states", "zero"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"n_heads": 1, "n_blocks": 1}, {"n_blocks": 3, "frequency_cutoff": LENGTH}],
    ids=["two", "one", "three"],
)
def test_states_and_gradients_equal_those_of_the_transcription(padding: str, changes: dict[str, Any]) -> None:
    settings, model = make_settings(padding=padding, **changes), make_model(padding=padding, **changes)
    found = model.compute_last_states(pad())
    expected = torch.stack([transcribe_state(model, history, settings) for history in HISTORIES])
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(found)
    gradients = [
        torch.autograd.grad((states * weights).sum(), list(model.parameters())) for states in (found, expected)
    ]
    for (name, _), own, other in zip(model.named_parameters(), *gradients, strict=True):
        own[0], other[0] = (0.0, 0.0) if name == "item.weight" else (own[0], other[0])  # the transcription's table
        assert torch.allclose(own, other, rtol=0, atol=1e-11), name


@pytest.mark.parametrize(("length", "cutoff"), [(1, 1), (2, 2), (5, 1), (5, 4), (6, 6), (7, 7), (50, 5), (50, 50)])
def test_the_basis_is_the_low_pass_filter_of_the_fourier_transform(length: int, cutoff: int) -> None:
    basis = compute_low_pass_basis(length, cutoff)
    assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-12)
    states = torch.randn(length, 3, dtype=torch.float64)
    assert torch.allclose(basis @ (basis.T @ states), filter_by_transform(states, cutoff), atol=1e-12)


@pytest.mark.parametrize("padding", ["states", "zero"])
def test_a_target_sees_no_later_item(padding: str) -> None:
    model = make_model(padding=padding)
    items, targets = torch.tensor([[3, 5, 1, 7, 2]]), torch.tensor([[0, 9, 0, 0, 0]])
    loss = model.loss(HistoryBatch(items, targets))["cross_entropy"]
    for later in ([1, 7, 2], [6, 6, 6], [0, 0, 0]):
        changed = torch.tensor([[3, 5, *later]])
        assert model.loss(HistoryBatch(changed, targets))["cross_entropy"] == loss
    assert model.loss(HistoryBatch(torch.tensor([[3, 6, 1, 7, 2]]), targets))["cross_entropy"] != loss


@pytest.mark.parametrize("padding", ["states", "zero"])
def test_the_loss_is_the_mean_cross_entropy_of_each_target_after_its_own_history(padding: str) -> None:
    settings, model = make_settings(padding=padding), make_model(padding=padding)
    items, targets = torch.tensor([[3, 5, 1], [4, 0, 0]]), torch.tensor([[5, 0, 8], [11, 0, 0]])
    expected = []
    for history, target in (([3], 5), ([3, 5, 1], 8), ([4], 11)):
        logits = model.item.weight[1:] @ transcribe_state(model, history, settings)
        expected.append(F.cross_entropy(logits, torch.tensor(target - 1)))
    found = model.loss(HistoryBatch(items, targets))["cross_entropy"]
    assert float(found.detach()) == pytest.approx(float(torch.stack(expected).mean().detach()), abs=1e-12)


@pytest.mark.parametrize("padding", ["states", "zero"])
def test_a_user_without_history_has_equal_scores_and_the_others_their_states(padding: str) -> None:
    model = make_model(padding=padding).eval()
    with torch.no_grad():
        found = model.query(model.encode(), QueryBatch(torch.arange(1, 4), pad(([2, 9, 2], [], [8, 3]), width=5)))
        assert torch.equal(found[1], torch.zeros(8, dtype=torch.float64))
        assert torch.allclose(found[[0, 2]], model.compute_last_states(pad()[[1, 3]]), atol=1e-12)


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    model = make_model(dropout=0.5)
    trained = [model.train().compute_last_states(pad()) for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*[model.eval().compute_last_states(pad()) for _ in range(2)])
    torch.manual_seed(0)
    values = drop(torch.ones(40_000), 0.25)
    assert sorted(set(values.tolist())) == pytest.approx([0.0, 4 / 3])
    assert float(values.mean()) == pytest.approx(1.0, abs=5 * (1 / 3 / 40_000) ** 0.5)
    ones = torch.ones(3)
    assert drop(ones, 0.0) is ones


def test_all_blocks_start_with_the_same_weights_of_high_frequencies() -> None:
    torch.manual_seed(3)
    model = BSARec(make_settings(emb_dim=1200, n_blocks=2, init_std=0.02), 2)
    first, second = (block.beta for block in model.blocks)
    assert torch.equal(first, second)
    assert float(first.detach().std()) == pytest.approx(1.0, abs=0.05)
    for name, parameter in model.named_parameters():
        if name.endswith(("map.weight", "in.weight", "out.weight", "position.weight")):
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.05), name
    assert not model.item.weight[0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "emb_dim = 8 must be a multiple of n_heads = 3"),
        ({"frequency_cutoff": 8}, "frequency_cutoff = 8 must be at most max_history = 7"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)
