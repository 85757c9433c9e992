"""What the harness knows of a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hellm_recbole.errors import ModelError

Family = Literal["collaborative", "multimodal", "sequential", "llm"]
FAMILIES: tuple[Family, ...] = ("collaborative", "multimodal", "sequential", "llm")
BatchKind = Literal["pairs", "sequences"]
LLM: Family = "llm"
_METHODS = {
    "build": "build(settings, data), a class method that makes the model",
    "loss": "loss(batch), named terms to minimise",
    "encode": "encode(), item vectors and user vectors",
    "query": "query(encoded, batch), vectors of the users of a batch",
}


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        cls: an `nn.Module` that satisfies `types.Recommender` and has `build(settings, data: TrainData)`.
        settings: its frozen settings dataclass; values come from `properties/model/<Name>.yaml`.
        family: the group of the table it belongs to.
        batches: the kind of batch that its `loss` takes.
        reads_features: it is handed the dataset's item features, all or those of its setting `modalities`; None stands
            for yes where it has that setting.
        reads_texts: it is handed the item texts; None stands for yes where its setting `item_text_tokens` is not 0.

    Features and texts that a model is not handed cannot change its numbers, so they are no part of its identity.
    """

    cls: Any
    settings: type[Any]
    family: Family
    batches: BatchKind
    reads_features: bool | None = None
    reads_texts: bool | None = None


def check_spec(name: str, spec: ModelSpec) -> None:
    """Refuse a registered model that lacks what training and scoring call, before anything is trained.

    Args:
        name: of the model.
        spec: of the model.

    Raises:
        ModelError: it says all that is missing, in one sentence.
    """
    if not isinstance(spec, ModelSpec):
        raise ModelError(f"model {name} is registered as {type(spec).__name__}; register a ModelSpec")
    faults = []
    if not (isinstance(spec.settings, type) and dataclasses.is_dataclass(spec.settings)):
        faults.append("its settings are no dataclass")
    if spec.family not in FAMILIES:
        faults.append(f"its family {spec.family!r} is none of {', '.join(FAMILIES)}")
    if spec.batches not in get_args(BatchKind):
        faults.append(f"its batches {spec.batches!r} are none of {', '.join(get_args(BatchKind))}")
    if not isinstance(spec.cls, type):
        faults.append("it has no class")
    else:
        missing = [key for key in _METHODS if not callable(getattr(spec.cls, key, None))]
        faults += [f"{_METHODS[key]} is missing" for key in missing]
        if not _sets(spec.cls, "max_history"):
            faults.append("max_history, the number of history items that query reads (0 for none), is never set")
    if faults:
        who = getattr(spec.cls, "__qualname__", spec.cls)
        raise ModelError(f"model {name} ({who}) is not complete: {', '.join(faults)}")


def check_module(name: str, module: Any) -> None:
    """Refuse a model whose history length is none, once it is built.

    Raises:
        ModelError: `max_history` is missing, or no whole number of at least 0.
    """
    found = getattr(module, "max_history", None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ModelError(
            f"model {name} has max_history = {found!r}; set it to the number of history items that query reads, or 0"
        )


def _sets(cls: type[Any], attribute: str) -> bool:
    """Whether a class has an attribute, or a method of it or of a parent sets one of that name."""
    if hasattr(cls, attribute):
        return True
    functions = (getattr(value, "__func__", value) for parent in cls.__mro__ for value in vars(parent).values())
    code = [function.__code__ for function in functions if hasattr(function, "__code__")]
    return any(attribute in (*part.co_names, *part.co_consts) for part in code)
