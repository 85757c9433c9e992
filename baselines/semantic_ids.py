"""Semantic ids: short codes of items from their features, by residual quantisation.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, Section 3.1. An encoder maps the
features x of an item to `z = E(x)`. Level d has a codebook of V vectors `e`, and

- `r_0 = z`, `c_d = argmin_k ||r_d - e_dk||`, `r_{d+1} = r_d - e_{d,c_d}`; the codes of the item are `c_0, c_1, ...`.
- `L = ||x - D(z^)||^2 + sum_d ||sg[r_d] - e_{d,c_d}||^2 + beta ||r_d - sg[e_{d,c_d}]||^2`, where `z^ = sum_d
  e_{d,c_d}`, D is the decoder and sg stops the gradient. The gradient of D(z^) passes to z (straight-through).
- Codebooks start as the k-means centres of the residuals.
- Items with the same codes get one more digit, 0, 1, 2, ..., in the order of their ids. All other items have digit 0.

`kmeans` quantises the features themselves by k-means at each level, without any network. Ju et al. ("GRID", arXiv
2507.22224) found it no worse.

**Deviations.** After each epoch, codebook vectors that no item has are replaced by what random items leave to their
level (Jukebox, Dhariwal et al., 2020): without it, most vectors are soon unused, since the encoder moves away from
them. Codebooks start from all items (paper: the first batch). The residual of a level passes no gradient to the
codebooks before it, as in public code. AdamW, as in public code (paper: Adagrad). The features of each column are
standardised, as Paischer et al. (arXiv 2412.08604) do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import DataError
from hellm_recbole.graphs.array_cache import CacheFolder, load_or_compute
from hellm_recbole.types import FloatArray, IdArray

_BLOCK_ROWS = 4096  # items quantised at a time, which bounds memory


class SemanticIdSettings(Settings):
    """How the codes of the items are made.

    Attributes:
        quantizer: vae, a network trained with its codebooks (RQ-VAE); or kmeans, k-means of the features.
        n_levels: number of codes of an item, without the digit that tells items with the same codes apart.
        codebook_size: V, number of codes of a level, and of these digits.
        rq_hidden: widths of the encoder's hidden layers, in reverse for the decoder. All `rq_...` are for vae only.
        rq_code_dim: width of the codebook vectors.
        rq_commit_weight: beta, weight of the term that moves the encoder towards the codebooks.
        rq_epochs: number of passes over the items.
        rq_batch_size: number of items in a step.
        rq_learning_rate: learning rate of AdamW.
        rq_weight_decay: weight decay of AdamW.
        kmeans_rounds: rounds of k-means.
    """

    quantizer: Literal["vae", "kmeans"]
    n_levels: int = Field(ge=1)
    codebook_size: int = Field(ge=2)
    rq_hidden: tuple[int, ...]
    rq_code_dim: int = Field(ge=1)
    rq_commit_weight: float = Field(ge=0)
    rq_epochs: int = Field(ge=1)
    rq_batch_size: int = Field(ge=1)
    rq_learning_rate: float = Field(gt=0)
    rq_weight_decay: float = Field(ge=0)
    kmeans_rounds: int = Field(ge=1)


class ResidualQuantizer(nn.Module):
    """RQ-VAE: encoder and decoder (ReLU networks), and the codebooks, [V, D] each.

    Args:
        width: D_f, width of the features.
        settings: settings of the codes.
    """

    def __init__(self, width: int, settings: SemanticIdSettings) -> None:
        super().__init__()
        self.commit_weight = settings.rq_commit_weight
        widths = [width, *settings.rq_hidden, settings.rq_code_dim]
        self.encoder, self.decoder = _build_network(widths), _build_network(widths[::-1])
        shape = settings.codebook_size, settings.rq_code_dim
        self.codebooks = nn.ParameterList(torch.zeros(shape) for _ in range(settings.n_levels))

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """Compute the terms of L for [B, D_f] features, means over the items."""
        return self.compute_terms(features, self.encoder(features))

    def compute_terms(self, features: Tensor, latent: Tensor) -> dict[str, Tensor]:
        """Compute the terms of L for [B, D_f] features and their [B, D] latent vectors z."""
        codes = quantize(latent.detach(), list(self.codebooks))
        residual, total = latent, torch.zeros_like(latent)
        codebook, commitment = latent.new_zeros(()), latent.new_zeros(())
        for level, table in enumerate(self.codebooks):
            chosen = F.embedding(codes[:, level], table)
            codebook = codebook + (residual.detach() - chosen).square().sum(dim=1).mean()
            commitment = commitment + (residual - chosen.detach()).square().sum(dim=1).mean()
            total, residual = total + chosen.detach(), residual - chosen.detach()
        decoded = self.decoder(latent + (total - latent).detach())  # straight-through
        return {
            "reconstruction": (features - decoded).square().sum(dim=1).mean(),
            "codebook": codebook,
            "commitment": self.commit_weight * commitment,
        }


def quantize(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Quantise vectors level by level: the code of a level is the nearest codebook vector to what is left.

    Args:
        vectors: [N, D] vectors.
        codebooks: [V, D] vectors of each of the levels.

    Returns:
        [N, levels] int64 codes. Of equally near codebook vectors, the first one is taken.

    >>> quantize(torch.tensor([[5.0], [1.0]]), [torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [1.0]])]).tolist()
    [[1, 1], [0, 1]]
    """
    parts = []
    for residual in vectors.split(_BLOCK_ROWS):
        codes = []
        for table in codebooks:
            code = (table.square().sum(dim=1) - 2 * residual @ table.T).argmin(dim=1)  # the distance less ||r||^2
            residual = residual - F.embedding(code, table)
            codes.append(code)
        parts.append(torch.stack(codes, dim=1))
    return torch.cat(parts)


def compute_codes(features: FloatArray, settings: SemanticIdSettings, seed: int, cache: CacheFolder = None) -> IdArray:
    """Compute the codes of all items, or read them from the cache.

    Args:
        features: [N, D_f] features of the N items.
        settings: settings of the codes.
        seed: random seed of the quantiser.
        cache: folder of the cache; None uses no cache. The name of a cache file is a hash of all inputs.

    Returns:
        [N, levels + 1] int64 codes in 0 .. V - 1; no two rows are equal, for the last column tells equal codes apart.

    Raises:
        DataError: more than V items have the same codes, or the cache file is broken.
    """

    def compute() -> IdArray:
        with torch.random.fork_rng(devices=()), torch.enable_grad():
            torch.manual_seed(seed)
            return add_digits(_fit_quantizer(_standardize(features), settings), settings.codebook_size)

    values = {name: getattr(settings, name) for name in SemanticIdSettings.model_fields}
    return load_or_compute(cache, "codes", __name__, f"{values} {seed}", features, compute)


def add_digits(codes: IdArray, codebook_size: int) -> IdArray:
    """Add a column that tells items with the same codes apart: 0, 1, 2, ... in the order of the rows.

    Args:
        codes: [N, levels] codes.
        codebook_size: V, largest number of items with the same codes.

    Raises:
        DataError: more than V items have the same codes.

    >>> add_digits(np.array([[3, 1], [0, 2], [3, 1]]), 2).tolist()
    [[3, 1, 0], [0, 2, 0], [3, 1, 1]]
    """
    group = np.unique(codes, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    digit = np.empty(len(codes), dtype=np.int64)
    digit[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    if counts.max(initial=0) > codebook_size:
        raise DataError(
            f"{counts.max()} items have the same codes, and codebook_size = {codebook_size} tells no more apart; their "
            "features are equal or nearly so: raise codebook_size or n_levels, or prepare the dataset with better texts"
        )
    return np.column_stack([codes, digit])


def _standardize(features: FloatArray) -> Tensor:
    """Shift and scale each column to mean 0 and variance 1; a constant column becomes 0."""
    values = np.asarray(features, dtype=np.float64)
    deviation = values.std(axis=0)
    return torch.from_numpy((values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)).float()


def _fit_quantizer(features: Tensor, settings: SemanticIdSettings) -> IdArray:
    """Fit the quantiser to [N, D_f] features and return the [N, levels] codes."""
    if settings.quantizer == "kmeans":
        vectors, codebooks = features, fit_codebooks(features, settings)
    else:
        model = train_quantizer(features, settings)
        vectors, codebooks = model.encoder(features).detach(), list(model.codebooks)
    codes: IdArray = quantize(vectors, codebooks).numpy()
    return codes


def train_quantizer(features: Tensor, settings: SemanticIdSettings) -> ResidualQuantizer:
    """Train the network and its codebooks on [N, D_f] features."""
    model = ResidualQuantizer(features.shape[1], settings)
    with torch.no_grad():
        for table, centres in zip(model.codebooks, fit_codebooks(model.encoder(features), settings), strict=True):
            table.copy_(centres)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rq_learning_rate, weight_decay=settings.rq_weight_decay, fused=True
    )
    for epoch in range(settings.rq_epochs):
        if epoch:
            restart_unused(model, features)
        for rows in torch.randperm(len(features)).split(settings.rq_batch_size):
            optimizer.zero_grad()
            torch.stack(list(model.loss(features[rows]).values())).sum().backward()
            optimizer.step()
    return model


@torch.no_grad()
def restart_unused(model: ResidualQuantizer, features: Tensor) -> None:
    """Replace codebook vectors that no item has by what random items leave to that level.

    Args:
        model: the network and its codebooks.
        features: [N, D_f] features of all items.
    """
    residual = model.encoder(features)
    for table in model.codebooks:
        code = quantize(residual, [table])[:, 0]
        unused = torch.nonzero(torch.bincount(code, minlength=len(table)) == 0).squeeze(1)
        drawn = torch.randperm(len(residual))[: len(unused)]
        table[unused[: len(drawn)]] = residual[drawn]
        residual = residual - F.embedding(code, table)


def fit_codebooks(vectors: Tensor, settings: SemanticIdSettings) -> list[Tensor]:
    """Fit a codebook for each level: the k-means centres of the residuals of the levels before it.

    With at most V different residuals, these are the codebook, and the rest of it is zero.

    Args:
        vectors: [N, D] vectors.
        settings: settings of the codes.

    Returns:
        [V, D] codebook of each level.
    """
    codebooks: list[Tensor] = []
    residual = vectors.double()
    for _ in range(settings.n_levels):
        distinct = torch.unique(residual, dim=0)
        table = residual.new_zeros(settings.codebook_size, residual.shape[1])
        if len(distinct) <= len(table):
            table[: len(distinct)] = distinct
        else:
            table = _fit_centres(residual, distinct, len(table), settings.kmeans_rounds)
        residual = residual - F.embedding(quantize(residual, [table])[:, 0], table)
        codebooks.append(table.float())
    return codebooks


def _fit_centres(vectors: Tensor, distinct: Tensor, n_centres: int, n_rounds: int) -> Tensor:
    """Compute k-means centres of [N, D] vectors; they start from random ones of the distinct vectors.

    A centre to which no vector is nearest stays where it is.
    """
    centres = distinct[torch.randperm(len(distinct))[:n_centres]]
    for _ in range(n_rounds):
        code = quantize(vectors, [centres])[:, 0]
        count = torch.bincount(code, minlength=n_centres).unsqueeze(1)
        mean = torch.zeros_like(centres).index_add_(0, code, vectors) / count.clamp(min=1)
        centres = torch.where(count > 0, mean, centres)
    return centres


def _build_network(widths: Sequence[int]) -> nn.Sequential:
    """Build a network of linear maps with ReLU between them."""
    layers: list[nn.Module] = []
    for number in range(len(widths) - 1):
        layers += [nn.Linear(widths[number], widths[number + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
