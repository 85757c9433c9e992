"""RecBole model classes that wrap our models, so that RecBole can train and evaluate them.

Importing this module imports recbole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from hellm_recbole.config.layers import OVERRIDES, SECTIONS, Resolved
from hellm_recbole.config.settings import build_settings, list_field_names
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.data.embeddings import read_item_embeddings
from hellm_recbole.data.feature_files import FEATURES, check_tokens, list_features, read_features
from hellm_recbole.data.features import encode_texts
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.item_texts import read_item_texts
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.data.modalities import TEXT
from hellm_recbole.data.prepare import make_request, read_dataset_settings, read_feature_settings
from hellm_recbole.errors import SettingsError
from hellm_recbole.models.base import LLM, ModelSpec
from hellm_recbole.types import (
    Encoded,
    FloatArray,
    Histories,
    HistoryBatch,
    PairBatch,
    QueryBatch,
    StartsEpochs,
    TrainData,
)

_ORIGIN = "RecBole's configuration"
_FEATURE_FAMILIES = ("multimodal",)  # families whose models read item features


class _Adapter(torch.nn.Module):
    """Common part of both adapters.

    A subclass inherits from this class first and from RecBole's base class second. The latter reads the configuration.

    Attributes:
        spec: registry entry of the model.
        registry_name: name of the model in our registry.
    """

    spec: ClassVar[ModelSpec]
    registry_name: ClassVar[str]
    USER_ID: str
    ITEM_ID: str

    @classmethod
    def recbole_defaults(cls) -> dict[str, Value]:
        """Return the model's settings from our settings file, with RecBole's names for the training settings.

        The values that the user gives to RecBole override them.
        """
        values = load_yaml(find_properties() / "model" / f"{cls.registry_name}.yaml")
        if cls.spec.family == LLM:
            shared = load_yaml(find_properties() / "llm.yaml")
            values = {**shared, **shared[OVERRIDES], **values, **values.get(OVERRIDES, {})}
        values = {key: value for key, value in values.items() if key not in SECTIONS}  # only our harness uses them
        renamed = {"batch_size": "train_batch_size", "optimizer": "learner"}
        defaults = {renamed.get(key, key): value for key, value in values.items() if key != "clip_norm"}
        if values.get("clip_norm"):
            defaults["clip_grad_norm"] = {"max_norm": values["clip_norm"]}
        return defaults

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build our model on RecBole's training dataset.

        Raises:
            SettingsError: a setting has the wrong type or is out of range.
            DataError: a feature file is malformed.
            ModelError: the dataset lacks data that the model needs.
        """
        super().__init__(config, dataset)
        values = {name: config[name] for name in list_field_names(self.spec.settings)}
        settings: Any = build_settings(self.spec.settings, Resolved(values, dict.fromkeys(values, _ORIGIN)))
        data = TrainData(
            n_users=int(dataset.user_num) - 1,
            n_items=int(dataset.item_num) - 1,
            history=self.history(config, dataset),
            features=_load_features(config, dataset) if self.spec.family in _FEATURE_FAMILIES else {},
            pretrained=_load_pretrained(config, dataset) if self.spec.family == LLM else {},
        )
        self.model: Any = self.spec.cls.build(settings, data)
        self._encoded: Encoded | None = None

    def history(self, config: Any, dataset: Any) -> Histories:
        """Return the training items of each user, oldest first."""
        raise NotImplementedError

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, with the histories that the model reads."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation, and discard the encoded users and items.

        Parameters change between two evaluations, so the encoded vectors become invalid. RecBole calls this method at
        the start of each training epoch, so the model's epoch starts here too.
        """
        self._encoded = None
        if mode and isinstance(self.model, StartsEpochs):
            self.model.start_epoch()
        return super().train(mode)

    @torch.no_grad()
    def _compute_query(self, interaction: Any) -> tuple[Encoded, Tensor]:
        """Compute the encoded users and items, and the user vectors [B, D] of a batch."""
        if self.training:
            encoded = self.model.encode()
        else:
            if self._encoded is None:
                self._encoded = self.model.encode()
            encoded = self._encoded
        return encoded, self.model.query(encoded, self.query_batch(interaction))

    def predict(self, interaction: Any) -> Tensor:
        """Compute the score of each (user, item) pair, [B]."""
        encoded, query = self._compute_query(interaction)
        item = interaction[self.ITEM_ID]
        scores = (query * encoded.items[item]).sum(dim=1)
        return scores if encoded.item_bias is None else scores + encoded.item_bias[item]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Compute the scores of all items, [B, I + 1]. RecBole removes column 0 (padding) itself."""
        encoded, query = self._compute_query(interaction)
        scores = query @ encoded.items.T
        return scores if encoded.item_bias is None else scores + encoded.item_bias


class PairAdapter(_Adapter, GeneralRecommender):  # type: ignore[misc]
    """Adapter of a model that trains on (user, positive item, negative item) triples."""

    input_type = InputType.PAIRWISE
    NEG_ITEM_ID: str

    def history(self, config: Any, dataset: Any) -> Histories:
        """Return the training items of each user, by time if RecBole has loaded times, else in RecBole's order."""
        table = dataset.inter_feat
        user, item = table[dataset.uid_field].numpy(), table[dataset.iid_field].numpy()
        if dataset.time_field in table:
            order = np.argsort(table[dataset.time_field].numpy(), kind="stable")
            user, item = user[order], item[order]
        return Histories.from_pairs(user, item, int(dataset.user_num) - 1)

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, without histories."""
        user = interaction[self.USER_ID]
        return QueryBatch(user, user.new_zeros(len(user), 0))

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Compute the sum of the model's loss terms."""
        columns = (interaction[name] for name in (self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID))
        return torch.stack(list(self.model.loss(PairBatch(*columns)).values())).sum()


class SequenceAdapter(_Adapter, SequentialRecommender):  # type: ignore[misc]
    """Adapter of a model that trains on sequences.

    RecBole trains on each prefix of a user's items as a separate example, whose only target is the next item. Our own
    trainer uses each sequence once, with a target at every position, which is much cheaper.
    """

    input_type = InputType.POINTWISE
    ITEM_SEQ: str
    ITEM_SEQ_LEN: str
    POS_ITEM_ID: str

    @classmethod
    def recbole_defaults(cls) -> dict[str, Value]:
        """Return the model's settings for RecBole.

        No negatives are sampled, and RecBole's sequences are as long as those that the model reads.
        """
        values = super().recbole_defaults()
        return {**values, "train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": values["max_history"]}

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build our model on RecBole's training dataset, and check that it can read RecBole's sequences.

        Raises:
            SettingsError: RecBole's sequences are longer than the model reads, or negatives would be sampled.
        """
        super().__init__(config, dataset)
        if config["MAX_ITEM_LIST_LENGTH"] > self.model.max_history:
            raise SettingsError(
                f"{_ORIGIN}: MAX_ITEM_LIST_LENGTH = {config['MAX_ITEM_LIST_LENGTH']} but {self.registry_name} reads "
                f"max_history = {self.model.max_history} items; set both to the same number"
            )
        if config["train_neg_sample_args"]["distribution"] != "none":
            raise SettingsError(f"{_ORIGIN}: {self.registry_name} samples no negatives; remove train_neg_sample_args")

    def history(self, config: Any, dataset: Any) -> Histories:
        """Return the training items of each user: the first item of their first prefix, then the target of each prefix.

        RecBole's examples are sorted by time. It has no example, and so no history, for a user with one interaction.
        """
        table = dataset.inter_feat
        user, target = table[dataset.uid_field].numpy(), table[dataset.iid_field].numpy()
        is_first = table[dataset.item_list_length_field].numpy() == 1
        first_item = table[getattr(dataset, f"{dataset.iid_field}_list_field")].numpy()[is_first, 0]
        return Histories.from_pairs(
            np.concatenate([user[is_first], user]), np.concatenate([first_item, target]), int(dataset.user_num) - 1
        )

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, with the item sequences that RecBole provides."""
        return QueryBatch(interaction[self.USER_ID], interaction[self.ITEM_SEQ])

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Compute the sum of the model's loss terms. Each sequence has one target, at its last item."""
        items = interaction[self.ITEM_SEQ]
        targets = torch.zeros_like(items)
        last = interaction[self.ITEM_SEQ_LEN].unsqueeze(1) - 1
        targets.scatter_(1, last, interaction[self.POS_ITEM_ID].unsqueeze(1))
        return torch.stack(list(self.model.loss(HistoryBatch(items, targets)).values())).sum()


def _load_features(config: Any, dataset: Any) -> Mapping[str, FloatArray]:
    """Load the item features of all modalities.

    They are read from `<modality>_feat.npy` and its token file in the dataset's folder. If there is no such file and
    this project knows the dataset, its item texts are encoded instead. For example, the RecBole wheel contains
    MovieLens-100K with titles and genres.

    Returns:
        Modality name -> [I + 1, D_m] features in the order of RecBole's item ids; row 0 is zero.

    Raises:
        DataError: a feature file is malformed or lacks an item.
    """
    folder = Path(config["data_path"])
    items = [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]]
    found = {}
    for modality in list_features(folder):
        path = folder / f"{modality}{FEATURES}"
        matrix = read_features(path)
        check_tokens(path, matrix.tokens, items, allowed=set(matrix.tokens))  # RecBole may have filtered out items
        found[modality] = matrix.select_items(items).values
    name = str(config["dataset"])
    if not found and name in list_datasets() and (folder / f"{name}.item").is_file():
        settings = read_dataset_settings(name, None, {})
        raw = KINDS["recbole"].read(folder, make_request(name, settings, progress=False))
        texts = read_item_texts(raw.items, items, settings.text, folder)
        cache = Path(config["checkpoint_dir"]) / "encodings"
        found[TEXT] = encode_texts(items, texts, read_feature_settings({}), cache, progress=False)[0].values
    return {modality: _add_padding(values) for modality, values in found.items()}


def _load_pretrained(config: Any, dataset: Any) -> Mapping[str, FloatArray]:
    """Load pretrained item embeddings from the folders in the configuration's `embeddings`.

    Returns:
        Model name -> [I + 1, D] item embeddings in the order of RecBole's item ids.

    Raises:
        SettingsError: `embeddings` is not a mapping.
        DataError: a folder is damaged or lacks an item.
    """
    folders = config["embeddings"] or {}
    if not isinstance(folders, dict):
        raise SettingsError(
            f"{_ORIGIN}: embeddings = {folders!r} must map each model to a folder, for example "
            "{SASRec: results/ml-100k/SASRec/2024/embeddings}"
        )
    tokens = np.array(["", *(str(token) for token in dataset.field2id_token[dataset.iid_field][1:])])
    return {name: read_item_embeddings(Path(folder), tokens) for name, folder in folders.items()}


def _add_padding(values: FloatArray) -> FloatArray:
    """Add row 0 of zeros to features: [I, D_m] -> [I + 1, D_m]."""
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values])
