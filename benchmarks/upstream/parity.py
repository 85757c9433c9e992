"""Compare our models with their public code: `python benchmarks/upstream/parity.py --mmrec DIR --released DIR`.

The comparison is value by value. Nothing of that code is part of this project: run `git clone` on
https://github.com/enoche/MMRec for GRCN, LATTICE, SLMRec, BM3 and FREEDOM, and on https://github.com/Xu107/MMHCL for
HeLLMPre, and pass the folders. Both sides get the same small data,
weights and batches, with image and text, and MMRec's with image alone, too (its code has no form for three modalities),
on two data sets; the second has a user and an item without interactions and two items with the same features. Graphs
are compared first, in the single precision in which both keep them. Everything after is in double precision on one
graph: scores of all users and items, the loss, the gradient of every parameter, and every parameter after one and after
three steps of Adam. An error is the length of the difference divided by the length of the public value.

What differs on purpose is taken out of the comparison, and the models' docstrings name it: BM3's dropout is 0, for its
two sides draw from different tables; GRCN routes as the public code does, without a penalty of MMRec's own; LATTICE's
and HeLLMPre's penalties are divided by the batch at hand; FREEDOM trains on the interactions that the public code
draws; HeLLMPre contrasts all nodes.
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
from benchmarks.upstream.mmrec import public_model
from benchmarks.upstream.released import Graphs, import_model, published_graphs, published_loss
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.experiments.resolve import Override, resolve_runs
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
CANCELS = 1e-12  # a gradient this much smaller than the largest is a sum that cancels
SHORT = {"image": "v", "text": "t"}
# Of our settings, what the comparison needs to be otherwise than in the files.
CHANGED: dict[str, dict[str, object]] = {
    "FREEDOM": {"n_neighbors": 5, "edge_dropout": 0.6},
    "BM3": {"dropout": 0.0},
    "SLMRec": {},
    "GRCN": {"routing": "public"},
    "LATTICE": {"n_neighbors": 5},
    "HeLLMPre": {"n_neighbors": 5, "contrast_nodes": "all"},
}


def counterparts(name: str, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The public side's parameter -> ours; several of ours stand one below the other there."""
    if name == "HeLLMPre":
        tables = {"user_ui": "user.bipartite", "item_ui": "item.bipartite", "uu": "user.hyper", "ii": "item.hyper"}
        return {f"{theirs}_embedding.weight": (f"{ours}.weight",) for theirs, ours in tables.items()}
    found: dict[str, tuple[str, ...]] = {}

    def linear(theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            found[f"{theirs}.{part}"] = (f"{ours}.{part}",)

    if name == "GRCN":
        found["id_gcn.id_embedding"] = ("user.weight", "item.weight")
        found["model_specific_conf"] = ("user_confidence.weight", "item_confidence.weight")
        for modality in modalities:
            found[f"{SHORT[modality]}_gcn.preference"] = (f"preferences.{modality}.weight",)
            linear(f"{SHORT[modality]}_gcn.MLP", f"maps.{modality}")
        return found
    if name == "SLMRec":
        found["embedding_user.weight"], found["embedding_item.weight"] = ("user.weight",), ("item.weight",)
        for modality in modalities:
            linear(f"{SHORT[modality]}_dense", f"maps.{modality}")
        linear("embedding_user_after_GCN", "fuse_user")
        linear("embedding_item_after_GCN", "fuse_item")
        linear("g_i_iv", "first")
        linear("g_v_iv", "heads.image")
        if len(modalities) > 1:
            linear("g_iv_iva", "steps.0")
            linear("g_iva_ivat", "last")
            linear("g_t_ivat", "heads.text")
        return found
    found["user_embedding.weight"], found["item_id_embedding.weight"] = ("user.weight",), ("item.weight",)
    for modality in modalities:
        found[f"{modality}_embedding.weight"] = (f"features.{modality}.weight",)
        linear(f"{modality}_trs", f"maps.{modality}")
        if name == "FREEDOM":
            del found[f"{modality}_trs.bias"]  # it cancels in every difference, and ours has none
    if name == "BM3":
        linear("predictor", "predictor")
    if name == "LATTICE" and len(modalities) > 1:  # the public code always has two weights, and reads none of one
        found["modal_weight"] = ("modality_logits",)
    return found


def toy_data(names: Sequence[str], *, hard: bool) -> TrainData:
    """Random interactions and features; every user and item has one, but for the last of each where it is `hard`."""
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


def batches() -> list[PairBatch]:
    """The triples of the steps; the last is shorter than the others, the second has a user and an item twice."""
    return [
        PairBatch(
            torch.tensor(list(user)),
            torch.tensor(list(positive)),
            torch.arange(FIRST_NEGATIVE, FIRST_NEGATIVE + len(list(user))),
        )
        for user, positive in BATCHES
    ]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Length of the difference divided by the length of theirs; the length of ours where theirs is zero."""
    length = float(theirs.norm())
    return float((ours.double() - theirs.double()).norm()) / (length or 1.0)


class Public(Protocol):
    """A public implementation as this comparison sees it.

    Attributes:
        module: holds the parameters.
    """

    module: nn.Module

    def graph(self, name: str) -> Tensor:
        """One of its operators, dense."""

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Use another one, dense."""

    def loss(self, batch: PairBatch) -> Tensor:
        """Scalar."""

    def scores(self) -> Tensor:
        """[U, I]."""


class MMRecModel:
    """One of MMRec's; its operators are attributes."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module

    def graph(self, name: str) -> Tensor:
        """One of its operators, dense."""
        found: Tensor = getattr(self.module, name).detach().to_dense()
        return found

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Use another one, dense."""
        setattr(self.module, name, matrix.to_sparse() if getattr(self.module, name).is_sparse else matrix)

    def loss(self, batch: PairBatch) -> Tensor:
        """Scalar."""
        self.module.batch_size = len(batch.user)  # LATTICE divides by the configured size
        columns = torch.stack([batch.user - 1, batch.positive - 1, batch.negative - 1])
        torch.set_default_dtype(torch.float64)  # penalties are added up in what `torch.zeros` makes
        loss: Tensor = self.module.calculate_loss(columns).sum()
        torch.set_default_dtype(torch.float32)
        return (
            loss - self.module.reg_weight * self.module.v_gcn.preference.square().mean()
            if self.name == "GRCN"
            else loss
        )

    def scores(self) -> Tensor:
        """[U, I], SLMRec's without their sigmoid."""
        if self.name == "GRCN":
            self.module.forward()
        if self.name == "SLMRec":
            self.module.all_users, self.module.all_items = self.module.compute()
        scores: Tensor = self.module.full_sort_predict([torch.arange(N_USERS)])
        return scores.logit() if self.name == "SLMRec" else scores


class PublishedHeLLMPre:
    """MMHCL on its own graphs."""

    GRAPHS = ("interactions", "items", "users")

    def __init__(self, checkout: Path, data: TrainData, settings: Any, folder: Path) -> None:
        self.module = import_model(checkout, settings)(N_USERS, N_ITEMS, settings.emb_dim)
        self.settings = settings
        self.graphs = dict(zip(self.GRAPHS, published_graphs(checkout, data, settings, folder), strict=True))

    def graph(self, name: str) -> Tensor:
        """One of its operators, dense."""
        return self.graphs[name]

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Use another one, dense."""
        self.graphs[name] = matrix

    def _operators(self) -> Graphs:
        return self.graphs["interactions"], self.graphs["items"], self.graphs["users"]

    def loss(self, batch: PairBatch) -> Tensor:
        """Scalar."""
        return published_loss(self.module, self._operators(), self.settings, batch, len(batch.user))

    def scores(self) -> Tensor:
        """[U, I]."""
        users, items, _, _ = self.module(*self._operators())
        scores: Tensor = users @ items.T
        return scores


@dataclass
class Sides:
    """The same model twice, in double precision, with the same weights.

    Attributes:
        name: of the model.
        ours: our model.
        theirs: the public one.
        pairs: name, our parameters and the one of theirs that they are.
        zero_idle: whether parameters without a part in a step have a gradient of zero, and not none.
    """

    name: str
    ours: Any
    theirs: Public
    pairs: list[tuple[str, list[nn.Parameter], nn.Parameter]]
    zero_idle: bool

    def loss(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Ours and theirs."""
        with patch.dict(DTYPES, float32=torch.float64):  # of the products inside HeLLMPre's contrasts
            ours = torch.stack(list(self.ours.loss(batch).values())).sum()
        return ours, self.theirs.loss(batch)

    @torch.no_grad()
    def scores(self) -> tuple[Tensor, Tensor]:
        """[U, I] of both."""
        encoded = self.ours.encode()
        return encoded.users[1:] @ encoded.items[1:].T, self.theirs.scores()

    def gradient_error(self) -> float:
        """The largest over the parameters.

        Raises:
            HellmError: a parameter without a counterpart has a gradient.
        """
        gradients = [
            (name, _joined([_gradient(part) for part in own], theirs), _gradient(theirs))
            for name, own, theirs in self.pairs
        ]
        largest = max(float(theirs.norm()) for _, _, theirs in gradients)
        compared = {id(part) for _, own, theirs in self.pairs for part in (*own, theirs)}
        for side, model in (("ours", self.ours), ("theirs", self.theirs.module)):
            for name, parameter in model.named_parameters():
                if id(parameter) not in compared and float(_gradient(parameter).norm()) > CANCELS * largest:
                    raise HellmError(f"{self.name}: {name} of {side} has a gradient and no counterpart")
        lengths = [float(theirs.norm()) for _, _, theirs in gradients]
        return max(
            float((ours - theirs).norm()) / (length if length > CANCELS * largest else largest)
            for (_, ours, theirs), length in zip(gradients, lengths, strict=True)
        )

    def share_learned_graph(self) -> float:
        """Give LATTICE's public side the graph that ours keeps for the later steps of an epoch; the error of theirs."""
        if self.name != "LATTICE":
            return 0.0
        in_double(self.ours)
        learned, kept = dense(self.ours._graph, N_ITEMS), self.theirs.graph("item_adj")
        self.theirs.replace_graph("item_adj", learned)
        return relative(learned, kept)

    def parameter_error(self) -> float:
        """The largest over the parameters."""
        return max(
            relative(_joined([part.detach() for part in own], theirs), theirs.detach()) for _, own, theirs in self.pairs
        )


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _joined(parts: Sequence[Tensor], theirs: Tensor) -> Tensor:
    """Ours one below the other, without the padding rows that theirs lacks."""
    n_padding = (sum(len(part) for part in parts) - len(theirs)) // len(parts)
    return torch.cat([part[n_padding:] for part in parts])


def dense(operator: Any, width: int) -> Tensor:
    """An operator without padding, of so many columns."""
    applied: Tensor = operator(torch.eye(width + 1, dtype=torch.float64))
    return applied[1:, 1:]


def graphs_of(name: str, ours: Any) -> dict[str, Tensor]:
    """The public side's name of an operator -> ours, dense and without padding; GRCN has edges only."""
    both = N_USERS + N_ITEMS

    def bipartite(block: Tensor, turned: Tensor) -> Tensor:
        matrix = torch.zeros(both, both, dtype=torch.float64)
        matrix[:N_USERS, N_USERS:], matrix[N_USERS:, :N_USERS] = block, turned
        return matrix

    def symmetric(operator: Any) -> Tensor:
        block = dense(operator, N_ITEMS)
        return bipartite(block, block.T)

    if name == "GRCN":
        return {}
    if name == "FREEDOM":
        return {
            "norm_adj": symmetric(ours.whole_graph),
            "masked_adj": symmetric(ours.denoised_graph),
            "mm_adj": dense(ours.item_graph, N_ITEMS),
        }
    if name == "HeLLMPre":
        return {
            "interactions": symmetric(ours.interactions),
            "users": dense(ours.user.hypergraph, N_USERS),
            "items": dense(ours.item.hypergraph, N_ITEMS),
        }
    if name == "LATTICE":
        walk = bipartite(dense(ours.user_mean, N_ITEMS), dense(ours.item_mean, N_USERS))
        walk.diagonal().copy_(torch.cat([ours.user_inverse[1:], ours.item_inverse[1:]]).ravel())
        fixed = {
            f"{name}_original_adj": dense(part, N_ITEMS)
            for name, part in zip(ours.maps, ours.fixed_graphs, strict=True)
        }
        return {"norm_adj": walk, **fixed}
    return {"norm_adj": symmetric(ours.interactions)}


def in_double(model: nn.Module) -> None:
    """Parameters, buffers, and the dense tensors that the public code keeps as plain attributes."""
    model.double()
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
                setattr(module, key, value.double())


def build(name: str, checkout: Path, data: TrainData, folder: Path) -> tuple[Sides, float]:
    """Both sides on one graph, and the largest error between their graphs."""
    changed = {"emb_dim": 8, **CHANGED[name]}
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in changed.items()]
    (config,) = resolve_runs([name], "toy", REGISTRY, "paper", overrides)
    assert config.spec is not None
    settings: Any = config.model_settings
    torch.manual_seed(2024)
    ours: Any = config.spec.cls.build(settings, data)
    theirs: Public
    if name == "HeLLMPre":
        theirs = PublishedHeLLMPre(checkout, data, settings, folder)
    else:
        model = public_model(name, checkout, data, config, folder)
        model.pre_epoch_processing()
        theirs = MMRecModel(name, model)
        if name == "FREEDOM":
            ours.prune(_kept(ours, model))
    for module in (ours, theirs.module):
        in_double(module)
        module.train()
    graphs = graphs_of(name, ours)
    error = max((relative(matrix, theirs.graph(graph)) for graph, matrix in graphs.items()), default=0.0)
    for graph, matrix in graphs.items():
        theirs.replace_graph(graph, matrix)
    own: dict[str, nn.Parameter] = dict(ours.named_parameters())
    public = dict(theirs.module.named_parameters())
    pairs = [
        (key, [own[part] for part in parts], public[key])
        for key, parts in counterparts(name, list(data.features)).items()
    ]
    with torch.no_grad():
        for _, parts, parameter in pairs:
            parameter.copy_(_joined(parts, parameter))
    return Sides(name, ours, theirs, pairs, getattr(settings, "idle_gradients", "none") == "zero"), error


def _kept(ours: Any, public: Any) -> Tensor:
    """Positions, in our order, of the interactions that MMRec's FREEDOM drew."""
    indices = public.masked_adj._indices()[:, : public.masked_adj._nnz() // 2]
    edges = ours._edges
    drawn = set(zip(indices[0].tolist(), (indices[1] - N_USERS).tolist(), strict=True))
    pairs = zip((edges.row - 1).tolist(), (edges.col - 1).tolist(), strict=True)
    return torch.tensor([at for at, pair in enumerate(pairs) if pair in drawn])


def compare(name: str, checkout: Path, data: TrainData) -> list[float]:
    """Errors of the graphs, scores, loss and gradients, and of the parameters after one and after three steps.

    Raises:
        DataError: the checkout is of something else.
        MissingDependency: a package that MMRec's model imports is not installed.
        HellmError: a parameter without a counterpart has a gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides, graph_error = build(name, checkout.resolve(), data, Path(folder))
    errors = [graph_error, relative(*sides.scores())]
    optimizers = [torch.optim.Adam(model.parameters(), lr=LEARNING_RATE) for model in (sides.ours, sides.theirs.module)]
    for step, batch in enumerate(batches()):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=not sides.zero_idle)
        losses = sides.loss(batch)
        for loss in losses:
            loss.backward()
        if step == 0:
            errors += [relative(*(loss.detach() for loss in losses)), sides.gradient_error()]
            errors[0] = max(errors[0], sides.share_learned_graph())
        for optimizer in optimizers:
            optimizer.step()
        if step in (0, len(BATCHES) - 1):
            errors.append(sides.parameter_error())
    return errors


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of errors; the exit code is 1 where one is above its bound."""
    parser = argparse.ArgumentParser(prog="parity.py", description=__doc__)
    parser.add_argument("--mmrec", type=Path, help="a checkout of https://github.com/enoche/MMRec")
    parser.add_argument("--released", type=Path, help="a checkout of https://github.com/Xu107/MMHCL")
    options = parser.parse_args(argv)
    return run_main(lambda: _print(options.mmrec, options.released))


def _print(mmrec: Path | None, released: Path | None) -> int:
    checkouts = {name: released if name == "HeLLMPre" else mmrec for name in CHANGED}
    if not any(checkouts.values()):
        raise SettingsError("parity needs --mmrec or --released, a checkout of the public code to compare with")
    rows: list[tuple[str, str, str, list[float]]] = []
    for name, checkout in checkouts.items():
        for modalities in MODALITIES if name != "HeLLMPre" else MODALITIES[:1]:
            for hard in (False, True):
                if checkout is None:
                    continue
                with contextlib.redirect_stdout(io.StringIO()):  # public code prints
                    errors = compare(name, checkout, toy_data(modalities, hard=hard))
                rows.append((name, " + ".join(modalities), "second" if hard else "first", errors))
    shown = [(*what, *(f"{error:.1e}" for error in errors)) for *what, errors in rows]
    heads = ["Model", "Modalities", "Data", "Graphs", "Scores", "Loss", "Gradients", "1 step", "3 steps"]
    print(tabulate(shown, headers=heads, disable_numparse=True))
    fails = [name for name, _, _, (graphs, *others) in rows if graphs > GRAPH_BOUND or not max(others) <= BOUND]
    if fails:
        print(f"above {GRAPH_BOUND:g} (graphs) or {BOUND:g}: {', '.join(dict.fromkeys(fails))}", file=sys.stderr)
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
