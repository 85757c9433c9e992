"""A GPU that is not there: tensors of the CPU that say where they would be, and refuse what a GPU would refuse.

Within `PretendGpu()` a tensor that is moved to `cuda`, or made there, stays on the CPU and is marked. Each call of
torch checks the marks of what it is given: tensors of both places in one call, or NumPy asking for a tensor that is not
in its memory, raise as they would on a real machine. A tensor whose place is not known (a gradient, what a C++ function
made by itself) goes with either, so an error that is found is one, and one that is not found may be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
MARK = "_pretended_device"
MOVES = (Tensor.to, Tensor.copy_, Tensor.type, torch._has_compatible_shallow_copy_type)
TO_NUMPY = (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
INDEXES = (Tensor.__getitem__, Tensor.__setitem__)  # by tensors of the CPU, too
MAKERS = (
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.tensor, torch.as_tensor, torch.eye),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.linspace),
)


class WrongDevice(RuntimeError):
    """What a real GPU would not have done."""


def place_of(tensor: Tensor) -> torch.device | None:
    """Where a tensor would be; None where that is not known."""
    found: torch.device | None = tensor.__dict__.get(MARK)
    return found


def put(value: Any, place: torch.device | None) -> Any:
    """Mark every tensor in a result."""
    if isinstance(value, Tensor):
        if place is not None:
            value.__dict__[MARK] = place
    elif isinstance(value, tuple | list):
        for part in value:
            put(part, place)
    return value


def tensors(*values: Any) -> Iterator[Tensor]:
    """All tensors among arguments."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors(*value)
        elif isinstance(value, dict):
            yield from tensors(*value.values())


def wanted_place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """The device that a call names, if it does."""
    named = [kwargs.get("device"), *args]
    for value in named:
        if isinstance(value, torch.device | str) and (kind := str(value).split(":")[0]) in ("cuda", "cpu"):
            return GPU if kind == "cuda" else CPU
        if isinstance(value, Tensor):
            return place_of(value)
    return None


def without_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call on the CPU."""

    def real(value: Any) -> Any:
        return CPU if isinstance(value, torch.device | str) and str(value).startswith("cuda") else value

    return tuple(real(value) for value in args), {key: real(value) for key, value in kwargs.items()}


class PretendGpu(TorchFunctionMode):
    """Within it, `torch.device("cuda")` is there."""

    def __enter__(self) -> PretendGpu:
        real = torch.from_numpy
        self._patch = patch.object(torch, "from_numpy", lambda array: put(real(array), CPU))  # not among torch's hooks
        self._patch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[arg-type]
        self._patch.stop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return place_of(args[0]) or func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return place_of(args[0]) == GPU
        if func in (Tensor.cpu, Tensor.cuda):
            return put(args[0].clone(), CPU if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            place = wanted_place(args[1:], kwargs) or place_of(args[0])
            plain, named = without_device(args, kwargs)
            rest = plain[1:] if not (len(plain) > 1 and isinstance(plain[1], Tensor)) else (plain[1].dtype, *plain[2:])
            moved = func(plain[0], *rest, **named)
            if moved is args[0] and place_of(moved) != place and (place == GPU or place_of(moved) == GPU):
                moved = moved.clone()
            return put(moved, place)
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            return put(args[0], place_of(args[1]))
        given = list(tensors(*args, *kwargs.values()))
        if func in TO_NUMPY and place_of(args[0]) == GPU:
            raise WrongDevice(f"{func.__name__}: NumPy cannot read a tensor of the GPU")
        place = self._common_place(func, given)
        named_place = wanted_place((), kwargs)
        result = func(*args, **without_device((), kwargs)[1])
        if func in MAKERS and kwargs.get("device") is None and not given:
            named_place = CPU
        return put(result, named_place or place) if isinstance(result, Tensor | tuple | list) else result

    def _common_place(self, func: Callable[..., Any], given: list[Tensor]) -> torch.device | None:
        """Where the result of a call is.

        Raises:
            WrongDevice: its arguments are in two places.
        """
        places = {place_of(tensor) for tensor in given if tensor.dim() > 0} - {None}
        if not places:
            places = {place_of(tensor) for tensor in given} - {None}
            return GPU if GPU in places else next(iter(places), None)
        if len(places) == 2 and func not in MOVES:
            if func in INDEXES and place_of(given[0]) == GPU:
                return GPU
            shapes = ", ".join(f"{tuple(t.shape)} on {place_of(t)}" for t in given)
            raise WrongDevice(f"{getattr(func, '__name__', func)}: tensors of two places: {shapes}")
        return place_of(given[0]) or next(iter(places)) if func in MOVES else next(iter(places))
