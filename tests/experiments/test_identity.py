from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.identity import identify_language_model, identify_run
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.identity.parts import EncodingIdentity, FeatureOrigin
from tests.toy_llm import save_tiny, settings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "cache"))


def test_the_digests_cover_used_weights_tokenizer_and_configuration(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "llama", "llama")

    def compute_digests() -> list[tuple[str | None, str]]:
        found = [identify_language_model(settings(folder, llm_weights=part)) for part in ("pretrained", "random")]
        return [(model["weights_sha256"], model["files_sha256"]) for model in found if model is not None]

    first = compute_digests()
    tensors = load_file(folder / "model.safetensors")
    gain = tensors["model.norm.weight"] + torch.tensor([1.0, *[0.0] * 15])  # one number of one tensor
    save_file({**tensors, "model.norm.weight": gain}, folder / "model.safetensors")
    second = compute_digests()
    assert second[0][0] != first[0][0]
    assert (first[1][0], second[1][0]) == (None, None)  # drawn from the seed
    assert [files for _, files in second] == [files for _, files in first]
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("bought", "bougth"))
    third = compute_digests()
    assert third[0][0] == second[0][0]
    assert third[0][1] != second[0][1]
    assert third[0][1] == third[1][1]
    assert identify_language_model(settings(folder, llm_weights="none")) is None


def test_the_mask_of_items_is_part_of_a_run_that_leaves_items_out(toy_split: Split) -> None:
    def find_mask(value: str, mask: np.ndarray) -> str | None:
        overrides = [Override(None, "missing_features", value, f"--set missing_features={value}")]
        config = resolve_own_run("VBPR", "toy", REGISTRY, "paper", overrides)
        split = replace(toy_split, covered={name: mask for name in toy_split.features})
        return identify_run(config, split, {})["features"]["image"].get("covered_sha256")

    every = np.ones(len(toy_split.item_tokens), bool)
    one_less = every.copy()
    one_less[3] = False
    assert find_mask("filled", one_less) is None
    assert find_mask("masked", one_less) not in (None, find_mask("masked", every))


def test_the_identity_says_how_a_language_model_has_encoded_features(toy_split: Split) -> None:
    encoding: EncodingIdentity = {
        "layer": 9,
        "max_tokens": 96,
        "dtype": "float32",
        "weights": "pretrained",
        "origin": None,
        "text_sha256": "abc",
    }
    origin: FeatureOrigin = {"encoder": "tiny", "revision": "1", "pooling": "mean", "columns": ("title",)}
    split = replace(toy_split, feature_origins={"text": {**origin, "encoding": encoding}, "image": origin})
    features = identify_run(resolve_own_run("VBPR", "toy", REGISTRY, "paper", []), split, {})["features"]
    assert features["text"]["encoding"] == encoding
    assert "encoding" not in features["image"]
