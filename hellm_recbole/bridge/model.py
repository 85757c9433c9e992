"""RecBole model classes around our models: RecBole trains and evaluates, our model does the maths.

Importing this module imports recbole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from hellm_recbole.config.layers import OVERRIDES, SECTIONS, Resolved, Value, build_settings, find_properties, load_yaml
from hellm_recbole.data.atomic import FEATURES, check_tokens, list_features, read_features, read_item_texts
from hellm_recbole.data.embeddings import read_item_embeddings
from hellm_recbole.data.features import encode_texts
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.prepare import TEXT, list_datasets, make_request, read_dataset_settings, read_feature_settings
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
_READS_FEATURES = ("multimodal",)  # families


class _Adapter(torch.nn.Module):
    """What both kinds share. RecBole's base class, which comes second in the order of classes, reads the configuration.

    Attributes:
        spec: the model.
        ours: its name in our registry.
    """

    spec: ClassVar[ModelSpec]
    ours: ClassVar[str]
    USER_ID: str
    ITEM_ID: str

    @classmethod
    def recbole_defaults(cls) -> dict[str, Value]:
        """Our settings file of the model, training keys under RecBole's names; RecBole's own layers override it."""
        values = load_yaml(find_properties() / "model" / f"{cls.ours}.yaml")
        if cls.spec.family == LLM:
            shared = load_yaml(find_properties() / "llm.yaml")
            values = {**shared, **shared[OVERRIDES], **values, **values.get(OVERRIDES, {})}
        values = {key: value for key, value in values.items() if key not in SECTIONS}  # those are our harness's
        renamed = {"batch_size": "train_batch_size", "optimizer": "learner"}
        defaults = {renamed.get(key, key): value for key, value in values.items() if key != "clip_norm"}
        if values.get("clip_norm"):
            defaults["clip_grad_norm"] = {"max_norm": values["clip_norm"]}
        return defaults

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build our model on RecBole's training dataset.

        Raises:
            SettingsError: a setting is ill-typed or out of range.
            DataError: a feature file is malformed.
            ModelError: the dataset lacks what the model needs.
        """
        super().__init__(config, dataset)
        values = {field.name: config[field.name] for field in fields(self.spec.settings)}
        settings: Any = build_settings(self.spec.settings, Resolved(values, dict.fromkeys(values, _ORIGIN)))
        data = TrainData(
            n_users=int(dataset.user_num) - 1,
            n_items=int(dataset.item_num) - 1,
            history=self.history(config, dataset),
            features=_features(config, dataset) if self.spec.family in _READS_FEATURES else {},
            pretrained=_pretrained(config, dataset) if self.spec.family == LLM else {},
        )
        self.model: Any = self.spec.cls.build(settings, data)
        self._encoded: Encoded | None = None

    def history(self, config: Any, dataset: Any) -> Histories:
        """Training items of each user."""
        raise NotImplementedError

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Users to be scored."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        """Also forgets the encoded users and items: parameters change between two evaluations.

        RecBole calls it at the start of each epoch of training.
        """
        self._encoded = None
        if mode and isinstance(self.model, StartsEpochs):
            self.model.start_epoch()
        return super().train(mode)

    @torch.no_grad()
    def _query(self, interaction: Any) -> tuple[Encoded, Tensor]:
        """Encoded items and [B, D] user vectors."""
        if self.training:
            encoded = self.model.encode()
        else:
            if self._encoded is None:
                self._encoded = self.model.encode()
            encoded = self._encoded
        return encoded, self.model.query(encoded, self.query_batch(interaction))

    def predict(self, interaction: Any) -> Tensor:
        """[B] score of each (user, item) pair."""
        encoded, query = self._query(interaction)
        item = interaction[self.ITEM_ID]
        scores = (query * encoded.items[item]).sum(dim=1)
        return scores if encoded.item_bias is None else scores + encoded.item_bias[item]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """[B, I + 1] scores of all items; RecBole itself leaves out column 0."""
        encoded, query = self._query(interaction)
        scores = query @ encoded.items.T
        return scores if encoded.item_bias is None else scores + encoded.item_bias


class PairAdapter(_Adapter, GeneralRecommender):  # type: ignore[misc]
    """A model that learns from (user, item, negative) triples."""

    input_type = InputType.PAIRWISE
    NEG_ITEM_ID: str

    def history(self, config: Any, dataset: Any) -> Histories:
        """In time order if RecBole has loaded the times, else in RecBole's order."""
        table = dataset.inter_feat
        user, item = table[dataset.uid_field].numpy(), table[dataset.iid_field].numpy()
        if dataset.time_field in table:
            order = np.argsort(table[dataset.time_field].numpy(), kind="stable")
            user, item = user[order], item[order]
        return Histories.from_pairs(user, item, int(dataset.user_num) - 1)

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Users without histories."""
        user = interaction[self.USER_ID]
        return QueryBatch(user, user.new_zeros(len(user), 0))

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Sum of the model's terms."""
        columns = (interaction[name] for name in (self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID))
        return torch.stack(list(self.model.loss(PairBatch(*columns)).values())).sum()


class SequenceAdapter(_Adapter, SequentialRecommender):  # type: ignore[misc]
    """A model that learns from sequences.

    RecBole makes a row of each prefix of a user's items, with the next item as its only target; our own trainer gives
    the model a whole sequence with a target at every position, which costs a small part of that.
    """

    input_type = InputType.POINTWISE
    ITEM_SEQ: str
    ITEM_SEQ_LEN: str
    POS_ITEM_ID: str

    @classmethod
    def recbole_defaults(cls) -> dict[str, Value]:
        """No sampled negatives, and as many items as the model reads."""
        values = super().recbole_defaults()
        return {**values, "train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": values["max_history"]}

    def __init__(self, config: Any, dataset: Any) -> None:
        """Also checks that RecBole's sequences are ones the model can read.

        Raises:
            SettingsError: they are not.
        """
        super().__init__(config, dataset)
        if config["MAX_ITEM_LIST_LENGTH"] > self.model.max_history:
            raise SettingsError(
                f"{_ORIGIN}: MAX_ITEM_LIST_LENGTH = {config['MAX_ITEM_LIST_LENGTH']} but {self.ours} reads "
                f"max_history = {self.model.max_history} items; set both to the same number"
            )
        if config["train_neg_sample_args"]["distribution"] != "none":
            raise SettingsError(f"{_ORIGIN}: {self.ours} samples no negatives; leave train_neg_sample_args out")

    def history(self, config: Any, dataset: Any) -> Histories:
        """The first item of a user's first prefix, then the target of each prefix.

        RecBole's order of rows is that of time. It has no row, and so no history, for a user with one interaction.
        """
        table = dataset.inter_feat
        user, target = table[dataset.uid_field].numpy(), table[dataset.iid_field].numpy()
        first = table[dataset.item_list_length_field].numpy() == 1
        opening = table[getattr(dataset, f"{dataset.iid_field}_list_field")].numpy()[first, 0]
        return Histories.from_pairs(
            np.concatenate([user[first], user]), np.concatenate([opening, target]), int(dataset.user_num) - 1
        )

    def query_batch(self, interaction: Any) -> QueryBatch:
        """Users with the items RecBole gives for them."""
        return QueryBatch(interaction[self.USER_ID], interaction[self.ITEM_SEQ])

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Sum of the model's terms; the only target is at the last item of each sequence."""
        items = interaction[self.ITEM_SEQ]
        targets = torch.zeros_like(items)
        last = interaction[self.ITEM_SEQ_LEN].unsqueeze(1) - 1
        targets.scatter_(1, last, interaction[self.POS_ITEM_ID].unsqueeze(1))
        return torch.stack(list(self.model.loss(HistoryBatch(items, targets)).values())).sum()


def _features(config: Any, dataset: Any) -> Mapping[str, FloatArray]:
    """Modality -> [I + 1, D_m] in RecBole's ids, row 0 zero.

    `<modality>_feat.npy` with its tokens in the dataset's folder; where there are none and the dataset is one we know,
    its texts are encoded (MovieLens-100K inside the RecBole wheel has titles and genres).

    Raises:
        DataError: a feature file is malformed or lacks an item.
    """
    folder = Path(config["data_path"])
    items = [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]]
    found = {}
    for modality in list_features(folder):
        path = folder / f"{modality}{FEATURES}"
        matrix = read_features(path)
        check_tokens(path, matrix.tokens, items, allowed=set(matrix.tokens))  # RecBole's filters may have dropped items
        found[modality] = matrix.of(items).values
    name = str(config["dataset"])
    if not found and name in list_datasets() and (folder / f"{name}.item").is_file():
        settings = read_dataset_settings(name, None, {})
        read = KINDS["recbole"].read(folder, make_request(name, settings, progress=False))
        texts = read_item_texts(read.items, items, settings.text, folder)
        cache = Path(config["checkpoint_dir"]) / "encodings"
        found[TEXT] = encode_texts(items, texts, read_feature_settings({}), cache, progress=False)[0].values
    return {modality: _with_padding(values) for modality, values in found.items()}


def _pretrained(config: Any, dataset: Any) -> Mapping[str, FloatArray]:
    """Model -> [I + 1, D] item embeddings, from the folders that the configuration's `embeddings` names.

    Raises:
        SettingsError: `embeddings` is not a mapping.
        DataError: a folder is broken or lacks an item.
    """
    folders = config["embeddings"] or {}
    if not isinstance(folders, dict):
        raise SettingsError(
            f"{_ORIGIN}: embeddings = {folders!r} must name a folder for each model, such as "
            "{SASRec: results/ml-100k/SASRec/2024/embeddings}"
        )
    tokens = np.array(["", *(str(token) for token in dataset.field2id_token[dataset.iid_field][1:])])
    return {name: read_item_embeddings(Path(folder), tokens) for name, folder in folders.items()}


def _with_padding(values: FloatArray) -> FloatArray:
    """[I + 1, D_m] from [I, D_m]: row 0 is zero."""
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values])
