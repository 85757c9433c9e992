"""Compute the embeddings of a trained model and write them with their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import export_embeddings
from hellm_recbole.data.split import Split
from hellm_recbole.types import QueryBatch, as_ids, pad_recent


@torch.no_grad()
def encode_and_export(model: Any, split: Split, folder: Path, device: torch.device) -> None:
    """Compute and write the embeddings. The user vectors are the query vectors that scored the test targets.

    Args:
        model: one of our models, in evaluation mode.
        split: split of the dataset, with the tokens of users and items.
        folder: folder of the run; its subfolder `embeddings` is created or replaced.
        device: device of the model.

    Raises:
        OutputError: a file cannot be written.
    """
    encoded = model.encode()
    seen = split.make_test_history()
    vectors = []
    for block in np.array_split(np.arange(1, split.n_users + 1), max(split.n_users // 1024, 1)):
        recent = pad_recent(seen.indptr, seen.items, block, model.max_history)
        vectors.append(model.query(encoded, QueryBatch(as_ids(block, device), as_ids(recent, device))).cpu())
    export_embeddings(
        folder / EMBEDDINGS,
        split.user_tokens[1:],
        torch.cat(vectors).numpy(),
        split.item_tokens[1:],
        encoded.items[1:].cpu().numpy(),
    )
