"""Tests on a real GPU: `pytest -m gpu`. `tests/test_pretend_gpu.py` finds tensors on the wrong device without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from tests.training.small_runs import Silent, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
GPU = torch.device("cuda")
WITHOUT_DROPOUT = {
    "BM3": {"dropout": 0.0},
    "BSARec": {"dropout": 0.0},
    "SASRec": {"dropout": 0.0},
    "SASRec-text": {"dropout": 0.0, "id_dropout": 0.0, "loss": "full"},
    "SASRec-text-llm": {"dropout": 0.0, "id_dropout": 0.0, "loss": "full"},
}  # without random masks, because a GPU draws other random numbers


@pytest.mark.parametrize("name", sorted(name for name, spec in REGISTRY.items() if not spec.is_fitted))
def test_every_model_trains_as_on_the_cpu_and_is_resumed(toy_split: Split, tmp_path: Path, name: str) -> None:
    values: dict[str, Any] = WITHOUT_DROPOUT.get(
        name, {"llm_dtype": "float32"} if REGISTRY[name].family == "llm" else {}
    )
    whole, _ = run(toy_split, tmp_path / "cpu", name, epochs=2, **values)
    with pytest.raises(KeyboardInterrupt):
        run(toy_split, tmp_path / "gpu", name, Silent(stop_after_epochs=1), device=GPU, epochs=2, **values)
    parts, learner = run(toy_split, tmp_path / "gpu", name, device=GPU, epochs=2, **values)
    assert {parameter.device.type for parameter in learner.module.parameters()} == {"cuda"}
    for on_gpu, on_cpu in zip(parts.curve, whole.curve, strict=True):
        assert on_gpu["losses"] == pytest.approx(on_cpu["losses"], rel=1e-3)
