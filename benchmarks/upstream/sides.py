"""Our model and the public one, side by side, with the same graphs and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.upstream.dense_graphs import list_graphs, make_dense
from hellm_recbole.benchmarks.upstream.mmrec import build_public_model
from hellm_recbole.benchmarks.upstream.parameter_names import map_parameters
from hellm_recbole.benchmarks.upstream.public_models import MMRecModel, Public, PublishedHeLLMPre
from hellm_recbole.benchmarks.upstream.sample_data import N_ITEMS, N_USERS
from hellm_recbole.config.request import Override
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.models.hellm_pre import DTYPES
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.types import PairBatch, TrainData

CANCELS = 1e-12  # a gradient below this fraction of the largest one is a sum of terms that cancel each other
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2  # of Adam on both sides; MMHCL's script has no weight decay
# Values of our settings that differ from the settings files in this comparison.
CHANGED: dict[str, dict[str, object]] = {
    "LightGCN": {},
    "VBPR": {"normalize_features": False},
    "FREEDOM": {"n_neighbors": 5, "edge_dropout": 0.6},
    "BM3": {"dropout": 0.0},
    "SLMRec": {},
    "GRCN": {"routing": "public"},
    "LATTICE": {"n_neighbors": 5},
    "HeLLMPre": {"n_neighbors": 5, "contrast_nodes": "all"},
}


def compute_relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Compute the norm of the difference divided by the norm of theirs. If theirs is zero, return the norm of ours."""
    norm = float(theirs.norm())
    return float((ours.double() - theirs.double()).norm()) / (norm or 1.0)


@dataclass
class Sides:
    """Our model and the public one, in double precision and with the same weights.

    Attributes:
        name: name of the model.
        ours: our model.
        theirs: public model.
        pairs: for each parameter of the public model its name, our parameters and the public parameter.
        zero_idle: whether a parameter that a step does not use has a gradient of zero. If false, it has no gradient.
        optimizers: ours, and that of the public training loop.
    """

    name: str
    ours: Any
    theirs: Public
    pairs: list[tuple[str, list[nn.Parameter], nn.Parameter]]
    zero_idle: bool
    optimizers: tuple[torch.optim.Optimizer, ...] = ()

    def compute_losses(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Compute the scalar losses of both sides."""
        with patch.dict(DTYPES, float32=torch.float64):  # also for the products inside HeLLMPre's contrasts
            ours = torch.stack(list(self.ours.loss(batch).values())).sum()
        return ours, self.theirs.compute_loss(batch)

    @torch.no_grad()
    def compute_scores(self) -> tuple[Tensor, Tensor]:
        """Compute the [U, I] scores of both sides."""
        encoded = self.ours.encode()
        return encoded.users[1:] @ encoded.items[1:].T, self.theirs.compute_scores()

    def compute_gradient_error(self) -> float:
        """Compute the largest error of a gradient over the parameters.

        Raises:
            HellmError: a parameter without a counterpart has a gradient.
        """
        gradients = [
            (name, concatenate_parts([_read_gradient(part) for part in own], theirs), _read_gradient(theirs))
            for name, own, theirs in self.pairs
        ]
        largest = max(float(theirs.norm()) for _, _, theirs in gradients)
        compared = {id(part) for _, own, theirs in self.pairs for part in (*own, theirs)}
        for side, model in (("ours", self.ours), ("theirs", self.theirs.module)):
            for name, parameter in model.named_parameters():
                if id(parameter) not in compared and float(_read_gradient(parameter).norm()) > CANCELS * largest:
                    raise HellmError(f"{self.name}: {name} of {side} has a gradient and no counterpart")
        norms = [float(theirs.norm()) for _, _, theirs in gradients]
        return max(
            float((ours - theirs).norm()) / (norm if norm > CANCELS * largest else largest)
            for (_, ours, theirs), norm in zip(gradients, norms, strict=True)
        )

    def share_learned_graph(self) -> float:
        """Replace the learned graph of the public LATTICE by ours for the later steps. Return the error of theirs."""
        if self.name != "LATTICE":
            return 0.0
        convert_to_double(self.ours)
        ours, theirs = make_dense(self.ours._graph, N_ITEMS), self.theirs.read_graph("item_adj")
        self.theirs.replace_graph("item_adj", ours)
        return compute_relative_error(ours, theirs)

    def compute_parameter_error(self) -> float:
        """Compute the largest error of a parameter."""
        return max(
            compute_relative_error(concatenate_parts([part.detach() for part in own], theirs), theirs.detach())
            for _, own, theirs in self.pairs
        )


def _read_gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient of a parameter, zero if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def concatenate_parts(parts: Sequence[Tensor], theirs: Tensor) -> Tensor:
    """Concatenate our tensors along the first axis, without their padding rows, which the public code does not have."""
    n_padding = (sum(len(part) for part in parts) - len(theirs)) // len(parts)
    return torch.cat([part[n_padding:] for part in parts])


def convert_to_double(model: nn.Module) -> None:
    """Convert parameters, buffers, and dense tensors that are plain attributes to double precision."""
    model.double()
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
                setattr(module, key, value.double())


def build_sides(name: str, checkout: Path, data: TrainData, folder: Path) -> tuple[Sides, float]:
    """Build both sides on the same graphs, and compute the largest error between their original graphs."""
    config = resolve_compared_run(name, 8)
    settings: Any = config.model_settings
    learner, theirs = build_both(name, checkout, data, folder, config, 2024)
    ours: Any = learner.module
    if name == "FREEDOM":
        ours.prune(_find_drawn_edges(ours, theirs.module))
    for module in (ours, theirs.module):
        convert_to_double(module)
        module.train()
    graphs = list_graphs(name, ours)
    error = max(
        (compute_relative_error(matrix, theirs.read_graph(graph)) for graph, matrix in graphs.items()), default=0.0
    )
    for graph, matrix in graphs.items():
        theirs.replace_graph(graph, matrix)
    own: dict[str, nn.Parameter] = dict(ours.named_parameters())
    public = dict(theirs.module.named_parameters())
    pairs = [
        (key, [own[part] for part in parts], public[key])
        for key, parts in map_parameters(name, list(data.features)).items()
    ]
    with torch.no_grad():
        for _, parts, parameter in pairs:
            parameter.copy_(concatenate_parts(parts, parameter))
    optimizers = learner.optimizer, theirs.build_optimizer(config)
    return Sides(name, ours, theirs, pairs, getattr(settings, "idle_gradients", "none") == "zero", optimizers), error


def resolve_compared_run(name: str, emb_dim: int) -> OwnRunConfig:
    """Resolve the run config of our model in this comparison, with embeddings of a width."""
    decay = 0.0 if name == "HeLLMPre" else WEIGHT_DECAY
    changed = {"emb_dim": emb_dim, "learning_rate": LEARNING_RATE, "weight_decay": decay, **CHANGED[name]}
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in changed.items()]
    return resolve_own_run(name, "toy", REGISTRY, "paper", overrides)


def build_both(
    name: str, checkout: Path, data: TrainData, folder: Path, config: OwnRunConfig, seed: int
) -> tuple[ModelLearner, Public]:
    """Build our learner and the public model, each with its own initial parameters.

    Args:
        name: name of the model.
        checkout: folder with a checkout of the public code.
        data: training part.
        folder: folder for the files of the public code.
        config: run config of our model.
        seed: random seed of both.
    """
    learner = config.build_learner(data, seed, torch.device("cpu"))
    torch.manual_seed(seed)
    if name == "HeLLMPre":
        return learner, PublishedHeLLMPre(checkout, data, config.model_settings, folder)
    model = build_public_model(name, checkout, data, config, folder)
    model.pre_epoch_processing()
    return learner, MMRecModel(name, model)


def _find_drawn_edges(ours: Any, public: Any) -> Tensor:
    """Find the interactions that MMRec's FREEDOM drew, as indices into our edges."""
    indices = public.masked_adj._indices()[:, : public.masked_adj._nnz() // 2]
    edges = ours._edges
    drawn = set(zip(indices[0].tolist(), (indices[1] - N_USERS).tolist(), strict=True))
    pairs = zip((edges.row - 1).tolist(), (edges.col - 1).tolist(), strict=True)
    return torch.tensor([index for index, pair in enumerate(pairs) if pair in drawn])
