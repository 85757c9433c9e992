"""Describe a model to the harness, and check that it has all that training and scoring call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from hellm_recbole.config.harness_settings import PairSettings, StepSettings
from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from hellm_recbole.types import HistoryBatch, PairBatch, QueryBatch

Family = Literal["collaborative", "multimodal", "sequential", "llm", "external"]
FAMILIES: tuple[Family, ...] = ("collaborative", "multimodal", "sequential", "llm")  # of models; `external` has none
BatchKind = Literal["pairs", "sequences", "prefixes", "none"]
LLM: Family = "llm"
NONE: BatchKind = "none"  # of models that are fitted when they are built, and train nothing
FURTHER_TEXT = "text_"  # start of the names of further encodings of the item texts
T = TypeVar("T")
_METHODS = {
    "build": "build(settings, data), the class method that builds the model,",
    "loss": "loss(batch), the method that returns named terms to minimise,",
    "encode": "encode(), the method that returns item vectors and user vectors,",
    "query": "query(encoded, batch), the method that returns vectors of the users of a batch,",
}
_FITTED_METHODS = {
    "build": _METHODS["build"],
    "score": "score(batch), the method that returns the scores of all items for the users of a batch,",
}
_SCORING_METHODS = {**_FITTED_METHODS, "loss": _METHODS["loss"]}


def select_default_modalities(names: Iterable[str]) -> list[str]:
    """Select the modalities that a model reads if its settings name none: all but further encodings of the texts.

    Pictures add something that texts do not have, but `text_llm` is another view of the same texts as `text`. So a
    dataset that gets a further encoding keeps the numbers of all models that do not name it.

    >>> select_default_modalities(["text_llm", "text", "image"])
    ['text', 'image']
    """
    return [name for name in names if not name.startswith(FURTHER_TEXT)]


class ScoringModel(Protocol):
    """A trained model that computes the scores of all items itself, in place of vectors whose products are the scores.

    Attributes:
        max_history: number of history items that `score` reads; 0 if it reads none.
    """

    max_history: int

    def score(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32."""

    def loss(self, batch: PairBatch | HistoryBatch) -> dict[str, Tensor]:
        """Compute the named scalar loss terms. Training minimises their sum."""


class FittedModel(Protocol):
    """A model that `build` fits in closed form or by counting, without any parameter to train.

    It may have a static method `estimate_bytes(n_items)`, the memory that fitting needs; a run for which that is not
    free is refused before it is fitted.

    Attributes:
        max_history: number of history items that `score` reads; 0 if it reads none.
    """

    max_history: int

    def score(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32, on any device."""


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Features and texts that a model does not get cannot change its numbers, so they are not part of its identity.

    Attributes:
        cls: `nn.Module` class that satisfies `types.Recommender` and has `build(settings, data: TrainData)`. A model
            without batches satisfies `FittedModel` instead.
        settings: class of the model's settings; values come from `properties/model/<Name>.yaml`.
        family: group of the results table that the model belongs to.
        batches: kind of batch that its `loss` takes: pairs, sequences with a target at every position, or prefixes of
            sequences with one target each. LLM models choose between the last two by their setting `examples`. A model
            with `none` has no loss: `build` fits it, and no parameter is trained.
        reads_features: whether the model gets the item features of the dataset: those of its setting `modalities`, or
            those that are read by default (see `select_default_modalities`); None means that it gets them if it has
            that setting.
        reads_texts: whether the model gets the item texts; None means that it gets them if its setting
            `item_text_tokens` is not 0.
        scores_items: whether a trained model satisfies `ScoringModel`: it computes the scores of all items itself.
    """

    cls: Any
    settings: type[Settings]
    family: Family
    batches: BatchKind
    reads_features: bool | None = None
    reads_texts: bool | None = None
    scores_items: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether `build` fits the model, so that nothing is trained."""
        return self.batches == NONE

    @property
    def has_item_embeddings(self) -> bool:
        """Whether other models can read the item embeddings of the model."""
        return self.family != LLM and not self.is_fitted and not self.scores_items

    @property
    def methods(self) -> Mapping[str, str]:
        """Methods that the class must have -> what they are, for messages."""
        if self.is_fitted:
            return _FITTED_METHODS
        return _SCORING_METHODS if self.scores_items else _METHODS

    @property
    def settings_classes(self) -> tuple[type[Settings], ...]:
        """Classes of the settings of a run of the model, without those that all runs have."""
        sampling = (PairSettings,) if self.batches == "pairs" else ()
        steps = (StepSettings,) if self.family == LLM else ()
        return (self.settings, *sampling, *steps)

    def gets_texts(self, settings: Any) -> bool:
        """Return whether a model with these settings gets the item texts."""
        return bool(getattr(settings, "item_text_tokens", 0)) if self.reads_texts is None else self.reads_texts

    def choose_features(self, settings: Any, features: Mapping[str, T]) -> dict[str, T]:
        """Select the modalities that a model with these settings gets.

        If the setting `modalities` names one that the dataset lacks, or names none and the dataset has none that is
        read by default, all modalities are returned. The model then raises the error when it is built, with the list
        of those that exist.

        Args:
            settings: settings of the model.
            features: modality -> its features, for all modalities of the dataset.
        """
        if not (hasattr(settings, "modalities") if self.reads_features is None else self.reads_features):
            return {}
        chosen = getattr(settings, "modalities", None)
        if chosen is None:
            chosen = select_default_modalities(features)
        names = chosen if chosen and set(chosen) <= features.keys() else features
        return {name: features[name] for name in names}


def check_spec(name: str, spec: ModelSpec) -> None:
    """Refuse a registered model that lacks a part that training or scoring uses, before anything is trained.

    Args:
        name: name of the model.
        spec: specification of the model.

    Raises:
        ModelError: the model is incomplete; the message lists all that is missing.
    """
    if not isinstance(spec, ModelSpec):
        raise ModelError(f"model {name} is registered as {type(spec).__name__}; register a ModelSpec")
    faults = []
    settings: Any = spec.settings  # plugins are not type-checked
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        faults.append(
            "its settings are not a subclass of hellm_recbole.config.settings.Settings (make their class one, without "
            "@dataclass; pydantic's Field(ge=0) and Literal['a', 'b'] replace setting(ge=0) and setting(choices=...))"
        )
    if spec.family not in FAMILIES:
        faults.append(f"its family {spec.family!r} is not one of {', '.join(FAMILIES)}")
    if spec.batches not in get_args(BatchKind):
        faults.append(f"its batches {spec.batches!r} are not one of {', '.join(get_args(BatchKind))}")
    if not isinstance(spec.cls, type):
        faults.append("it has no class")
    else:
        missing = [key for key in spec.methods if not callable(getattr(spec.cls, key, None))]
        faults += [f"{spec.methods[key]} is missing" for key in missing]
        if not _sets_attribute(spec.cls, "max_history"):
            faults.append("max_history, the number of history items that query reads (0 for none), is never set")
    if faults:
        class_name = getattr(spec.cls, "__qualname__", spec.cls)
        raise ModelError(f"model {name} ({class_name}) is not complete: {', '.join(faults)}")


def check_module(name: str, module: Any) -> None:
    """Refuse a built model whose `max_history` is not a history length.

    Args:
        name: name of the model.
        module: the built model.

    Raises:
        ModelError: `max_history` is missing, or is not a whole number of at least 0.
    """
    found = getattr(module, "max_history", None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ModelError(
            f"model {name} has max_history = {found!r}; set it to the number of history items that query reads, or 0"
        )


def _sets_attribute(cls: type[Any], attribute: str) -> bool:
    """Return whether a class has an attribute, or one of its methods or of its parents' methods uses that name."""
    if hasattr(cls, attribute):
        return True
    functions = (getattr(value, "__func__", value) for parent in cls.__mro__ for value in vars(parent).values())
    code = [function.__code__ for function in functions if hasattr(function, "__code__")]
    return any(attribute in (*part.co_names, *part.co_consts) for part in code)
