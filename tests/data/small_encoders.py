"""Small encoders of texts and pictures, and a fake one that records what it encodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    ConvNextImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.prepare import read_feature_settings

TEXTS = ["red comb", "a", "green brush a comb red red comb a brush green", "soap", "a"]
MINILM = "packaged:all-MiniLM-L6-v2"
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIDE = {"image_size": 32, "patch_size": 8}


def make_settings(encoder: Path | str, **changes: object) -> FeatureSettings:
    return read_feature_settings({"encoder": str(encoder), "encode_batch_size": 2, "encode_device": "cpu", **changes})


class CountingEncoder:
    """Fake text encoder: encodes a text as its length and first letter, and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, *settings: object) -> Callable[[Sequence[str]], np.ndarray]:
        def encode(texts: Sequence[str]) -> np.ndarray:
            self.batches.append(list(texts))
            return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)

        return encode


def draw_pictures(folder: Path) -> list[Path]:
    """Draw random pictures of different sizes and modes."""
    files = []
    for number, (width, height, mode) in enumerate([(40, 50, "RGB"), (33, 64, "L"), (70, 20, "P")]):
        files.append(folder / f"{number}.png")
        values = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).convert(mode).save(files[-1])
    return files


def make_vision_model(name: str, folder: Path) -> PreTrainedModel:
    """Make a tiny model with random weights and save it with its processor."""
    torch.manual_seed(0)
    if name == "clip":
        text = {**VISION, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config={**VISION, **SIDE}, projection_dim=6))
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    elif name == "vit":
        model = ViTModel(ViTConfig(**VISION, **SIDE))
        processor = ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        model = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"))
        processor = ConvNextImageProcessor(size={"shortest_edge": 32})
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def encode_one_by_one(name: str, folder: Path, model: PreTrainedModel, files: list[Path]) -> np.ndarray:
    """Compute the features that the paper of the model uses, one picture at a time."""
    processor = AutoImageProcessor.from_pretrained(folder)
    rows = []
    for file in files:
        pixels = processor(images=[Image.open(file).convert("RGB")], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            if name == "clip":
                rows.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0])
            else:
                rows.append(model(pixel_values=pixels).pooler_output.flatten())
    return np.stack([row.numpy() for row in rows])
