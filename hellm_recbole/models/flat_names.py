"""Names of the tensors of a model that is made of parts: the names that they would have without the parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


class FlatNames(nn.Module):
    """A module whose parts do not appear in the names of its parameters and in its state.

    With the part `reader`, the parameter `reader.prefix.key` is called `prefix.key` in `named_parameters`, `state_dict`
    and `load_state_dict`. So a tensor can move to another part, and files that were written before can still be read.

    Attributes:
        parts: paths of the parts; a part that is inside another part comes before it.
    """

    parts: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_drop_parts)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_insert_parts)  # type: ignore[no-untyped-call]

    def flatten_name(self, name: str) -> str:
        """Return the name of a tensor without the part that it is in."""
        part = next((part for part in self.parts if name.startswith(f"{part}.")), None)
        return name if part is None else name.removeprefix(f"{part}.")

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and value of each parameter; see `torch.nn.Module.named_parameters`."""
        start = f"{prefix}." if prefix else ""
        for name, value in super().named_parameters("", recurse, remove_duplicate):
            yield start + self.flatten_name(name), value


def _drop_parts(module: Any, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Rename the tensors of a state that has just been collected."""
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        flat = prefix + module.flatten_name(name.removeprefix(prefix))
        assert flat not in state, flat
        state[flat] = value


def _insert_parts(module: Any, state: dict[str, Any], prefix: str, *args: Any) -> None:
    """Rename the tensors of a state that is about to be loaded."""
    part_of: dict[str, str] = {}
    for path in module.parts:
        part = module.get_submodule(path)
        part_of |= dict.fromkeys((*part._parameters, *part._buffers, *part._modules), path)
    for name in [name for name in state if name.startswith(prefix)]:
        flat = name.removeprefix(prefix)
        path = part_of.get(flat.partition(".")[0])
        if path is not None:
            state[f"{prefix}{path}.{flat}"] = state.pop(name)
