"""The optimizer of one of our models, and the parameters that weight decay leaves out."""

from __future__ import annotations

import torch
from torch import nn

from hellm_recbole.config.harness_settings import StepSettings, TrainSettings
from hellm_recbole.errors import ModelError
from hellm_recbole.types import ListsUndecayed


def build_optimizer(module: nn.Module, train: TrainSettings, steps: StepSettings | None) -> torch.optim.Optimizer:
    """Build the optimizer of all parameters that require a gradient.

    It uses fused kernels, which are several times as fast on a CPU.

    Args:
        module: model to train.
        train: settings of the optimizer.
        steps: training settings of LLM models only; None for other models.

    Raises:
        ModelError: the model lists a parameter without weight decay that it does not have.
    """
    optimizer_class = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    betas = (0.9, 0.999 if steps is None else steps.adam_beta2)
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in zip(split_by_decay(module, train), (train.weight_decay, 0.0), strict=True)
    ]
    groups = [group for group in groups if group["params"]] or groups[:1]
    return optimizer_class(groups, lr=train.learning_rate, betas=betas, weight_decay=train.weight_decay, fused=True)


def split_by_decay(module: nn.Module, train: TrainSettings) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trained parameters of a model into those with weight decay and those without.

    Args:
        module: model to train.
        train: settings of the optimizer.

    Raises:
        ModelError: the model lists a parameter without weight decay that it does not have.
    """
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    if train.decay_vectors:
        return [value for _, value in trained], []
    undecayed = _find_undecayed(module)
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for _, value in trained:
        (others if value.dim() <= 1 or id(value) in undecayed else decayed).append(value)
    return decayed, others


def _find_undecayed(module: nn.Module) -> set[int]:
    """Find the parameters that the model, or a part of it, lists as being without weight decay.

    Returns:
        `id` of each such parameter.

    Raises:
        ModelError: a listed parameter does not exist.
    """
    found = set()
    for part in module.modules():
        if isinstance(part, ListsUndecayed):
            own = dict(part.named_parameters(remove_duplicate=False))
            for name in part.list_undecayed():
                if name not in own:
                    raise ModelError(
                        f"{type(part).__name__}.list_undecayed names {name!r}, which is not one of its parameters; "
                        "name them as named_parameters does"
                    )
                found.add(id(own[name]))
    return found
