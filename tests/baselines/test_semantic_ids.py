from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines import semantic_ids
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.baselines.semantic_ids import (
    ResidualQuantizer,
    SemanticIdSettings,
    add_digits,
    compute_codes,
    fit_codebooks,
    quantize,
    restart_unused,
    train_quantizer,
)
from hellm_recbole.config.request import Override
from hellm_recbole.errors import DataError
from hellm_recbole.experiments.resolve import resolve_own_run
from tests.toy_llm import SMALL_TIGER

FEATURES = np.random.default_rng(3).normal(size=(50, 6)).astype(np.float32)


def make_settings(**changes: Any) -> SemanticIdSettings:
    values = {**SMALL_TIGER, "codebook_size": 7, "n_levels": 3, **changes}
    overrides = [Override("TIGER", key, value, key) for key, value in values.items()]
    settings: SemanticIdSettings = resolve_own_run("TIGER", "toy", REGISTRY, "paper", overrides).model_settings
    return settings


def quantize_slowly(vectors: Tensor, codebooks: list[Tensor]) -> list[list[int]]:
    """Find the nearest codebook vector of each residual in plain loops, in double precision."""
    codes = []
    for vector in vectors.double():
        residual, row = vector.clone(), []
        for table in codebooks:
            distances = [float((residual - entry).square().sum()) for entry in table.detach().double()]
            row.append(distances.index(min(distances)))
            residual = residual - table[row[-1]].detach().double()
        codes.append(row)
    return codes


@pytest.mark.parametrize("block_rows", [4096, 7])
def test_codes_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(semantic_ids, "_BLOCK_ROWS", block_rows)
    torch.manual_seed(0)
    for _ in range(20):
        vectors, codebooks = torch.randn(20, 5), [torch.randn(6, 5) / 2**level for level in range(3)]
        assert quantize(vectors, codebooks).tolist() == quantize_slowly(vectors, codebooks)


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(1)
    settings = make_settings(rq_commit_weight=0.25)
    model = ResidualQuantizer(6, settings)
    for table in model.codebooks:
        torch.nn.init.normal_(table)
    x = torch.from_numpy(FEATURES[:9])
    terms = model.loss(x)
    z = model.encoder(x).detach()
    codes = quantize_slowly(z, list(model.codebooks))
    squares, sums = 0.0, []
    for row, code in zip(z, codes, strict=True):
        residual = row.clone()
        for level, number in enumerate(code):
            entry = model.codebooks[level][number].detach()
            squares += float((residual - entry).square().sum())
            residual = residual - entry
        sums.append(row - residual)
    decoded = model.decoder(torch.stack(sums))
    assert terms["reconstruction"].item() == pytest.approx(((x - decoded).square().sum() / 9).item(), rel=1e-5)
    assert terms["codebook"].item() == pytest.approx(squares / 9, rel=1e-5)
    assert terms["commitment"].item() == pytest.approx(0.25 * squares / 9, rel=1e-5)


def test_gradients_pass_straight_through_and_stop_where_the_paper_stops_them() -> None:
    torch.manual_seed(1)
    model = ResidualQuantizer(6, make_settings(rq_commit_weight=1.0))
    for table in model.codebooks:
        torch.nn.init.normal_(table)
    x = torch.from_numpy(FEATURES[:9])
    first = [next(model.encoder.parameters()), model.codebooks[0]]
    reached = {}
    for name, term in model.loss(x).items():
        gradients = torch.autograd.grad(term, first, allow_unused=True, retain_graph=True)
        reached[name] = [gradient is not None for gradient in gradients]
    assert reached == {"reconstruction": [True, False], "codebook": [False, True], "commitment": [True, False]}
    latent = model.encoder(x).detach().requires_grad_()
    codes = quantize(latent.detach(), list(model.codebooks))
    total = torch.stack([table[codes[:, level]] for level, table in enumerate(model.codebooks)]).sum(dim=0)
    decoder_input = total.detach().requires_grad_()
    (x - model.decoder(decoder_input)).square().sum().div(9).backward()
    model.compute_terms(x, latent)["reconstruction"].backward()
    assert latent.grad is not None
    assert decoder_input.grad is not None
    assert torch.allclose(latent.grad, decoder_input.grad, atol=1e-6)


def test_codebooks_start_at_the_centres_of_the_residuals() -> None:
    settings = make_settings(quantizer="kmeans", kmeans_rounds=30)
    torch.manual_seed(2)
    tables = fit_codebooks(torch.from_numpy(FEATURES), settings)
    residual = torch.from_numpy(FEATURES).double()
    for table in tables:
        code = quantize(residual, [table.double()])[:, 0]
        for number in code.unique().tolist():
            mean = residual[code == number].mean(dim=0)
            assert torch.allclose(mean, table[number].double(), atol=1e-5)  # a fixed point of k-means
        residual = residual - table[code].double()
    errors = [float(torch.from_numpy(FEATURES).square().sum()), float(residual.square().sum())]
    assert errors[1] < 0.2 * errors[0]


def test_few_different_items_are_their_own_codebook() -> None:
    settings = make_settings(quantizer="kmeans")
    features = np.repeat(FEATURES[:5], 4, axis=0)
    codes = compute_codes(features, settings, 1)
    assert len(np.unique(codes[:, 0])) == 5
    assert (codes[:, 1:3] == codes[0, 1:3]).all()  # nothing is left after the first level
    assert codes[:, 3].tolist() == [0, 1, 2, 3] * 5


@pytest.mark.parametrize("quantizer", ["vae", "kmeans"])
def test_codes_are_unique_and_depend_on_the_seed_only(quantizer: str) -> None:
    settings = make_settings(quantizer=quantizer)
    state = torch.get_rng_state()
    one, same, other = (compute_codes(FEATURES, settings, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(np.unique(one, axis=0)) == len(one) == 50
    assert one.min() >= 0
    assert one.max() < 7
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_training_reconstructs_better() -> None:
    x = torch.from_numpy(FEATURES)
    errors = []
    for n_epochs in (1, 40):
        torch.manual_seed(4)
        settings = make_settings(rq_epochs=n_epochs, rq_learning_rate=0.01)
        errors.append(train_quantizer(x, settings).loss(x)["reconstruction"].item())
    assert errors[1] < 0.8 * errors[0]


def test_unused_codebook_vectors_start_again_and_used_ones_stay() -> None:
    torch.manual_seed(6)
    x = torch.from_numpy(FEATURES)
    model = ResidualQuantizer(6, make_settings())
    with torch.no_grad():
        for table in model.codebooks:
            torch.nn.init.normal_(table[:2])
            table[2:] = 100.0  # too far from every item
        before = [table.clone() for table in model.codebooks]
        codes = quantize(model.encoder(x), list(model.codebooks))
        restart_unused(model, x)
    assert codes.max() <= 1
    for level, table in enumerate(model.codebooks):
        used = codes[:, level].unique()
        assert torch.equal(table[used], before[level][used])
        assert (table.abs() < 50).all()
    assert quantize(model.encoder(x), list(model.codebooks))[:, 0].max() > 1


def test_codes_are_stored_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings()
    codes = compute_codes(FEATURES, settings, 1, tmp_path)
    monkeypatch.setattr(semantic_ids, "_fit_quantizer", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(compute_codes(FEATURES, settings, 1, tmp_path), codes)
    for features, other, seed in (
        (FEATURES + 1, settings, 1),
        (FEATURES, make_settings(n_levels=2), 1),
        (FEATURES, settings, 2),
    ):
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            compute_codes(features, other, seed, tmp_path)


def test_digits_tell_items_with_the_same_codes_apart() -> None:
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 3], [1, 2]])
    assert add_digits(codes, 3)[:, 2].tolist() == [0, 0, 1, 0, 2]
    with pytest.raises(DataError, match="3 items have the same codes, and codebook_size = 2 tells no more apart"):
        add_digits(codes, 2)
