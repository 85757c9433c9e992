"""The state of a RecBole model that is neither a parameter nor a buffer, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hellm_recbole.errors import CheckpointError


class ExtraState:
    """Plain attributes of a RecBole model that training changes, such as Pop's item counts.

    MultiVAE's annealing step is another example. Results of the constructor (graphs, ItemKNN's matrix) are excluded,
    because the constructor computes them again. One case is not covered: LINE shuffles an internal array, so a resumed
    run of LINE samples other second-order negatives.

    Args:
        module: newly built model.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._initial_state = dict(_list_plain_attributes(module))
        self._initial_attributes = {path: set(vars(owner)) for path, owner in module.named_modules()}

    def collect(self) -> dict[str, Tensor]:
        """Collect "path/name" of each attribute that has changed -> its value."""
        state = {}
        for key, value in _list_plain_attributes(self._module):
            path, _, attribute = key.rpartition("/")
            # An attribute that the constructor did not create is a by-product of the last forward pass.
            if attribute in self._initial_attributes[path] and not _is_unchanged(value, self._initial_state.get(key)):
                data = value[0]
                dtype = torch.float64 if isinstance(data, float) else torch.int64
                state[key] = data.detach().clone() if isinstance(data, Tensor) else torch.tensor(data, dtype=dtype)
        return state

    def load(self, state: Mapping[str, Tensor], name: str, device: torch.device) -> None:
        """Restore a state from `collect`.

        Args:
            state: result of `collect`.
            name: RecBole's name of the model, for the message.
            device: device of the model.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        modules = dict(self._module.named_modules())
        for key, value in state.items():
            path, _, attribute = key.rpartition("/")
            owner = modules.get(path)
            if owner is None or attribute not in owner.__dict__:
                raise CheckpointError(
                    f"the checkpoint contains {key!r}, which RecBole's {name} does not have; start from scratch with "
                    "--fresh"
                )
            is_number = isinstance(owner.__dict__[attribute], int | float)
            setattr(owner, attribute, value.item() if is_number else value.to(device))


def list_caches(module: torch.nn.Module) -> list[str]:
    """List the attributes in which a RecBole model caches vectors during an evaluation."""
    names = getattr(module, "other_parameter_name", [])
    return [name for name in names if name.startswith("restore_") or name == "i_embedding"]  # i_embedding: DMF


def _list_plain_attributes(module: torch.nn.Module) -> Iterator[tuple[str, tuple[Any, int]]]:
    """List numbers and dense tensors that are plain attributes, as ("path/name", (value, version of the tensor))."""
    caches = set(list_caches(module))
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name.startswith("_") or (path == "" and name in caches) or isinstance(value, bool):
                continue
            if isinstance(value, int | float):
                yield f"{path}/{name}", (value, 0)
            elif isinstance(value, Tensor) and value.layout == torch.strided and not value.requires_grad:
                yield f"{path}/{name}", (value, value._version)


def _is_unchanged(current: tuple[Any, int], initial: tuple[Any, int] | None) -> bool:
    """Return whether a value is the same number, or the same tensor without any write to it.

    Args:
        current: current value and its version. Torch increases the version of a tensor at each write.
        initial: initial value and its version; None if there was no value.
    """
    if initial is None:
        return False
    if isinstance(current[0], Tensor):
        return current[0] is initial[0] and current[1] == initial[1]
    return bool(current[0] == initial[0])
