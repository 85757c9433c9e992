"""Compare our models with their public code: `python benchmarks/upstream/parity.py --mmrec DIR --released DIR`.

The comparison is value by value. This project contains no public code. Run `git clone` on
https://github.com/enoche/MMRec for GRCN, LATTICE, SLMRec, BM3 and FREEDOM, and on https://github.com/Xu107/MMHCL for
HeLLMPre, and pass the folders.

Both sides get the same small data, weights and batches, with image and text features. MMRec's models are also compared
with image features only; its code does not support three modalities. There are two data sets. The second has a user and
an item without interactions, and two items with the same features.

The graphs are compared first, in single precision, which both sides use for them. The rest is compared in double
precision on the same graph: the scores of all users and items, the loss, the gradient of every parameter, and every
parameter after one and after three steps of Adam. An error is the norm of the difference divided by the norm of the
public value.

Intended differences, which the docstrings of the models describe, are removed before the comparison:

- BM3: the dropout is 0, because the two sides draw from different random streams.
- GRCN: ours uses the routing of the public code, and an additional penalty of MMRec is removed.
- LATTICE, HeLLMPre: the penalties are divided by the size of the current batch.
- FREEDOM: ours trains on the interactions that the public code draws.
- HeLLMPre: ours uses all nodes in the contrast.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import hellm_recbole.system.openmp  # noqa: F401

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from baselines.registry import REGISTRY
from benchmarks.upstream.mmrec import build_public_model
from benchmarks.upstream.released import Graphs, build_published_graphs, compute_published_loss, import_model
from hellm_recbole.config.request import Override
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.hellm_pre import DTYPES
from hellm_recbole.system.console import run_main
from hellm_recbole.types import Histories, PairBatch, TrainData

N_USERS, N_ITEMS, DENSITY = 40, 30, 0.15
WIDTHS = {"image": 12, "text": 16}
MODALITIES = (("image", "text"), ("image",))
BATCHES = (((1, 4, 6, 8, 10, 12), range(1, 7)), ((2, 2, 5, 9, 20, 31), (3, 7, 3, 8, 15, 29)), ((7, 3, 9), (2, 4, 22)))
FIRST_NEGATIVE = 10
GRAPH_BOUND, BOUND = 1e-6, 1e-10
LEARNING_RATE = 1e-3
CANCELS = 1e-12  # a gradient below this fraction of the largest one is a sum of terms that cancel each other
SHORT = {"image": "v", "text": "t"}  # names of the modalities in MMRec
# Values of our settings that differ from the settings files in this comparison.
CHANGED: dict[str, dict[str, object]] = {
    "FREEDOM": {"n_neighbors": 5, "edge_dropout": 0.6},
    "BM3": {"dropout": 0.0},
    "SLMRec": {},
    "GRCN": {"routing": "public"},
    "LATTICE": {"n_neighbors": 5},
    "HeLLMPre": {"n_neighbors": 5, "contrast_nodes": "all"},
}


def map_parameters(name: str, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Map each parameter of the public code to ours. Several of ours are concatenated along their first axis."""
    if name == "HeLLMPre":
        tables = {"user_ui": "user.bipartite", "item_ui": "item.bipartite", "uu": "user.hyper", "ii": "item.hyper"}
        return {f"{theirs}_embedding.weight": (f"{ours}.weight",) for theirs, ours in tables.items()}
    found: dict[str, tuple[str, ...]] = {}

    def add_linear(theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            found[f"{theirs}.{part}"] = (f"{ours}.{part}",)

    if name == "GRCN":
        found["id_gcn.id_embedding"] = ("user.weight", "item.weight")
        found["model_specific_conf"] = ("user_confidence.weight", "item_confidence.weight")
        for modality in modalities:
            found[f"{SHORT[modality]}_gcn.preference"] = (f"preferences.{modality}.weight",)
            add_linear(f"{SHORT[modality]}_gcn.MLP", f"maps.{modality}")
        return found
    if name == "SLMRec":
        found["embedding_user.weight"], found["embedding_item.weight"] = ("user.weight",), ("item.weight",)
        for modality in modalities:
            add_linear(f"{SHORT[modality]}_dense", f"maps.{modality}")
        add_linear("embedding_user_after_GCN", "fuse_user")
        add_linear("embedding_item_after_GCN", "fuse_item")
        add_linear("g_i_iv", "first")
        add_linear("g_v_iv", "heads.image")
        if len(modalities) > 1:
            add_linear("g_iv_iva", "steps.0")
            add_linear("g_iva_ivat", "last")
            add_linear("g_t_ivat", "heads.text")
        return found
    found["user_embedding.weight"], found["item_id_embedding.weight"] = ("user.weight",), ("item.weight",)
    for modality in modalities:
        found[f"{modality}_embedding.weight"] = (f"features.{modality}.weight",)
        add_linear(f"{modality}_trs", f"maps.{modality}")
        if name == "FREEDOM":
            del found[f"{modality}_trs.bias"]  # the bias cancels in every difference; ours has none
    if name == "BM3":
        add_linear("predictor", "predictor")
    # The public LATTICE always has two modality weights, and does not use them with one modality.
    if name == "LATTICE" and len(modalities) > 1:
        found["modal_weight"] = ("modality_logits",)
    return found


def make_data(names: Sequence[str], *, hard: bool) -> TrainData:
    """Make random interactions and features.

    Args:
        names: names of the modalities.
        hard: whether the last user and the last item have no interactions and two items have the same features. If
            false, every user and item has an interaction.
    """
    rng = np.random.default_rng(11 if hard else 7)
    matrix = rng.random((N_USERS, N_ITEMS)) < DENSITY
    matrix[np.arange(N_USERS), rng.integers(N_ITEMS - 1, size=N_USERS)] = True
    matrix[rng.integers(N_USERS - 1, size=N_ITEMS), np.arange(N_ITEMS)] = True
    features = {name: rng.normal(size=(N_ITEMS + 1, WIDTHS[name])).astype(np.float32) for name in names}
    if hard:
        matrix[-1] = False
        matrix[:, -1] = False
    for values in features.values():
        values[0] = 0.0
        if hard:
            values[3] = values[8]
    user, item = np.nonzero(matrix)
    return TrainData(N_USERS, N_ITEMS, Histories.from_pairs(user + 1, item + 1, N_USERS), features)


def make_batches() -> list[PairBatch]:
    """Make the batches of the steps. The second has a repeated user and a repeated item; the last is shorter."""
    return [
        PairBatch(
            torch.tensor(list(user)),
            torch.tensor(list(positive)),
            torch.arange(FIRST_NEGATIVE, FIRST_NEGATIVE + len(list(user))),
        )
        for user, positive in BATCHES
    ]


def compute_relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Compute the norm of the difference divided by the norm of theirs. If theirs is zero, return the norm of ours."""
    norm = float(theirs.norm())
    return float((ours.double() - theirs.double()).norm()) / (norm or 1.0)


class Public(Protocol):
    """Interface of a public implementation in this comparison.

    Attributes:
        module: module with the parameters.
    """

    module: nn.Module

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores."""


class MMRecModel:
    """A model of MMRec. Its graphs are attributes of the module."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""
        graph: Tensor = getattr(self.module, name).detach().to_dense()
        return graph

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""
        setattr(self.module, name, matrix.to_sparse() if getattr(self.module, name).is_sparse else matrix)

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""
        self.module.batch_size = len(batch.user)  # LATTICE divides by the configured size
        columns = torch.stack([batch.user - 1, batch.positive - 1, batch.negative - 1])
        torch.set_default_dtype(torch.float64)  # penalties are summed in the type of `torch.zeros`
        loss: Tensor = self.module.calculate_loss(columns).sum()
        torch.set_default_dtype(torch.float32)
        return (
            loss - self.module.reg_weight * self.module.v_gcn.preference.square().mean()
            if self.name == "GRCN"
            else loss
        )

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores, those of SLMRec without their sigmoid."""
        if self.name == "GRCN":
            self.module.forward()
        if self.name == "SLMRec":
            self.module.all_users, self.module.all_items = self.module.compute()
        scores: Tensor = self.module.full_sort_predict([torch.arange(N_USERS)])
        return scores.logit() if self.name == "SLMRec" else scores


class PublishedHeLLMPre:
    """MMHCL with the graphs that its own code builds."""

    GRAPHS = ("interactions", "items", "users")

    def __init__(self, checkout: Path, data: TrainData, settings: Any, folder: Path) -> None:
        self.module = import_model(checkout, settings)(N_USERS, N_ITEMS, settings.emb_dim)
        self.settings = settings
        self.graphs = dict(zip(self.GRAPHS, build_published_graphs(checkout, data, settings, folder), strict=True))

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""
        return self.graphs[name]

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""
        self.graphs[name] = matrix

    def _list_graphs(self) -> Graphs:
        """Return the graphs in the order of the published code."""
        return self.graphs["interactions"], self.graphs["items"], self.graphs["users"]

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""
        return compute_published_loss(self.module, self._list_graphs(), self.settings, batch, len(batch.user))

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores."""
        users, items, _, _ = self.module(*self._list_graphs())
        scores: Tensor = users @ items.T
        return scores


@dataclass
class Sides:
    """Our model and the public one, in double precision and with the same weights.

    Attributes:
        name: name of the model.
        ours: our model.
        theirs: public model.
        pairs: for each parameter of the public model its name, our parameters and the public parameter.
        zero_idle: whether a parameter that a step does not use has a gradient of zero. If false, it has no gradient.
    """

    name: str
    ours: Any
    theirs: Public
    pairs: list[tuple[str, list[nn.Parameter], nn.Parameter]]
    zero_idle: bool

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
            (name, _concatenate([_read_gradient(part) for part in own], theirs), _read_gradient(theirs))
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
            compute_relative_error(_concatenate([part.detach() for part in own], theirs), theirs.detach())
            for _, own, theirs in self.pairs
        )


def _read_gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient of a parameter, zero if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _concatenate(parts: Sequence[Tensor], theirs: Tensor) -> Tensor:
    """Concatenate our tensors along the first axis, without their padding rows, which the public code does not have."""
    n_padding = (sum(len(part) for part in parts) - len(theirs)) // len(parts)
    return torch.cat([part[n_padding:] for part in parts])


def make_dense(operator: Any, width: int) -> Tensor:
    """Return a graph operator as a dense matrix of `width` columns, without the padding row and column."""
    applied: Tensor = operator(torch.eye(width + 1, dtype=torch.float64))
    return applied[1:, 1:]


def list_graphs(name: str, ours: Any) -> dict[str, Tensor]:
    """Return our graphs as dense matrices without padding, by their names in the public code.

    GRCN has none, because it stores edges instead of a matrix.
    """
    size = N_USERS + N_ITEMS

    def join_blocks(user_item: Tensor, item_user: Tensor) -> Tensor:
        matrix = torch.zeros(size, size, dtype=torch.float64)
        matrix[:N_USERS, N_USERS:], matrix[N_USERS:, :N_USERS] = user_item, item_user
        return matrix

    def make_symmetric(operator: Any) -> Tensor:
        block = make_dense(operator, N_ITEMS)
        return join_blocks(block, block.T)

    if name == "GRCN":
        return {}
    if name == "FREEDOM":
        return {
            "norm_adj": make_symmetric(ours.whole_graph),
            "masked_adj": make_symmetric(ours.denoised_graph),
            "mm_adj": make_dense(ours.item_graph, N_ITEMS),
        }
    if name == "HeLLMPre":
        return {
            "interactions": make_symmetric(ours.interactions),
            "users": make_dense(ours.user.hypergraph, N_USERS),
            "items": make_dense(ours.item.hypergraph, N_ITEMS),
        }
    if name == "LATTICE":
        walk = join_blocks(make_dense(ours.user_mean, N_ITEMS), make_dense(ours.item_mean, N_USERS))
        walk.diagonal().copy_(torch.cat([ours.user_inverse[1:], ours.item_inverse[1:]]).ravel())
        fixed = {
            f"{name}_original_adj": make_dense(part, N_ITEMS)
            for name, part in zip(ours.maps, ours.fixed_graphs, strict=True)
        }
        return {"norm_adj": walk, **fixed}
    return {"norm_adj": make_symmetric(ours.interactions)}


def convert_to_double(model: nn.Module) -> None:
    """Convert parameters, buffers, and dense tensors that are plain attributes to double precision."""
    model.double()
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
                setattr(module, key, value.double())


def build_sides(name: str, checkout: Path, data: TrainData, folder: Path) -> tuple[Sides, float]:
    """Build both sides on the same graphs, and compute the largest error between their original graphs."""
    changed = {"emb_dim": 8, **CHANGED[name]}
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in changed.items()]
    config = resolve_own_run(name, "toy", REGISTRY, "paper", overrides)
    settings: Any = config.model_settings
    torch.manual_seed(2024)
    ours: Any = config.spec.cls.build(settings, data)
    theirs: Public
    if name == "HeLLMPre":
        theirs = PublishedHeLLMPre(checkout, data, settings, folder)
    else:
        model = build_public_model(name, checkout, data, config, folder)
        model.pre_epoch_processing()
        theirs = MMRecModel(name, model)
        if name == "FREEDOM":
            ours.prune(_find_drawn_edges(ours, model))
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
            parameter.copy_(_concatenate(parts, parameter))
    return Sides(name, ours, theirs, pairs, getattr(settings, "idle_gradients", "none") == "zero"), error


def _find_drawn_edges(ours: Any, public: Any) -> Tensor:
    """Find the interactions that MMRec's FREEDOM drew, as indices into our edges."""
    indices = public.masked_adj._indices()[:, : public.masked_adj._nnz() // 2]
    edges = ours._edges
    drawn = set(zip(indices[0].tolist(), (indices[1] - N_USERS).tolist(), strict=True))
    pairs = zip((edges.row - 1).tolist(), (edges.col - 1).tolist(), strict=True)
    return torch.tensor([index for index, pair in enumerate(pairs) if pair in drawn])


def compare(name: str, checkout: Path, data: TrainData) -> list[float]:
    """Compute the errors of graphs, scores, loss and gradients, and of the parameters after one and after three steps.

    Raises:
        DataError: the folder is not a checkout of the public code.
        MissingDependency: a package that MMRec's model imports is not installed.
        HellmError: a parameter without a counterpart has a gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides, graph_error = build_sides(name, checkout.resolve(), data, Path(folder))
    errors = [graph_error, compute_relative_error(*sides.compute_scores())]
    optimizers = [torch.optim.Adam(model.parameters(), lr=LEARNING_RATE) for model in (sides.ours, sides.theirs.module)]
    for step, batch in enumerate(make_batches()):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=not sides.zero_idle)
        losses = sides.compute_losses(batch)
        for loss in losses:
            loss.backward()
        if step == 0:
            errors += [compute_relative_error(*(loss.detach() for loss in losses)), sides.compute_gradient_error()]
            errors[0] = max(errors[0], sides.share_learned_graph())
        for optimizer in optimizers:
            optimizer.step()
        if step in (0, len(BATCHES) - 1):
            errors.append(sides.compute_parameter_error())
    return errors


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of errors. The exit code is 1 if an error is above its bound."""
    parser = argparse.ArgumentParser(prog="parity.py", description=__doc__)
    parser.add_argument("--mmrec", type=Path, help="folder with a checkout of https://github.com/enoche/MMRec")
    parser.add_argument("--released", type=Path, help="folder with a checkout of https://github.com/Xu107/MMHCL")
    options = parser.parse_args(argv)
    return run_main(lambda: _print_errors(options.mmrec, options.released))


def _print_errors(mmrec: Path | None, released: Path | None) -> int:
    """Compare the models and print the table of errors.

    Raises:
        SettingsError: no checkout is given.
    """
    checkouts = {name: released if name == "HeLLMPre" else mmrec for name in CHANGED}
    if not any(checkouts.values()):
        raise SettingsError("parity needs --mmrec or --released with a checkout of the public code")
    rows: list[tuple[str, str, str, list[float]]] = []
    for name, checkout in checkouts.items():
        for modalities in MODALITIES if name != "HeLLMPre" else MODALITIES[:1]:
            for hard in (False, True):
                if checkout is None:
                    continue
                with contextlib.redirect_stdout(io.StringIO()):  # hides the output of the public code
                    errors = compare(name, checkout, make_data(modalities, hard=hard))
                rows.append((name, " + ".join(modalities), "second" if hard else "first", errors))
    lines = [(*what, *(f"{error:.1e}" for error in errors)) for *what, errors in rows]
    heads = ["Model", "Modalities", "Data", "Graphs", "Scores", "Loss", "Gradients", "1 step", "3 steps"]
    print(tabulate(lines, headers=heads, disable_numparse=True))
    failed = [name for name, _, _, (graphs, *others) in rows if graphs > GRAPH_BOUND or not max(others) <= BOUND]
    if failed:
        print(f"above {GRAPH_BOUND:g} (graphs) or {BOUND:g}: {', '.join(dict.fromkeys(failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
