"""The state of a learner as named tensors, which is what a checkpoint contains.

Names are `model.<parameter or buffer>`, `extra.<name>`, `average.<parameter>` and `optimizer.<parameter index>.<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hellm_recbole.errors import CheckpointError
from hellm_recbole.training.learner import Learner


def list_frozen_names(module: nn.Module) -> set[str]:
    """List the parameters that are not trained, such as those of a language model.

    Checkpoints do not contain them, because they are loaded from their source again.
    """
    named = module.named_parameters(remove_duplicate=False)  # a state contains a shared parameter under each name
    return {name for name, parameter in named if not parameter.requires_grad}


def collect_model_state(learner: Learner) -> dict[str, Tensor]:
    """Collect the trained parameters, the buffers and the extra state, as `model.<name>` and `extra.<name>`."""
    frozen = list_frozen_names(learner.module)
    state = {f"model.{name}": value for name, value in learner.module.state_dict().items() if name not in frozen}
    return state | {f"extra.{name}": value for name, value in learner.collect_extra_state().items()}


def collect_full_state(learner: Learner) -> dict[str, Tensor]:
    """Collect the state of the model, of the moving average of its weights, and of the optimizer."""
    averages = {} if learner.average is None else learner.average.collect_state()
    return (
        collect_model_state(learner)
        | {f"average.{name}": value for name, value in averages.items()}
        | ({} if learner.optimizer is None else pack_optimizer(learner.optimizer))
    )


def load_model_state(learner: Learner, state: dict[str, Tensor]) -> None:
    """Load a state from `collect_model_state` or `collect_full_state` into the learner, without its optimizer.

    A state without averages leaves the moving average empty.

    Raises:
        CheckpointError: the state belongs to another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "extra": {}, "average": {}, "optimizer": {}}
    for key, value in state.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    try:
        frozen = list_frozen_names(learner.module)
        frozen_state = {name: value for name, value in learner.module.state_dict().items() if name in frozen}
        learner.module.load_state_dict({**frozen_state, **parts["model"]})
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({error}); run with --fresh to train from scratch"
        ) from error
    learner.load_extra_state(parts["extra"])
    if learner.average is not None:
        learner.average.clear()
        if parts["average"]:
            learner.average.load_state(parts["average"])


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the state of an optimizer to tensors with the names `optimizer.<parameter index>.<name>`."""
    packed = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            packed[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Mapping[str, Tensor]) -> None:
    """Load a state from `pack_optimizer` into an optimizer; its settings, such as the learning rate, do not change.

    Args:
        optimizer: optimizer to load the state into.
        packed: tensors from `pack_optimizer`; other names are ignored.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in packed.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
