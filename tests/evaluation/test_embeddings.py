"""The exported vectors are those that score the test targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.embeddings import encode_and_export
from hellm_recbole.types import Encoded, QueryBatch


class LastItem(torch.nn.Module):
    """A model whose user vector is the vector of the last item of the history."""

    max_history = 3

    def encode(self) -> Encoded:
        return Encoded(torch.arange(41.0).unsqueeze(1) * torch.tensor([1.0, 2.0]))

    def query(self, encoded: Encoded, batch: QueryBatch) -> torch.Tensor:
        last = batch.items.gather(1, (batch.items != 0).sum(dim=1, keepdim=True) - 1)[:, 0]
        return encoded.items[last]


def test_user_vectors_read_the_history_of_the_test_phase(tmp_path: Path, toy_split: Split) -> None:
    encode_and_export(LastItem(), toy_split, tmp_path, torch.device("cpu"))
    tensors = load_file(tmp_path / "embeddings" / "embeddings.safetensors")
    np.testing.assert_array_equal(tensors["items"][:, 1], 2.0 * np.arange(1, 41))
    last = [int(item) for _, item in sorted(zip(toy_split.valid.user, toy_split.valid.item, strict=True))]
    assert tensors["users"][:, 0].tolist() == last
