"""Compare BSARec with its released code, from a checkout of its repository, in double precision.

Both sides get the same weights and histories of 1 to L items, ours padded on the right and theirs on the left, without
dropout. Padding is no class of the loss on either side: the released code scores it as an item. Its item embedding is
zero on both sides.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.baselines.bsarec import BSARec, BSARecSettings, compute_low_pass_basis
from hellm_recbole.benchmarks.upstream.checkouts import BSAREC, find_file
from hellm_recbole.benchmarks.upstream.sides import CANCELS, compute_relative_error
from hellm_recbole.types import HistoryBatch

N_ITEMS, WIDTH, N_HISTORIES, N_STEPS, LEARNING_RATE = 30, 8, 6, 3, 1e-3
# positions, c, heads, blocks: those of Beauty; even numbers of positions and all frequencies, which are special cases
CASES = ((50, 5, 1, 2), (8, 3, 2, 2), (9, 9, 4, 3), (6, 6, 1, 1))
HEADS = ("BSARec", "States", "Loss", "Gradients", "1 step", "3 steps")


@dataclass(frozen=True)
class Pair:
    """A parameter of the released code and its counterpart.

    Attributes:
        theirs: parameter of the released code.
        ours: our parameter.
        convert: function that turns our parameter, or its gradient, into the form of theirs.
    """

    theirs: nn.Parameter
    ours: Tensor
    convert: Callable[[Tensor], Tensor]


def compare_bsarec(checkout: Path) -> list[tuple[str, list[float]]]:
    """Compute the relative errors of each case.

    Returns:
        Description of each case, with its largest errors of the states at the last items, of the loss, of gradients,
        and of parameters after one and after three steps of Adam.

    Raises:
        DataError: the folder is not a checkout of the released code.
    """
    find_file(checkout, "src/model/bsarec.py", BSAREC)
    sys.path.insert(0, str(checkout.resolve() / "src"))
    try:
        public = importlib.import_module("model.bsarec").BSARecModel
    finally:
        sys.path.pop(0)
    return [(f"L {case[0]}, c {case[1]}, {case[2]} heads, {case[3]} blocks", _compare(public, *case)) for case in CASES]


def _compare(public: Any, length: int, cutoff: int, n_heads: int, n_blocks: int) -> list[float]:
    """Compute the errors of one case; `public` is the class of the released model."""
    torch.manual_seed(2024)
    settings = BSARecSettings(
        emb_dim=WIDTH, n_blocks=n_blocks, n_heads=n_heads, forward_multiple=4, dropout=0.0, max_history=length,
        frequency_share=0.7, frequency_cutoff=cutoff, padding="states", init_std=0.5, norm_eps=1e-12,
        loss="full", n_negatives=1,
    )  # fmt: skip
    ours = BSARec(settings, N_ITEMS).double()
    ours.low_pass = compute_low_pass_basis(length, cutoff)
    theirs = public(
        SimpleNamespace(
            item_size=N_ITEMS + 1, hidden_size=WIDTH, max_seq_length=length, batch_size=N_HISTORIES, c=cutoff,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, hidden_act="gelu", alpha=0.7,
            num_attention_heads=n_heads, num_hidden_layers=n_blocks, initializer_range=0.02,
        )
    ).double()  # fmt: skip
    pairs = list(list_pairs(ours, theirs))
    with torch.no_grad():
        for pair in pairs:
            if pair.ours.ndim == 1:  # normalisations and biases, which start at 1 and 0
                pair.ours.add_(0.3 * torch.randn_like(pair.ours))
        for pair in pairs:
            pair.theirs.copy_(pair.convert(pair.ours))
    optimizers = [torch.optim.Adam(module.parameters(), lr=LEARNING_RATE) for module in (ours, theirs)]
    errors: list[float] = []
    for step in range(N_STEPS):
        histories, last, answers = _draw_batch(length)
        targets = torch.zeros_like(histories)
        targets[torch.arange(N_HISTORIES), last] = answers
        left = torch.stack([row.roll(length - 1 - int(end)) for row, end in zip(histories, last, strict=True)])
        states = theirs(left)[:, -1]
        losses = (
            ours.loss(HistoryBatch(histories, targets))["cross_entropy"],
            F.cross_entropy(states @ theirs.item_embeddings.weight[1:].T, answers - 1),
        )
        if step == 0:
            own = ours.compute_last_states(histories)
            errors.append(compute_relative_error(own.detach(), states.detach()))
            errors.append(compute_relative_error(losses[0].detach(), losses[1].detach()))
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
        if step == 0:
            errors.append(max(_compute_gradient_errors(pairs)))
        for optimizer in optimizers:
            optimizer.step()
        if step in (0, N_STEPS - 1):
            values = [(pair.convert(pair.ours.detach()), pair.theirs.detach()) for pair in pairs]
            errors.append(max(compute_relative_error(*both) for both in values))
    return errors


def list_pairs(ours: BSARec, theirs: Any) -> Iterator[Pair]:
    """List the parameters of the released code with their counterparts; ours has one map for keys and values."""
    modules: list[tuple[Any, Any]] = [(theirs.item_embeddings, ours.item), (theirs.LayerNorm, ours.input_norm)]
    yield Pair(theirs.position_embeddings.weight, ours.position.weight, _reverse_rows)
    for module, public in zip(ours.blocks, theirs.item_encoder.blocks, strict=True):
        block: Any = module
        frequency, attention = public.layer.filter_layer, public.layer.attention_layer
        modules += [
            (frequency.LayerNorm, block.frequency_norm),
            (attention.query, block.query_map),
            (attention.dense, block.output_map),
            (attention.LayerNorm, block.attention_norm),
            (public.feed_forward.dense_1, block.forward_in),
            (public.feed_forward.dense_2, block.forward_out),
            (public.feed_forward.LayerNorm, block.forward_norm),
        ]
        yield Pair(frequency.sqrt_beta, block.beta, _add_axes)
        for part, half in ((attention.key, slice(None, WIDTH)), (attention.value, slice(WIDTH, None))):
            for name, parameter in part.named_parameters():
                yield Pair(parameter, getattr(block.key_value_map, name), partial(_select_rows, rows=half))
    for part, own in modules:
        for name, parameter in part.named_parameters():
            yield Pair(parameter, getattr(own, name), _keep)


def _keep(values: Tensor) -> Tensor:
    """Return the values as they are."""
    return values


def _reverse_rows(values: Tensor) -> Tensor:
    """Return the rows in reverse order: ours count positions from the last item, theirs from the first position."""
    return values.flip(0)


def _add_axes(values: Tensor) -> Tensor:
    """Return [D] values as [1, 1, D]."""
    return values.view(1, 1, -1)


def _select_rows(values: Tensor, rows: slice) -> Tensor:
    """Return some of the rows."""
    return values[rows]


def _draw_batch(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw right-padded [B, L] histories of 1, L and other numbers of items, [B] last places, and [B] targets."""
    last = torch.randint(length, (N_HISTORIES,))
    last[0], last[1] = 0, length - 1
    items = torch.randint(1, N_ITEMS + 1, (N_HISTORIES, length))
    answers = torch.randint(1, N_ITEMS + 1, (N_HISTORIES,))
    return torch.where(torch.arange(length) <= last[:, None], items, 0), last, answers


def _compute_gradient_errors(pairs: list[Pair]) -> list[float]:
    """Compute the error of each gradient.

    The bias of the keys shifts all logits of a softmax, so that its gradient is zero up to rounding. The error of such
    a gradient is divided by the largest one.
    """
    gradients = [(pair.convert(_read_gradient(pair.ours)), _read_gradient(pair.theirs)) for pair in pairs]
    norms = [float(theirs.norm()) for _, theirs in gradients]
    return [
        float((ours - theirs).norm()) / (norm if norm > CANCELS * max(norms) else max(norms))
        for (ours, theirs), norm in zip(gradients, norms, strict=True)
    ]


def _read_gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter."""
    assert parameter.grad is not None
    return parameter.grad
