"""On a real GPU: `pytest -m gpu`. `tests/test_pretend_gpu.py` finds wrong places without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from tests.training.test_trainer import Silent, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
GPU = torch.device("cuda")
ALIKE = {"BM3": {"dropout": 0.0}, "SASRec": {"dropout": 0.0}}  # a GPU draws other random numbers


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_model_trains_as_on_the_cpu_and_goes_on(toy_split: Split, tmp_path: Path, name: str) -> None:
    values: dict[str, Any] = ALIKE.get(name, {"llm_dtype": "float32"} if REGISTRY[name].family == "llm" else {})
    whole, _ = run(toy_split, tmp_path / "cpu", name, epochs=2, **values)
    with pytest.raises(KeyboardInterrupt):
        run(toy_split, tmp_path / "gpu", name, Silent(stop_after_epochs=1), device=GPU, epochs=2, **values)
    parts, row = run(toy_split, tmp_path / "gpu", name, device=GPU, epochs=2, **values)
    assert {parameter.device.type for parameter in row.module.parameters()} == {"cuda"}
    for there, here in zip(parts.curve, whole.curve, strict=True):
        assert there["losses"] == pytest.approx(here["losses"], rel=1e-3)
