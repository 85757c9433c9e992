"""Packed batches, and sums inside their sequences."""

from __future__ import annotations

import torch

from hellm_recbole.llm.packing import PackedBatch, compute_running_mean, sum_groups


def test_a_packed_batch_is_padded_and_packed_again_with_gradients() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    batch = PackedBatch.from_mask(mask)
    packed = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    padded = batch.pad(packed)
    assert padded.shape == (3, 2, 3, 4)
    assert not padded[~mask[:, None, :, None].expand_as(padded)].any()
    assert torch.equal(batch.pack(padded), packed)
    assert torch.autograd.gradcheck(lambda x: batch.pack(batch.pad(x) ** 2), packed)


def test_groups_and_running_means_equal_those_of_a_loop() -> None:
    lengths = torch.tensor([2, 1, 3])
    tokens = torch.arange(12.0).view(6, 2)
    assert sum_groups(tokens[:, 0], lengths).tolist() == [2.0, 4.0, 24.0]
    means = compute_running_mean(tokens, PackedBatch.from_lengths(lengths))
    expected = [part[: number + 1].mean(0) for part in tokens.split(lengths.tolist()) for number in range(len(part))]
    assert torch.allclose(means, torch.stack(expected))
