"""Head of a language model that recommends: vectors of the items, and the map from states to the same space.

The score of item i after a state h is `q . v_i + b_i` (Eq. 14 of HeLLM takes the softmax over all items):

- `EmbeddingVectors`: v is the frozen embedding that is also the input of the item, and b is trained.
- `LinearVectors`: v is a row of a trained matrix, as in a classifier.
- `FrozenRandomVectors`: v is a row of a random matrix that is never trained (released code of HeLLM).
- `SharedVectors`: v is the trained vector that is also the input of the item, without a bias (HeLLM-plus).
- `QueryMap`: `q = W (h - m) * a + c`, with m and a the mean and the inverse deviation of each dimension of the states;
  W is the identity where v has the width of a state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.types import Encoded


class EmbeddingVectors(nn.Module):
    """The input embeddings of the items as their vectors, and a trained bias of each item.

    Args:
        n_rows: number of items, padding included.
    """

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.item_bias = nn.Parameter(torch.zeros(n_rows))

    def forward(self, inputs: Tensor) -> Encoded:
        """Return vectors and biases of all items, given their [I + 1, D] input embeddings."""
        return Encoded(items=inputs, item_bias=self.item_bias)


class LinearVectors(nn.Module):
    """Trained vectors of the items.

    Args:
        n_rows: number of items, padding included.
        width: H, width of a state.
    """

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.classes = nn.Parameter(_draw_vectors(n_rows, width))

    def forward(self, inputs: Tensor) -> Encoded:
        """Return the vectors of all items; the [I + 1, D] input embeddings are not used."""
        return Encoded(items=self.classes)


class FrozenRandomVectors(nn.Module):
    """Random vectors of the items, which are not trained.

    Args:
        n_rows: number of items, padding included.
        width: H, width of a state.
    """

    classes: Tensor

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("classes", _draw_vectors(n_rows, width))

    def forward(self, inputs: Tensor) -> Encoded:
        """Return the vectors of all items; the [I + 1, D] input embeddings are not used."""
        return Encoded(items=self.classes)


class SharedVectors(nn.Module):
    """The given vectors of the items, without a bias."""

    def forward(self, inputs: Tensor) -> Encoded:
        """Return the [I + 1, D] vectors of all items."""
        return Encoded(items=inputs)


ItemVectors = EmbeddingVectors | LinearVectors | FrozenRandomVectors | SharedVectors


def _draw_vectors(n_rows: int, width: int) -> Tensor:
    """Draw [I + 1, H] vectors as `nn.Linear` draws its rows."""
    return torch.empty(n_rows, width).uniform_(-(width**-0.5), width**-0.5)


class QueryMap(nn.Module):
    """Map from states to query vectors: dropout, standardized dimensions, a linear map.

    Some dimensions of a language model are a hundred times larger than others, which standardizing undoes.

    Args:
        width: H, width of a state.
        out: D, width of the vectors of the items; None keeps the width of a state, without a linear map.
        dropout: dropout probability of the states.
        state_eps: share of the deviation over all dimensions that is added to the deviation of each dimension; None
            leaves the states as they are.
    """

    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, width: int, out: int | None, dropout: float, state_eps: float | None) -> None:
        super().__init__()
        self.dropout, self.state_eps = dropout, state_eps
        self.register_buffer("state_mean", torch.zeros(width))
        self.register_buffer("state_scale", torch.full((width,), 1.0 if state_eps is None else 0.0))
        self.output = None if out is None else nn.Linear(width, out)
        if self.output is not None:
            nn.init.zeros_(self.output.weight)  # at first, all items have the same score
            nn.init.zeros_(self.output.bias)

    def needs_measuring(self) -> bool:
        """Return whether mean and deviation of the states still have to be measured."""
        return not bool(self.state_scale.any())

    def measure(self, states: Tensor) -> None:
        """Measure mean and deviation of each dimension of [N, H] states."""
        assert self.state_eps is not None
        states = states.float()
        self.state_mean = states.mean(dim=0)
        self.state_scale = 1.0 / (states.std(dim=0) + self.state_eps * states.std())

    def forward(self, states: Tensor) -> Tensor:
        """Compute the [N, D] query vectors of [N, H] states."""
        states = F.dropout(states, self.dropout, self.training)
        states = (states.float() - self.state_mean) * self.state_scale
        mapped: Tensor = states if self.output is None else self.output(states)
        return mapped
