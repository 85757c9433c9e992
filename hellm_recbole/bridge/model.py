"""RecBole model classes that wrap the models of our harness, so that RecBole's entry point runs them.

Importing this module imports recbole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from hellm_recbole.bridge.harness_dataset import HarnessDataset
from hellm_recbole.bridge.item_data import add_item_data
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.bridge.pretrained import get_row_name, load_pretrained
from hellm_recbole.bridge.register import SEQUENTIAL, OfferedModel, list_by_module
from hellm_recbole.bridge.settings import RunSettings, build_run_settings
from hellm_recbole.config.harness_settings import TrainSettings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.llm.settings import NO_BACKBONE
from hellm_recbole.llm.source import find_source
from hellm_recbole.models.base import LLM
from hellm_recbole.models.llm_settings import refuse_contradictions
from hellm_recbole.training.averaging import use_average
from hellm_recbole.training.fitted import FittedLearner
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.scoring import ScoringLearner
from hellm_recbole.training.state import collect_model_state, load_model_state
from hellm_recbole.types import QueryBatch


class _Adapter(torch.nn.Module):
    """Common part of both adapters.

    A subclass inherits from this class first and from RecBole's base class second. The latter reads the configuration.

    Attributes:
        offered: the model that is wrapped.
        run: settings of the run.
        split: split of the dataset.
        learner: learner that trains and scores the model; `trainer.py` uses it.
        model: module of the learner.
    """

    _RAW = "raw."  # prefix of the weights that training goes on from, in a state whose `model` part are averages

    offered: ClassVar[OfferedModel]
    input_type = InputType.POINTWISE  # RecBole's training loader then samples no negatives
    USER_ID: str
    ITEM_ID: str

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the learner on RecBole's training dataset.

        Args:
            config: RecBole's configuration.
            dataset: training part of a `HarnessDataset`.

        Raises:
            SettingsError: a setting has the wrong type or is out of range.
            DataError: a file is malformed, or the dataset was not built by `recbole.data.data_preparation`.
            ModelError: the dataset lacks data that the model needs.
        """
        super().__init__(config, dataset)
        if not isinstance(dataset, HarnessDataset) or dataset.split is None:
            raise DataError(
                f"{self.offered.recbole_name} needs the dataset that recbole.data.create_dataset and data_preparation "
                "make for it; pass train_data._dataset"
            )
        self.run = build_run_settings(config, self.offered)
        self.split: Split = dataset.split
        self.learner = _build_learner(config, self.offered, self.run, self.split)
        self.model = self.learner.module
        self._is_prepared = False
        self._raw: dict[str, Tensor] = {}

    @property
    def has_item_embeddings(self) -> bool:
        """Whether other models can read the item embeddings of this one."""
        return self.offered.spec is not None and self.offered.spec.has_item_embeddings

    def make_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, with the histories that the model reads."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation, and discard the encoded users and items."""
        self._is_prepared = False
        return super().train(mode)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Refuse: `HarnessTrainer`, which RecBole uses for this model, draws the batches itself."""
        raise NotImplementedError(f"{self.offered.recbole_name} is trained by recbole.utils.get_trainer's class for it")

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Compute the scores of all items, [B, I + 1]; column 0 (padding) is minus infinity."""
        if not self._is_prepared or self.training:
            self.learner.prepare()
            self._is_prepared = True
        scores = self.learner.score_batch(self.make_batch(interaction))
        return torch.cat([scores.new_full((len(scores), 1), -torch.inf), scores], dim=1)

    def predict(self, interaction: Any) -> Tensor:
        """Compute the score of each (user, item) pair, [B]."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return what training has changed: without the weights of a language model.

        If the run keeps a moving average of the weights, they are returned averaged, and as `raw.<name>` as they are.
        """
        average = self.learner.average
        with use_average(average):
            state = collect_model_state(self.learner)
            raw = {} if average is None else average.collect_state()  # exchanged with the weights
        return state | {f"{self._RAW}{name}": value for name, value in raw.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> None:
        """Load a state from `state_dict`, with averaged weights if the run keeps an average.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        self._is_prepared = False
        self._raw = {
            key.removeprefix(self._RAW): value for key, value in state_dict.items() if key.startswith(self._RAW)
        }
        state = {key: value for key, value in state_dict.items() if not key.startswith(self._RAW)}
        load_model_state(self.learner, state)

    def load_raw_weights(self) -> None:
        """Go on from the weights of the state that was loaded last, and keep the loaded averages as averages.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        average = self.learner.average
        if average is not None:
            average.load_state(self._raw)
            average.swap()


class GeneralAdapter(_Adapter, GeneralRecommender):  # type: ignore[misc]
    """Adapter of a model that reads no histories."""

    def make_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, without histories."""
        user = interaction[self.USER_ID]
        return QueryBatch(user, user.new_zeros(len(user), 0))


class SequentialAdapter(_Adapter, SequentialRecommender):  # type: ignore[misc]
    """Adapter of a model that reads histories."""

    ITEM_SEQ: str

    def make_batch(self, interaction: Any) -> QueryBatch:
        """Return the users to score, with the item sequences that RecBole provides."""
        return QueryBatch(interaction[self.USER_ID], interaction[self.ITEM_SEQ])


def _build_learner(
    config: Any, offered: OfferedModel, run: RunSettings, split: Split
) -> ModelLearner | FittedLearner | RecBoleLearner:
    """Build the learner of a run from RecBole's configuration.

    Raises:
        HellmError: a setting is wrong, or the dataset lacks data that the model needs.
    """
    data, seed, device = split.make_train_data(), int(config["seed"]), config["device"]
    if offered.spec is None:
        return RecBoleLearner(offered.base, data, run.values, seed, device)
    data = add_item_data(data, config, split.item_tokens, offered.spec, run.model)
    if offered.spec.is_fitted:
        return FittedLearner(offered.spec, run.model, data, device)
    if offered.spec.family == LLM:
        refuse_contradictions(run.model, data.item_text)
        if run.model.llm_weights != NO_BACKBONE:
            find_source(run.model.llm)  # a missing one is refused before pretrained models are trained
        name = get_row_name(config, offered)
        data = replace(data, pretrained=load_pretrained(config, split, run.model.pretrained_models, name))
    assert isinstance(run.train, TrainSettings)  # only fitted models have other settings here
    learner = ScoringLearner if offered.spec.scores_items else ModelLearner
    return learner(offered.spec, run.model, data, run.train, run.pairs, seed, device, run.steps)


def make_adapter_class(family: str, lower_name: str, module: str) -> type[Any]:
    """Create the RecBole model class of an offered model.

    Args:
        family: last part of the name of RecBole's package, such as general_recommender.
        lower_name: name of the model in RecBole, in lower case.
        module: name of the module that will contain the class.
    """
    offered = list_by_module()[family, lower_name]
    base = SequentialAdapter if family == SEQUENTIAL else GeneralAdapter
    doc = f"{offered.name} of hellm_recbole's harness as a RecBole model."
    return type(offered.recbole_name, (base,), {"__module__": module, "__doc__": doc, "offered": offered})
