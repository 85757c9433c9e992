"""RecBole's configuration and datasets made in memory: our ids, our training interactions, no file read or written.

Importing this module imports recbole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import get_dataloader
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.model.general_recommender import Pop
from recbole.sampler import RepeatableSampler, Sampler
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import FeatureSource, FeatureType, InputType, ModelType, get_model, get_trainer

from hellm_recbole.bridge.negatives import NO_NEGATIVE
from hellm_recbole.config.layers import Value
from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.types import TrainData

LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


class MemoryConfig(Config):  # type: ignore[misc]
    """RecBole's defaults for one model under the given values.

    Unlike RecBole's own it reads no command line (that one is ours), evaluates no string, and leaves the process's
    visible devices alone.
    """

    def __init__(self, model: str, values: Mapping[str, Value], device: torch.device) -> None:
        """Merge RecBole's layers.

        Raises:
            SettingsError: RecBole does not accept a value, or would replace it without a word.
        """
        self._device = device
        try:
            # A dataset name that RecBole has no settings file for, so that none is merged in.
            super().__init__(model=model, dataset="hellm_memory", config_dict=dict(values))
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise SettingsError(f"RecBole does not accept the settings of {model}: {error}") from error
        if self["learner"] not in LEARNERS:  # RecBole would take adam without a word
            raise SettingsError(f"RecBole has no learner {self['learner']!r}; use one of {', '.join(LEARNERS)}")
        kind, negatives = self["MODEL_TYPE"], self["train_neg_sample_args"]["distribution"] != "none"
        pairwise = self["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
        if not negatives and (kind == ModelType.GENERAL or (kind == ModelType.SEQUENTIAL and pairwise)):
            raise SettingsError(
                f"{model} trains on sampled negatives; set train_neg_sample_args, for example to "
                "{distribution: uniform, sample_num: 1}"
            )

    def _load_cmd_line(self) -> dict[str, Value]:
        return {}

    def _load_variable_config_dict(self, config_dict: dict[str, Value]) -> dict[str, Value]:
        return config_dict

    def _init_device(self) -> None:
        self.final_config_dict.update(device=self._device, single_spec=True, local_rank=0)


class _FromMemory:
    """Puts `TrainData` where RecBole's dataset classes would read files. RecBole's internal ids are then our ids."""

    config: Any
    uid_field: str
    iid_field: str
    time_field: str

    def __init__(self, config: MemoryConfig, data: TrainData) -> None:
        """Read `data` and forget it."""
        self._data = data
        super().__init__(config)  # type: ignore[call-arg]
        del self._data

    def _load_data(self, token: str, dataset_path: str) -> None:
        history = self._data.history
        position = np.arange(len(history.items)) - np.repeat(history.indptr[:-1], history.lengths())
        columns = {
            self.uid_field: (FeatureType.TOKEN, FeatureSource.USER_ID, history.users()),
            self.iid_field: (FeatureType.TOKEN, FeatureSource.ITEM_ID, history.items),
            # The position in the user's sequence is all that RecBole's sorting needs of time.
            self.time_field: (FeatureType.FLOAT, FeatureSource.INTERACTION, position.astype(float)),
        }
        for name, (kind, source, _) in columns.items():
            self.set_field_property(name, kind, source, 1)  # type: ignore[attr-defined]
        self.inter_feat = pd.DataFrame({name: values for name, (_, _, values) in columns.items()})
        self.user_feat = self.item_feat = None

    def _data_processing(self) -> None:
        """No filter and no new ids: the tokens of users and items are their ids."""
        self.feat_name_list = ["inter_feat"]
        for field, count in ((self.uid_field, self._data.n_users), (self.iid_field, self._data.n_items)):
            tokens = np.array(["[PAD]", *map(str, range(1, count + 1))])
            self.field2id_token[field] = tokens  # type: ignore[attr-defined]
            self.field2token_id[field] = {token: row for row, token in enumerate(tokens)}  # type: ignore[attr-defined]


class MemoryDataset(_FromMemory, Dataset):  # type: ignore[misc]
    """What RecBole's general models train on."""


class MemorySequentialDataset(_FromMemory, SequentialDataset):  # type: ignore[misc]
    """What RecBole's sequential models train on: every prefix of a user's items with the item that follows."""


def make_dataset(config: MemoryConfig, data: TrainData) -> Any:
    """The training dataset in RecBole's final form (tensors; for sequential models with the prefixes).

    Raises:
        DataError: a sequential model would have no sequence to learn from.
    """
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if sequential and data.history.lengths().max(initial=0) < 2:
        raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
    dataset = (MemorySequentialDataset if sequential else MemoryDataset)(config, data)
    dataset._change_feat_format()
    return dataset


class ExactPop(Pop):  # type: ignore[misc]
    """RecBole's Pop counts an item once a batch, however often it occurs in it; this one counts interactions."""

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Count the batch's items; there is nothing to minimise."""
        item = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, item, torch.ones_like(item).unsqueeze(1))
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.zeros(1, device=item.device)


def model_class(name: str) -> Any:
    """RecBole's model class, Pop's put right."""
    return ExactPop if name == "Pop" else get_model(name)


def make_loader(config: MemoryConfig, dataset: Any) -> Any:
    """RecBole's training loader for the model, with its negative sampler; both see the training interactions only.

    Raises:
        SettingsError: the settings of negatives or masks do not go together.
        DataError: a user has no negative, or there is nothing to learn from.
    """
    args = config["train_neg_sample_args"]
    sampler = None
    if args["distribution"] != "none":
        kind = RepeatableSampler if config["repeatable"] else Sampler
        try:
            sampler = kind(["train"], dataset, args["distribution"], args["alpha"]).set_phase("train")
        except ValueError as error:  # RecBole's advice is a filter that our runs do not have
            raise DataError(f"{NO_NEGATIVE}; drop such users") from error
    return get_dataloader(config, "train")(config, dataset, sampler, shuffle=True)


def make_optimizer(config: MemoryConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer that RecBole's trainer for the model builds.

    RecBole's constructor would also open a TensorBoard folder and a checkpoint folder in the current one; only what
    `_build_optimizer` reads is set here.
    """
    kind = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = kind.__new__(kind)
    AbstractTrainer.__init__(trainer, config, model)
    for name in ("learner", "learning_rate", "weight_decay"):
        setattr(trainer, name, config[name])
    optimizer: torch.optim.Optimizer = trainer._build_optimizer()
    return optimizer
