"""RecBole configurations and datasets that are built in memory from our training data, without reading a data file.

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
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.types import TrainData

LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


class MemoryConfig(Config):  # type: ignore[misc]
    """RecBole configuration of one model: RecBole's defaults, overridden by the given values.

    Unlike RecBole's class, it does not read the command line (which belongs to our own commands), does not evaluate
    strings as Python code, and does not change which devices the process can see.
    """

    def __init__(self, model: str, values: Mapping[str, Value], device: torch.device) -> None:
        """Merge RecBole's defaults with the given values.

        Args:
            model: RecBole's name of the model.
            values: settings under RecBole's keys.
            device: device of the model.

        Raises:
            SettingsError: RecBole does not accept a value, or would silently replace it.
        """
        self._device = device
        try:
            # RecBole has no settings file for a dataset of this name, so no dataset settings are merged.
            super().__init__(model=model, dataset="hellm_memory", config_dict=dict(values))
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise SettingsError(f"RecBole does not accept the settings of {model}: {error}") from error
        if self["learner"] not in LEARNERS:  # RecBole would silently use adam
            raise SettingsError(
                f"RecBole has no learner (optimizer) {self['learner']!r}; use one of {', '.join(LEARNERS)}"
            )
        kind, has_negatives = self["MODEL_TYPE"], self["train_neg_sample_args"]["distribution"] != "none"
        is_pairwise = self["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
        if not has_negatives and (kind == ModelType.GENERAL or (kind == ModelType.SEQUENTIAL and is_pairwise)):
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


class _MemoryData:
    """Mixin that gives `TrainData` to RecBole's dataset classes, which then read no file and use our ids."""

    config: Any
    uid_field: str
    iid_field: str
    time_field: str

    def __init__(self, config: MemoryConfig, data: TrainData) -> None:
        """Fill the dataset from `data`. The dataset keeps no reference to `data`."""
        self._data = data
        super().__init__(config)  # type: ignore[call-arg]
        del self._data

    def _load_data(self, token: str, dataset_path: str) -> None:
        history = self._data.history
        position = np.arange(len(history.items)) - np.repeat(history.indptr[:-1], history.count_items())
        columns = {
            self.uid_field: (FeatureType.TOKEN, FeatureSource.USER_ID, history.repeat_users()),
            self.iid_field: (FeatureType.TOKEN, FeatureSource.ITEM_ID, history.items),
            # RecBole only sorts by time, so the position in the user's sequence is sufficient.
            self.time_field: (FeatureType.FLOAT, FeatureSource.INTERACTION, position.astype(float)),
        }
        for name, (kind, source, _) in columns.items():
            self.set_field_property(name, kind, source, 1)  # type: ignore[attr-defined]
        self.inter_feat = pd.DataFrame({name: values for name, (_, _, values) in columns.items()})
        self.user_feat = self.item_feat = None

    def _data_processing(self) -> None:
        """Set the tokens of users and items to their ids, without any filter or renumbering."""
        self.feat_name_list = ["inter_feat"]
        for field, count in ((self.uid_field, self._data.n_users), (self.iid_field, self._data.n_items)):
            tokens = np.array(["[PAD]", *map(str, range(1, count + 1))])
            self.field2id_token[field] = tokens  # type: ignore[attr-defined]
            self.field2token_id[field] = {token: index for index, token in enumerate(tokens)}  # type: ignore[attr-defined]


class MemoryDataset(_MemoryData, Dataset):  # type: ignore[misc]
    """Training dataset of RecBole's general models."""


class MemorySequentialDataset(_MemoryData, SequentialDataset):  # type: ignore[misc]
    """Training dataset of RecBole's sequential models: each prefix of a user's items with the next item."""


def make_dataset(config: MemoryConfig, data: TrainData) -> Any:
    """Build the training dataset in RecBole's final form: tensors, and for sequential models all prefixes.

    Args:
        config: RecBole configuration of the model.
        data: our training data.

    Raises:
        DataError: the model is sequential and no user has two training interactions.
    """
    is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if is_sequential and data.history.count_items().max(initial=0) < 2:
        raise DataError("no user has two training interactions, so a sequential model has nothing to learn from")
    dataset = (MemorySequentialDataset if is_sequential else MemoryDataset)(config, data)
    dataset._change_feat_format()
    return dataset


class ExactPop(Pop):  # type: ignore[misc]
    """Pop that counts every interaction. RecBole's Pop counts an item only once in each batch."""

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Count the items of a batch and return a loss of zero, because there is nothing to minimise."""
        item = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, item, torch.ones_like(item).unsqueeze(1))
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.zeros(1, device=item.device)


def get_model_class(name: str) -> Any:
    """Return RecBole's model class of this name, with `ExactPop` in place of Pop."""
    return ExactPop if name == "Pop" else get_model(name)


def make_loader(config: MemoryConfig, dataset: Any) -> Any:
    """Build RecBole's training loader of the model with its negative sampler.

    Both use only the training interactions.

    Args:
        config: RecBole configuration of the model.
        dataset: training dataset from `make_dataset`.

    Raises:
        SettingsError: the settings of negative sampling or of masks contradict each other.
        DataError: a user has no negative item, or the data contain no training signal.
    """
    args = config["train_neg_sample_args"]
    sampler = None
    if args["distribution"] != "none":
        kind = RepeatableSampler if config["repeatable"] else Sampler
        try:
            sampler = kind(["train"], dataset, args["distribution"], args["alpha"]).set_phase("train")
        except ValueError as error:  # RecBole advises a filter that our runs do not have
            raise DataError(f"{NO_NEGATIVE}; remove such users") from error
    return get_dataloader(config, "train")(config, dataset, sampler, shuffle=True)


def make_optimizer(config: MemoryConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer as RecBole's trainer of the model does.

    The constructor of RecBole's trainer would also create folders for TensorBoard and checkpoints in the current
    folder. Therefore only the attributes that `_build_optimizer` reads are set here.
    """
    kind = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer = kind.__new__(kind)
    AbstractTrainer.__init__(trainer, config, model)
    for name in ("learner", "learning_rate", "weight_decay"):
        setattr(trainer, name, config[name])
    optimizer: torch.optim.Optimizer = trainer._build_optimizer()
    return optimizer
