"""Compare our multimodal models with MMRec's, value by value: `python benchmarks/parity.py --mmrec DIR`.

Nothing of MMRec is part of this project: `git clone https://github.com/enoche/MMRec` and pass the folder. Both sides
get the same small data, weights and batches, with image and text and with image alone (the public code has no form for
three modalities), on two data sets; the second has a user and an item without interactions and two items with the same
features. Graphs are compared first, in the single precision in which both keep them. Everything after is in double
precision on one graph: scores of all users and items, the loss, the gradient of every parameter, and every parameter
after one and after three steps of Adam. An error is the length of the difference divided by the length of the public
value.

What differs on purpose is taken out of the comparison, and the models' docstrings name it: BM3's dropout is 0, for its
two sides draw from different tables; GRCN routes as the public code does, without a penalty of MMRec's own; LATTICE's
penalty is divided by the batch at hand; FREEDOM trains on the interactions that the public code draws.
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
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from baselines.registry import REGISTRY
from benchmarks.mmrec import public_model
from hellm_recbole.console import run_main
from hellm_recbole.errors import HellmError
from hellm_recbole.plan import Override, plan_rows
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
}


def counterparts(name: str, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """MMRec's parameter -> ours; several of ours stand one below the other there."""
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


@dataclass
class Sides:
    """The same model twice, in double precision, with the same weights.

    Attributes:
        name: of the model.
        ours: our model.
        theirs: MMRec's.
        pairs: name, our parameters and the one of theirs that they are.
        zero_idle: whether parameters without a part in a step have a gradient of zero, and not none.
    """

    name: str
    ours: Any
    theirs: Any
    pairs: list[tuple[str, list[nn.Parameter], nn.Parameter]]
    zero_idle: bool

    def loss(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Ours and theirs."""
        ours = torch.stack(list(self.ours.loss(batch).values())).sum()
        self.theirs.batch_size = len(batch.user)  # MMRec's LATTICE divides by the configured size
        columns = torch.stack([batch.user - 1, batch.positive - 1, batch.negative - 1])
        torch.set_default_dtype(torch.float64)  # MMRec adds up its penalties in what `torch.zeros` makes
        theirs = self.theirs.calculate_loss(columns).sum()
        torch.set_default_dtype(torch.float32)
        if self.name == "GRCN":
            theirs = theirs - self.theirs.reg_weight * self.theirs.v_gcn.preference.square().mean()
        return ours, theirs

    @torch.no_grad()
    def scores(self) -> tuple[Tensor, Tensor]:
        """[U, I] of both, SLMRec's through the public sigmoid."""
        encoded = self.ours.encode()
        ours = encoded.users[1:] @ encoded.items[1:].T
        if self.name == "GRCN":
            self.theirs.forward()
        if self.name == "SLMRec":
            self.theirs.all_users, self.theirs.all_items = self.theirs.compute()
            ours = ours.sigmoid()
        return ours, self.theirs.full_sort_predict([torch.arange(N_USERS)])

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
        for side, model in (("ours", self.ours), ("MMRec's", self.theirs)):
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
        kept, self.theirs.item_adj = self.theirs.item_adj.detach(), dense(self.ours._graph, N_ITEMS)
        return relative(self.theirs.item_adj, kept)

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


def graphs_of(name: str, ours: Any, theirs: Any) -> dict[str, tuple[Tensor, Any]]:
    """Attribute of the public model -> our operator, dense and without padding; GRCN has edges only."""
    both = N_USERS + N_ITEMS

    def bipartite(block: Tensor, turned: Tensor) -> Tensor:
        matrix = torch.zeros(both, both, dtype=torch.float64)
        matrix[:N_USERS, N_USERS:], matrix[N_USERS:, :N_USERS] = block, turned
        return matrix

    def symmetric(operator: Any) -> Tensor:
        block = dense(operator, N_ITEMS)
        return bipartite(block, block.T)

    if name == "FREEDOM":
        found = {
            "norm_adj": symmetric(ours.whole),
            "masked_adj": symmetric(ours.pruned),
            "mm_adj": dense(ours.items, N_ITEMS),
        }
    elif name == "LATTICE":
        walk = bipartite(dense(ours.user_mean, N_ITEMS), dense(ours.item_mean, N_USERS))
        walk.diagonal().copy_(torch.cat([ours.user_inverse[1:], ours.item_inverse[1:]]).ravel())
        found = {"norm_adj": walk}
        for operator, modality in zip(ours.fixed, ours.maps, strict=True):
            found[f"{modality}_original_adj"] = dense(operator, N_ITEMS)
    else:
        found = {} if name == "GRCN" else {"norm_adj": symmetric(ours.interactions)}
    return {attribute: (matrix, getattr(theirs, attribute)) for attribute, matrix in found.items()}


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
    (plan,) = plan_rows([name], "toy", REGISTRY, "paper", overrides)
    assert plan.spec is not None
    torch.manual_seed(2024)
    ours: Any = plan.spec.cls.build(plan.model_settings, data)
    theirs = public_model(name, checkout, data, plan, folder)
    for model in (ours, theirs):
        in_double(model)
        model.train()
    theirs.pre_epoch_processing()
    if name == "FREEDOM":
        ours.prune(_kept(ours, theirs))
        in_double(ours)
    graphs = graphs_of(name, ours, theirs)
    error = max((relative(matrix, kept.to_dense()) for matrix, kept in graphs.values()), default=0.0)
    for attribute, (matrix, kept) in graphs.items():
        setattr(theirs, attribute, matrix.to_sparse() if kept.is_sparse else matrix)
    own: dict[str, nn.Parameter] = dict(ours.named_parameters())
    public: dict[str, nn.Parameter] = dict(theirs.named_parameters())
    pairs = [
        (key, [own[part] for part in parts], public[key])
        for key, parts in counterparts(name, list(data.features)).items()
    ]
    with torch.no_grad():
        for _, parts, parameter in pairs:
            parameter.copy_(_joined(parts, parameter))
    zero_idle = getattr(plan.model_settings, "idle_gradients", "none") == "zero"
    return Sides(name, ours, theirs, pairs, zero_idle), error


def _kept(ours: Any, theirs: Any) -> Tensor:
    """Positions, in our order, of the interactions that MMRec's FREEDOM drew."""
    indices = theirs.masked_adj._indices()[:, : theirs.masked_adj._nnz() // 2]
    edges = ours._edges
    drawn = set(zip(indices[0].tolist(), (indices[1] - N_USERS).tolist(), strict=True))
    pairs = zip((edges.row - 1).tolist(), (edges.col - 1).tolist(), strict=True)
    return torch.tensor([at for at, pair in enumerate(pairs) if pair in drawn])


def compare(name: str, checkout: Path, data: TrainData) -> list[float]:
    """Errors of the graphs, scores, loss and gradients, and of the parameters after one and after three steps.

    Raises:
        DataError: the checkout is none of MMRec.
        MissingDependency: a package that MMRec's model imports is not installed.
        HellmError: a parameter without a counterpart has a gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides, graph_error = build(name, checkout, data, Path(folder))
    errors = [graph_error, relative(*sides.scores())]
    optimizers = [torch.optim.Adam(model.parameters(), lr=LEARNING_RATE) for model in (sides.ours, sides.theirs)]
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
    parser.add_argument("--mmrec", type=Path, required=True, help="a checkout of https://github.com/enoche/MMRec")
    options = parser.parse_args(argv)
    return run_main(lambda: _print(options.mmrec))


def _print(checkout: Path) -> int:
    rows: list[tuple[str, str, str, list[float]]] = []
    for name in CHANGED:
        for modalities in MODALITIES:
            for hard in (False, True):
                with contextlib.redirect_stdout(io.StringIO()):  # MMRec's models print
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
