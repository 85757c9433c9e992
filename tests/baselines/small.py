"""A small graph on which models are compared with their references, and the comparison itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hellm_recbole.types import Encoded, Histories, PairBatch, TrainData

N_USERS, N_ITEMS, WIDTH = 12, 10, 5
MODALITY_WIDTHS = {"audio": 6, "image": 4, "text": 8, "video": 3}
PAPER = ("image", "text")  # the modalities of the methods' own papers
BATCH = PairBatch(torch.tensor([1, 4, 4, 9, 12]), torch.tensor([2, 3, 2, 7, 10]), torch.tensor([5, 2, 8, 1, 4]))
IDS = BATCH.user - 1, BATCH.positive - 1, BATCH.negative - 1  # as references count


def train_data(*names: str) -> TrainData:
    """User 12 and item 10 have no interaction; one pair occurs twice."""
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


def interactions(data: TrainData) -> Tensor:
    """Binary [U, I], double."""
    matrix = torch.zeros(data.n_users, data.n_items, dtype=torch.float64)
    for user in range(1, data.n_users + 1):
        for item in data.history.of(user):
            matrix[user - 1, int(item) - 1] = 1.0
    return matrix


def raw(data: TrainData, name: str) -> Tensor:
    """[I, D_m] features of a modality, double."""
    return torch.from_numpy(np.array(data.features[name][1:])).double()


def leaves(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter in double precision, without the padding row where it is a table; ready for gradients."""
    tables = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}
    return {
        name: values.detach()[1 if name in tables else 0 :].double().requires_grad_()
        for name, values in model.named_parameters()
    }


def linear(tables: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    """`W x + b` for each row, of the named map."""
    product = rows @ tables[f"{name}.weight"].T
    return product + tables[f"{name}.bias"] if f"{name}.bias" in tables else product


def backward(terms: Mapping[str, Tensor]) -> None:
    """Of the sum of the terms."""
    torch.stack(list(terms.values())).sum().backward()


def assert_same_vectors(encoded: Encoded, user: Tensor, item: Tensor) -> None:
    """All rows but those of padding, to 1e-5 of each row's length."""
    assert encoded.users is not None
    for got, wanted in ((encoded.users, user), (encoded.items, item)):
        assert got[1:].shape == wanted.shape
        error = (got[1:].detach().double() - wanted).norm(dim=1)
        assert (error <= 1e-5 * wanted.norm(dim=1)).all()


def assert_same_terms(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same names and, to 1e-5, the same values."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].shape == ()
        assert abs(float(got[name].detach()) - float(value.detach())) <= 1e-5 * abs(float(value.detach())), name


def assert_same_gradients(model: nn.Module, tables: Mapping[str, Tensor], without: Sequence[str] = ()) -> None:
    """Each parameter's gradient to 1e-5 of its length; nothing in rows of padding.

    Some gradients cancel to zero, such as that of a bias that shifts all logits of a softmax. What they are summed of
    is as large as other gradients, so that single precision leaves a few times 1e-7 of the largest one.

    Args:
        model: after its backward pass.
        tables: `leaves` after the reference's.
        without: parameters that are to have no gradient at all, by the beginning of their names.
    """
    largest = max(float(table.grad.norm()) for table in tables.values() if table.grad is not None)
    assert {name for name, _ in model.named_parameters()} == tables.keys()
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(without)):
            assert parameter.grad is None, name
            continue
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        table = tables[name]
        wanted = torch.zeros_like(table) if table.grad is None else table.grad
        n_padding = len(got) - len(wanted)
        assert not got[:n_padding].any(), name
        error, length = float((got[n_padding:].double() - wanted).norm()), float(wanted.norm())
        assert error <= (1e-5 * length if length > 1e-12 * largest else 5e-7 * largest), name
