"""MMRec's models on our data, from a checkout of its repository.

This project contains no code of MMRec. Run `git clone https://github.com/enoche/MMRec`, and pass the folder to
`speed.py --parts multimodal --mmrec DIR` to compare times, or to `parity.py --mmrec DIR` to compare values.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from hellm_recbole.benchmarks.upstream.checkouts import MMREC, find_file
from hellm_recbole.errors import MissingDependency
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.types import TrainData

MODELS = ("VBPR", "LightGCN", "FREEDOM", "BM3", "SLMRec", "GRCN", "LATTICE")
FEATURE_FILES = {"image": "v.npy", "text": "t.npy"}
CPU = torch.device("cpu")


class _Config(dict[str, Any]):
    """Configuration of MMRec: a missing key is None."""

    def __missing__(self, key: str) -> None:
        return None


class _Interactions:
    """Replacement for MMRec's data loader, with the methods that its models call."""

    def __init__(self, data: TrainData) -> None:
        self.data, self.dataset = data, self

    def get_user_num(self) -> int:
        return self.data.n_users

    def get_item_num(self) -> int:
        return self.data.n_items

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Return the [U, I] training matrix, without padding."""
        history = self.data.history
        shape = self.data.n_users, self.data.n_items
        matrix = sp.coo_matrix(
            (np.ones(len(history.items)), (history.repeat_users() - 1, history.items - 1)), shape=shape
        )
        return matrix if form == "coo" else matrix.tocsr()


def translate_settings(name: str, config: OwnRunConfig) -> dict[str, Any]:
    """Translate the settings of our model to the names of MMRec."""
    ours: Any = config.model_settings
    width = [ours.emb_dim] * 2
    by_model = {
        "LightGCN": lambda: {"n_layers": ours.n_layers, "reg_weight": ours.l2_weight},
        "VBPR": lambda: {"reg_weight": ours.l2_weight},
        "FREEDOM": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "knn_k": ours.n_neighbors,
            "n_mm_layers": ours.n_item_layers,
            "n_ui_layers": ours.n_layers,
            "reg_weight": ours.modality_weight,
            "mm_image_weight": ours.image_share,
            "dropout": ours.edge_dropout,
            "weight_size": width,
            "lambda_coeff": 0.9,
        },
        "BM3": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "n_layers": ours.n_layers,
            "reg_weight": ours.norm_weight,
            "cl_weight": ours.modality_weight,
            "dropout": ours.dropout,
        },
        "SLMRec": lambda: {
            "recdim": ours.emb_dim,
            "layer_num": ours.n_layers,
            "ssl_task": "FAC",
            "ssl_alpha": ours.ssl_weight,
            "ssl_temp": ours.ssl_temperature,
            "temp": ours.temperature,
            "mm_fusion_mode": "concat",
            "init": "xavier",
            "adj_type": "pre",
        },
        "GRCN": lambda: {"latent_embedding": ours.emb_dim, "n_layers": ours.n_routing, "reg_weight": ours.l2_weight},
        "LATTICE": lambda: {
            "feat_embed_dim": ours.emb_dim,
            "weight_size": width,
            "knn_k": ours.n_neighbors,
            "lambda_coeff": ours.fixed_share,
            "cf_model": "lightgcn",
            "n_layers": ours.n_item_layers,
            "reg_weight": ours.l2_weight,
        },
    }
    return by_model[name]()


def build_public_model(name: str, checkout: Path, data: TrainData, config: OwnRunConfig, folder: Path) -> Any:
    """Build MMRec's model on our data, with image features, text features or both.

    Args:
        name: name of the model.
        checkout: folder with a checkout of MMRec.
        data: training part.
        config: run config of our model.
        folder: folder for the features and caches of MMRec.

    Raises:
        DataError: the folder is not a checkout of MMRec.
        MissingDependency: a package that MMRec's model imports is not installed.
    """
    source = find_file(checkout, f"src/models/{name.lower()}.py", MMREC).parents[1]
    stub: Any = types.ModuleType("torch_scatter")
    stub.scatter = stub.scatter_add = None  # imported, never called
    sys.modules.setdefault("torch_scatter", stub)
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    sp.dok_matrix._update = lambda matrix, values: matrix._dict.update(values)
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))
    settings = _write_features(name, data, config, folder)
    try:
        module = importlib.import_module(f"models.{name.lower()}")
    except ImportError as error:
        raise MissingDependency(f"MMRec's {name} needs {error.name}, which is not installed; pip install it") from error
    return getattr(module, name)(settings, _Interactions(data))


def build_public_optimizer(module: Any, config: OwnRunConfig) -> torch.optim.Optimizer:
    """Build the optimizer with MMRec's trainer. A model must have been built before.

    Args:
        module: MMRec's model.
        config: run config of our model.

    Raises:
        MissingDependency: a package that MMRec's trainer imports is not installed.
    """
    try:
        trainer = importlib.import_module("common.trainer").Trainer
    except ImportError as error:
        raise MissingDependency(
            f"MMRec's trainer needs {error.name}, which is not installed; pip install it"
        ) from error
    values = types.SimpleNamespace(
        model=module,
        learner=config.train.optimizer,
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
    )
    optimizer: torch.optim.Optimizer = trainer._build_optimizer(values)
    return optimizer


def _write_features(name: str, data: TrainData, config: OwnRunConfig, folder: Path) -> _Config:
    """Write the features into files, and return a configuration of MMRec that names them."""
    # Without text, MMRec's SLMRec works only under the second name.
    dataset = "data" if "text" in data.features else "kwai"
    (folder / dataset).mkdir()
    for modality, file in FEATURE_FILES.items():
        if modality in data.features:
            np.save(folder / dataset / file, data.features[modality][1:])
    return _Config(
        USER_ID_FIELD="user",
        ITEM_ID_FIELD="item",
        NEG_PREFIX="neg_",
        device=CPU,
        end2end=False,
        is_multimodal_model=True,
        data_path=f"{folder}/",
        dataset=dataset,
        vision_feature_file=FEATURE_FILES["image"],
        text_feature_file=FEATURE_FILES["text"],
        embedding_size=config.model_settings.emb_dim,
        train_batch_size=config.train.batch_size,
        **translate_settings(name, config),
    )
