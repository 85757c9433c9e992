"""Small training data, on which models are compared with their references, and the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from hellm_recbole.types import Encoded, Histories, PairBatch, TrainData

N_USERS, N_ITEMS, WIDTH = 12, 10, 5
MODALITY_WIDTHS = {"audio": 6, "image": 4, "text": 8, "video": 3}
PAPER = ("image", "text")  # the modalities in the papers of the models
MISSING = {"image": [5, 8], "text": [2, 4, 5]}  # items of `BATCH` that lack a modality; item 5 lacks both
BATCH = PairBatch(torch.tensor([1, 4, 4, 9, 12]), torch.tensor([2, 3, 2, 7, 10]), torch.tensor([5, 2, 8, 1, 4]))
IDS = BATCH.user - 1, BATCH.positive - 1, BATCH.negative - 1  # references count from 0


def build_train_data(*names: str) -> TrainData:
    """Build random training data with the given modalities.

    User 12 and item 10 have no interaction. One pair occurs twice.
    """
    rng = np.random.default_rng(5)
    user, item = np.nonzero(rng.random((N_USERS - 1, N_ITEMS - 1)) < 0.35)
    user, item = np.append(user, user[3]) + 1, np.append(item, item[3]) + 1
    features = {}
    for name, width in MODALITY_WIDTHS.items():
        values = rng.normal(size=(N_ITEMS + 1, width)).astype(np.float32)
        values[0] = 0.0
        features[name] = values
    history = Histories.from_pairs(user, item, N_USERS)
    return TrainData(N_USERS, N_ITEMS, history, {name: features[name] for name in names})


def hide_features(data: TrainData, missing: Mapping[str, Sequence[int]]) -> TrainData:
    """Say that some items lack a modality; their rows keep the values, as fill values.

    Args:
        data: training data.
        missing: modality -> ids of the items that lack it; the others lack none.
    """
    covered = {}
    for name in data.features:
        covered[name] = np.arange(data.n_items + 1) > 0
        covered[name][list(missing.get(name, []))] = False
    return replace(data, covered=covered)


def build_case_data(names: Sequence[str], changes: Mapping[str, object]) -> TrainData:
    """Build the training data of a case: some items lack a modality if its settings mask missing features."""
    data = build_train_data(*names)
    return hide_features(data, MISSING) if changes.get("missing_features") == "masked" else data


def get_covered(data: TrainData, name: str) -> list[int]:
    """List the items (from 0) that have a modality."""
    return [int(item) - 1 for item in np.flatnonzero(data.covered[name])]


def build_interactions(data: TrainData) -> Tensor:
    """Build the binary [U, I] interaction matrix in double precision."""
    matrix = torch.zeros(data.n_users, data.n_items, dtype=torch.float64)
    for user in range(1, data.n_users + 1):
        for item in data.history.get_items(user):
            matrix[user - 1, int(item) - 1] = 1.0
    return matrix


def get_features(data: TrainData, name: str) -> Tensor:
    """Return the [I, D_m] features of a modality in double precision."""
    return torch.from_numpy(np.array(data.features[name][1:])).double()


def copy_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Copy every parameter in double precision, without the padding entry of tables and biases of items.

    The copies require gradients.
    """
    tables = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)} | {
        "item_bias"
    }
    return {
        name: values.detach()[1 if name in tables else 0 :].double().requires_grad_()
        for name, values in model.named_parameters()
    }


def apply_linear(tables: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    """Compute `W x + b` for each row, with the weights of the named map."""
    product = rows @ tables[f"{name}.weight"].T
    return product + tables[f"{name}.bias"] if f"{name}.bias" in tables else product


def run_backward(terms: Mapping[str, Tensor]) -> None:
    """Compute the gradients of the sum of the terms."""
    torch.stack(list(terms.values())).sum().backward()


def assert_same_vectors(encoded: Encoded, user: Tensor, item: Tensor) -> None:
    """Compare all vectors but those of padding; the tolerance is 1e-5 of the length of each vector."""
    assert encoded.users is not None
    for got, expected in ((encoded.users, user), (encoded.items, item)):
        assert got[1:].shape == expected.shape
        error = (got[1:].detach().double() - expected).norm(dim=1)
        assert (error <= 1e-5 * expected.norm(dim=1)).all()


def assert_same_terms(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare the names and the values of loss terms, with a relative tolerance of 1e-5."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == ()
        assert abs(float(got[name].detach()) - float(value.detach())) <= 1e-5 * abs(float(value.detach())), name


def assert_same_gradients(model: nn.Module, tables: Mapping[str, Tensor], without: Sequence[str] = ()) -> None:
    """Compare the gradient of each parameter, to 1e-5 of its length; padding rows must have no gradient.

    Some gradients cancel to zero, such as that of a bias that shifts all logits of a softmax. Their summands are as
    large as other gradients, so that single precision has an error of a few times 1e-7 of the largest gradient.

    Args:
        model: model after its backward pass.
        tables: parameters of `copy_parameters` after the backward pass of the reference.
        without: prefixes of the names of parameters that must have no gradient.
    """
    largest = max(float(table.grad.norm()) for table in tables.values() if table.grad is not None)
    assert {name for name, _ in model.named_parameters()} == tables.keys()
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(without)):
            assert parameter.grad is None, name
            continue
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        table = tables[name]
        expected = torch.zeros_like(table) if table.grad is None else table.grad
        n_padding = len(got) - len(expected)
        assert not got[:n_padding].any(), name
        error, length = float((got[n_padding:].double() - expected).norm()), float(expected.norm())
        assert error <= (1e-5 * length if length > 1e-12 * largest else 5e-7 * largest), name
