"""Input of an item: frozen item embeddings, projected to one token that a language model reads.

There is one class for each way of training:

- `ItemTokens`: items are always read as their tokens (HeLLM).
- `CurriculumTokens`: a step reads only the texts with a probability that falls from 1 to 0 over training (LLaRA,
  Liao et al., SIGIR 2024). Scoring always reads the tokens.
- `TwoStepTokens`: only the texts are read first, while the adapters are trained. Then the adapters are frozen, and the
  tokens are read (CoLLM, Zhang et al., TKDE 2025). In the first part, scoring reads only the texts, too.
- `VectorTokens`: items are always read as tokens, which are made of vectors that are trained too (HeLLM-plus).

Where only the texts are read, the embedding of one word replaces the token of each item.

`UserTokens` project frozen user embeddings in the same way, by one matrix without bias, as the released code of HeLLM
does in a part that it never uses.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemTokens(nn.Module):
    """Tokens of items: `s * (W_2 GELU(W_1 dropout(x) + b_1) + b_2)`, with x the frozen embedding of the item.

    With a linear projector (E4SRec), they are `s * (W dropout(x) + b)`.

    Args:
        inputs: [I + 1, D] item embeddings x, row 0 zero.
        width: H, width of a token.
        dropout: dropout probability of the embeddings.
        token_rms: root mean square of the tokens of all items before training, which sets s; None for s = 1.
        linear: whether the projector is one linear map, instead of two with GELU between them.
    """

    inputs: Tensor
    token_scale: Tensor
    text_alone: Tensor

    def __init__(
        self, inputs: Tensor, width: int, dropout: float, token_rms: float | None, *, linear: bool = False
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("inputs", inputs, persistent=False)
        first = nn.Linear(inputs.shape[1], width)
        self.projector: nn.Module = first if linear else nn.Sequential(first, nn.GELU(), nn.Linear(width, width))
        self.register_buffer("token_scale", torch.ones(()))
        if token_rms is not None:
            with torch.no_grad():
                self.token_scale = token_rms / self.projector(inputs[1:]).square().mean().sqrt()
        self.register_buffer("text_alone", torch.zeros((), dtype=torch.bool))

    def set_progress(self, progress: float) -> None:
        """Do nothing: the next step reads the tokens, as every step.

        Args:
            progress: fraction of all epochs that is completed, in [0, 1).
        """

    def forward(self, items: Tensor) -> Tensor:
        """Compute the [N, H] tokens of [N] items."""
        tokens: Tensor = self.projector(F.dropout(self.inputs[items], self.dropout, self.training)) * self.token_scale
        return tokens


class VectorTokens(nn.Module):
    """Tokens of items that are made of trained vectors: `s * (W_2 GELU(W_1 dropout(sqrt(D) v) + b_1) + b_2)`.

    The factor sqrt(D) brings a vector of length 1 to mean square 1, so that it is not smaller than the bias b_1.

    Args:
        item_vectors: module that computes the vectors v of [N] items, or of all [I + 1] items if none are given.
        width: H, width of a token.
        dropout: dropout probability of the vectors.
        token_rms: root mean square of the tokens of all items before training, which sets s; None for s = 1.
    """

    token_scale: Tensor

    def __init__(self, item_vectors: nn.Module, width: int, dropout: float, token_rms: float | None) -> None:
        super().__init__()
        self.dropout, self.item_vectors = dropout, item_vectors
        with torch.no_grad():
            vectors = item_vectors.eval()()[1:]
            item_vectors.train()
        in_width = vectors.shape[1]
        self.factor = in_width**0.5
        self.projector = nn.Sequential(nn.Linear(in_width, width), nn.GELU(), nn.Linear(width, width))
        self.register_buffer("token_scale", torch.ones(()))
        if token_rms is not None:
            with torch.no_grad():
                self.token_scale = token_rms / self.projector(vectors * self.factor).square().mean().sqrt()

    def set_progress(self, progress: float) -> None:
        """Do nothing: every step reads the tokens.

        Args:
            progress: fraction of all epochs that is completed, in [0, 1).
        """

    def forward(self, items: Tensor) -> Tensor:
        """Compute the [N, H] tokens of [N] items."""
        vectors = F.dropout(self.item_vectors(items) * self.factor, self.dropout, self.training)
        tokens: Tensor = self.projector(vectors) * self.token_scale
        return tokens


class UserTokens(nn.Module):
    """Tokens of users: `s W x`, with x the frozen embedding of the user and W a trained matrix.

    Args:
        inputs: [U + 1, D] user embeddings x, row 0 zero.
        width: H, width of a token.
        token_rms: root mean square of the tokens of all users before training, which sets s; None for s = 1.
    """

    inputs: Tensor
    token_scale: Tensor

    def __init__(self, inputs: Tensor, width: int, token_rms: float | None) -> None:
        super().__init__()
        self.register_buffer("inputs", inputs, persistent=False)
        self.projector = nn.Linear(inputs.shape[1], width, bias=False)
        self.register_buffer("token_scale", torch.ones(()))
        if token_rms is not None:
            with torch.no_grad():
                self.token_scale = token_rms / self.projector(inputs[1:]).square().mean().sqrt()

    def forward(self, users: Tensor) -> Tensor:
        """Compute the [B, H] tokens of [B] users."""
        tokens: Tensor = self.projector(self.inputs[users]) * self.token_scale
        return tokens


class CurriculumTokens(ItemTokens):
    """Item tokens that a step reads with a probability that grows with the progress of training.

    Args:
        inputs: see `ItemTokens`.
        width: see `ItemTokens`.
        dropout: see `ItemTokens`.
        token_rms: see `ItemTokens`.
        placeholder: [H] embedding that stands in place of an item's token.
    """

    placeholder: Tensor

    def __init__(
        self, inputs: Tensor, width: int, dropout: float, token_rms: float | None, *, placeholder: Tensor
    ) -> None:
        super().__init__(inputs, width, dropout, token_rms)
        self.register_buffer("placeholder", placeholder, persistent=False)

    def set_progress(self, progress: float) -> None:
        """Draw whether the next step reads texts alone, with probability 1 - progress."""
        self.text_alone = torch.rand(()) >= progress

    def forward(self, items: Tensor) -> Tensor:
        """Compute the [N, H] tokens of [N] items, or repeat the placeholder in a step that reads texts alone."""
        if self.training and self.text_alone:
            return self.placeholder.expand(len(items), -1)
        return super().forward(items)


class TwoStepTokens(ItemTokens):
    """Item tokens that are read after a first step in which the adapters are trained on texts alone.

    Args:
        inputs: see `ItemTokens`.
        width: see `ItemTokens`.
        dropout: see `ItemTokens`.
        token_rms: see `ItemTokens`.
        placeholder: [H] embedding that stands in place of an item's token.
        adapters: trained parameters of the language model, which get no gradient in the second step.
        text_alone_frac: fraction of the epochs that is the first step.
    """

    placeholder: Tensor

    def __init__(
        self,
        inputs: Tensor,
        width: int,
        dropout: float,
        token_rms: float | None,
        *,
        placeholder: Tensor,
        adapters: Iterable[nn.Parameter],
        text_alone_frac: float,
    ) -> None:
        super().__init__(inputs, width, dropout, token_rms)
        self.text_alone_frac = text_alone_frac
        self.register_buffer("placeholder", placeholder, persistent=False)
        for adapter in adapters:
            adapter.register_post_accumulate_grad_hook(self._freeze_adapter)

    def set_progress(self, progress: float) -> None:
        """Read texts alone in the first part of the epochs."""
        self.text_alone = torch.tensor(progress < self.text_alone_frac)

    def forward(self, items: Tensor) -> Tensor:
        """Compute the [N, H] tokens of [N] items, or repeat the placeholder in the first step."""
        if self.text_alone:
            return self.placeholder.expand(len(items), -1)
        return super().forward(items)

    def _freeze_adapter(self, adapter: Tensor) -> None:
        """Drop the gradient of an adapter in the second step."""
        if not self.text_alone:
            adapter.grad = None
