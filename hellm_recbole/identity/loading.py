"""Check that pretrained models are complete, and refuse tensors that transformers would initialise at random.

If a checkpoint lacks a tensor, transformers initialises it at random and only prints a warning. The functions here read
the loading report of each model, so that no random tensor is used as a pretrained one.
"""

from __future__ import annotations

from _pickle import UnpicklingError  # only the exception: this project pickles nothing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from hellm_recbole.errors import DataError

ADAPTER_CONFIG = "adapter_config.json"
# Errors that transformers, safetensors and sentence-transformers raise if a folder contains no loadable model.
LOADING_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, AttributeError, RuntimeError, EOFError, SafetensorError),
    UnpicklingError,  # from a broken pytorch_model.bin; the advice in its message is unsafe
)
_OTHER_TOKENIZER_FILES = ("tokenizer.json", "*.model", "*.tiktoken", "tekken.json", "vocab.*")


@dataclass(frozen=True)
class LoadingReport:
    """The report of transformers about one model that it loaded.

    Attributes:
        model: the loaded model.
        missing: names of the tensors that the checkpoint lacks or has in another shape; their values are random.
    """

    model: nn.Module
    missing: tuple[str, ...]


@contextmanager
def collect_loading_reports() -> Iterator[list[LoadingReport]]:
    """Collect a report of each model that `from_pretrained` of transformers loads inside the `with` block.

    This includes models that another library loads with transformers. Only one thread may be in such a block at a time.

    Yields:
        A list that grows by one report per model.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"]
    reports: list[LoadingReport] = []

    def load_with_report(cls: Any, /, *args: Any, output_loading_info: bool = False, **options: Any) -> Any:
        options.setdefault("ignore_mismatched_sizes", True)  # report them with their names instead of a RuntimeError
        model, info = original.__func__(cls, *args, output_loading_info=True, **options)
        mismatched = {name for name, *_ in info["mismatched_keys"]}
        reports.append(LoadingReport(model, tuple(sorted({*info["missing_keys"], *mismatched}))))
        return (model, info) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(load_with_report)  # type: ignore[assignment,method-assign]
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = original  # type: ignore[method-assign]


def refuse_missing_weights(
    reports: Sequence[LoadingReport], who: str, advice: str, is_read: Callable[[nn.Module, str], bool]
) -> None:
    """Refuse a model if a tensor that is used has no pretrained value, or a value that is not finite.

    Args:
        reports: reports of all models that were loaded.
        who: name of the model in the message.
        advice: what the user should do, as the end of the message.
        is_read: function of a model and the name of a tensor that returns whether this project uses the tensor. Other
            tensors may be missing.

    Raises:
        DataError: a tensor is missing, has another shape than the configuration says, or holds NaN or infinity.
    """
    for report in reports:
        values = report.model.state_dict()
        missing = [name for name in report.missing if is_read(report.model, name)]
        if missing:
            raise DataError(
                f"{who} lacks {len(missing)} of its {len(values)} tensors, or has them in another shape than its "
                f"config.json says (for example {missing[0]}); {advice}"
            )
        broken = [name for name, value in values.items() if is_read(report.model, name) and not is_finite(value)]
        if broken:
            raise DataError(f"{who} has NaN or infinity in {len(broken)} tensors (for example {broken[0]}); {advice}")


def refuse_missing_tokenizer(tokenizer: Any, folder: Path, who: str) -> None:
    """Refuse a folder without a vocabulary. For some models transformers then creates an empty tokenizer silently.

    Args:
        tokenizer: the loaded tokenizer.
        folder: folder from which the tokenizer was loaded.
        who: name of the model in the message.

    Raises:
        DataError: the folder contains no vocabulary file.
    """
    names = {*getattr(tokenizer, "vocab_files_names", {}).values(), *_OTHER_TOKENIZER_FILES}
    if not any(path for name in sorted(names) for path in folder.rglob(name)):
        raise DataError(f"{who} has no tokenizer in {folder}; copy the files of its tokenizer to that folder")


def describe_error(error: BaseException) -> str:
    r"""Return the first line of an error's message, or the name of its type if the message is empty.

    >>> describe_error(OSError("no file\nmore")), describe_error(KeyError())
    ('no file', 'KeyError')
    """
    if isinstance(error, UnpicklingError):
        return "its pytorch_model.bin is broken or holds code"
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def is_finite(value: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor of any shape are finite.

    NaN and infinity carry over to a sum, so that one sum, without a copy of the tensor, is usually enough.
    """
    if not value.is_floating_point() or value.is_meta:
        return True
    total = value.float().sum() if value.element_size() == 1 else value.sum()  # torch has no sum of 8-bit floats
    return bool(total.isfinite()) or bool(value.float().isfinite().all())  # a sum of finite numbers may overflow
