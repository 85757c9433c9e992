"""Combined scores: by hand, and the same bits whatever the block."""

from __future__ import annotations

import numpy as np
import torch

from hellm_recbole.evaluation.combined_scores import CombinedScorer, RowTerm, add_term
from hellm_recbole.types import FloatArray, Histories, IdArray
from tests.toy import Table

NOBODY = Histories(np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int64))


class Fixed:
    """A term with fixed scores [U + 1, I]."""

    def __init__(self, values: FloatArray) -> None:
        self.values = values

    def compute(self, user: IdArray, history: Histories) -> FloatArray:
        return self.values[user]


def test_a_row_enters_as_its_log_softmax() -> None:
    scores = torch.tensor([[0.0, 0.0], [1.0, 3.0], [-torch.inf, 5.0]])
    found = RowTerm(Table(scores)).compute(np.array([1, 2]), NOBODY)
    total = np.exp(1.0) + np.exp(3.0)
    np.testing.assert_allclose(found[0], [1 - np.log(total), 3 - np.log(total)], rtol=1e-6)
    assert found[1].tolist() == [-np.inf, 0.0]


def test_a_fusion_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 1.0]])
    terms = [RowTerm(Table(a)), RowTerm(Table(b))]
    scorer = CombinedScorer(None, terms, [0.25, 0.75], 3)
    scorer.prepare()
    expected = 0.25 * torch.log_softmax(a[1:], 1) + 0.75 * torch.log_softmax(b[1:], 1)
    torch.testing.assert_close(scorer.compute_scores(np.array([1]), NOBODY), expected)


def test_a_weight_of_zero_leaves_a_term_out_even_with_infinite_scores() -> None:
    first, other = Fixed(np.ones((2, 2), np.float32)), Fixed(np.full((2, 2), -np.inf, np.float32))
    scorer = CombinedScorer(first, [other], [0.0], 2)
    assert scorer.compute_scores(np.array([1]), NOBODY).tolist() == [[1.0, 1.0]]
    assert CombinedScorer(None, [other], [0.0], 2).compute_scores(np.array([1]), NOBODY).tolist() == [[0.0, 0.0]]


def test_a_sum_has_the_same_bits_in_every_block() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(5, 37)).astype(np.float32) for _ in range(2))
    whole = add_term(a, b, 0.1, np.empty_like(a))
    rows = np.stack([add_term(a[i], b[i], 0.1, np.empty_like(a[i])) for i in range(5)])
    assert whole.tobytes() == rows.tobytes()
    np.testing.assert_allclose(whole, a + 0.1 * b, rtol=1e-6)
