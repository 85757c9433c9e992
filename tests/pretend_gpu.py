"""A simulated GPU: tensors stay on the CPU, know their simulated device, and raise the errors of a real GPU.

Within `PretendGpu()`, a tensor that is moved to `cuda` or created there stays on the CPU and is marked. Each call of
torch checks the marks of its arguments. Tensors of two devices in one call, or the conversion of a GPU tensor to NumPy,
raise an error as on a real machine. A tensor of unknown device (a gradient, or the result of a C++ function) is allowed
with both devices. So each error is a real error, but some real errors are not found.
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
INDEXES = (Tensor.__getitem__, Tensor.__setitem__)  # tensors of the CPU are allowed as indexes
MAKERS = (
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.tensor, torch.as_tensor, torch.eye),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.linspace),
)


class WrongDevice(RuntimeError):
    """An operation that fails on a real GPU."""


def get_device(tensor: Tensor) -> torch.device | None:
    """Return the simulated device of a tensor; None if it is not known."""
    device: torch.device | None = tensor.__dict__.get(MARK)
    return device


def mark_device(value: Any, device: torch.device | None) -> Any:
    """Mark every tensor in a result with its device."""
    if isinstance(value, Tensor):
        if device is not None:
            value.__dict__[MARK] = device
    elif isinstance(value, tuple | list):
        for part in value:
            mark_device(part, device)
    return value


def list_tensors(*values: Any) -> Iterator[Tensor]:
    """Yield all tensors in the arguments."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from list_tensors(*value)
        elif isinstance(value, dict):
            yield from list_tensors(*value.values())


def find_named_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """Find the device that the arguments of a call name; None if they name no device."""
    candidates = [kwargs.get("device"), *args]
    for value in candidates:
        if isinstance(value, torch.device | str) and (kind := str(value).split(":")[0]) in ("cuda", "cpu"):
            return GPU if kind == "cuda" else CPU
        if isinstance(value, Tensor):
            return get_device(value)
    return None


def replace_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace the GPU by the CPU in the arguments of a call."""

    def replace(value: Any) -> Any:
        return CPU if isinstance(value, torch.device | str) and str(value).startswith("cuda") else value

    return tuple(replace(value) for value in args), {key: replace(value) for key, value in kwargs.items()}


class PretendGpu(TorchFunctionMode):
    """A context in which `torch.device("cuda")` is simulated."""

    def __enter__(self) -> PretendGpu:
        from_numpy = torch.from_numpy
        # A TorchFunctionMode does not intercept this function.
        self._patch = patch.object(torch, "from_numpy", lambda array: mark_device(from_numpy(array), CPU))
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
            return get_device(args[0]) or func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return get_device(args[0]) == GPU
        if func in (Tensor.cpu, Tensor.cuda):
            return mark_device(args[0].clone(), CPU if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            device = find_named_device(args[1:], kwargs) or get_device(args[0])
            plain, named = replace_device(args, kwargs)
            rest = plain[1:] if not (len(plain) > 1 and isinstance(plain[1], Tensor)) else (plain[1].dtype, *plain[2:])
            moved = func(plain[0], *rest, **named)
            if moved is args[0] and get_device(moved) != device and (device == GPU or get_device(moved) == GPU):
                moved = moved.clone()
            return mark_device(moved, device)
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            return mark_device(args[0], get_device(args[1]))
        given = list(list_tensors(*args, *kwargs.values()))
        if func in TO_NUMPY and get_device(args[0]) == GPU:
            raise WrongDevice(f"{func.__name__}: NumPy cannot read a tensor on the GPU")
        device = self._find_common_device(func, given)
        named_device = find_named_device((), kwargs)
        result = func(*args, **replace_device((), kwargs)[1])
        if func in MAKERS and kwargs.get("device") is None and not given:
            named_device = CPU
        return mark_device(result, named_device or device) if isinstance(result, Tensor | tuple | list) else result

    def _find_common_device(self, func: Callable[..., Any], given: list[Tensor]) -> torch.device | None:
        """Find the device of the result of a call.

        Raises:
            WrongDevice: the arguments are on two devices.
        """
        devices = {get_device(tensor) for tensor in given if tensor.dim() > 0} - {None}
        if not devices:
            devices = {get_device(tensor) for tensor in given} - {None}
            return GPU if GPU in devices else next(iter(devices), None)
        if len(devices) == 2 and func not in MOVES:
            if func in INDEXES and get_device(given[0]) == GPU:
                return GPU
            shapes = ", ".join(f"{tuple(t.shape)} on {get_device(t)}" for t in given)
            raise WrongDevice(f"{getattr(func, '__name__', func)}: tensors of two devices: {shapes}")
        return get_device(given[0]) or next(iter(devices)) if func in MOVES else next(iter(devices))
