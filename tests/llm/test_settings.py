"""Settings of a language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.toy_llm import settings


@pytest.mark.parametrize(
    ("cuda", "llm_dtype", "expected"),
    [
        (True, "auto", torch.bfloat16),
        (False, "auto", torch.float32),
        (True, "float32", torch.float32),
        (False, "bfloat16", torch.bfloat16),
    ],
)
def test_the_number_type_depends_on_the_device_only_if_it_is_auto(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, llm_dtype: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert settings(Path("llm"), llm_dtype=llm_dtype).backbone().dtype == expected


def test_the_label_names_model_layers_and_quantization() -> None:
    assert settings(Path("models/my llm"), llm_layers=2, quantization="4bit").backbone_label == "my-llm-2L-4bit"
