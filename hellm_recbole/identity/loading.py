"""Pretrained models must be whole: tensors that transformers would fill with random numbers are refused.

transformers draws a tensor at random where a checkpoint lacks it, and says so in a warning. Here every report of a
loading is read, so that no random tensor is taken for a pretrained one.
"""

from __future__ import annotations

from _pickle import UnpicklingError  # the exception alone: nothing of ours is pickled
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
# What transformers, safetensors and sentence-transformers raise where a folder holds no loadable model.
LOADING_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, AttributeError, RuntimeError, EOFError, SafetensorError),
    UnpicklingError,  # of a broken pytorch_model.bin, with advice that must not be followed
)
_OTHER_TOKENIZER_FILES = ("tokenizer.json", "*.model", "*.tiktoken", "tekken.json", "vocab.*")


@dataclass(frozen=True)
class LoadingReport:
    """What transformers says about one model that it loaded.

    Attributes:
        model: the loaded model.
        missing: names of tensors that the checkpoint lacks, or holds in another shape; they have random values.
    """

    model: nn.Module
    missing: tuple[str, ...]


@contextmanager
def collect_loading_reports() -> Iterator[list[LoadingReport]]:
    """Yield a list that grows by one report for each `from_pretrained` of a transformers model inside the block.

    It also sees models that another library loads. The block must not run in two threads at a time.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"]
    reports: list[LoadingReport] = []

    def load_with_report(cls: Any, /, *args: Any, output_loading_info: bool = False, **options: Any) -> Any:
        options.setdefault("ignore_mismatched_sizes", True)  # into the report, with names, instead of a RuntimeError
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
    """Stop where a tensor that is read has no pretrained value, or one that is not finite.

    Args:
        reports: of all models that were loaded.
        who: names the model in the message.
        advice: what would do, the end of the message.
        is_read: whether this project reads the tensor of a model and a name; others may be missing.

    Raises:
        DataError: a tensor is missing, has another shape than the configuration says, or holds NaN or infinity.
    """
    for report in reports:
        values = report.model.state_dict()
        missing = [name for name in report.missing if is_read(report.model, name)]
        if missing:
            raise DataError(
                f"{who} lacks {len(missing)} of its {len(values)} tensors, or has them in another shape than its "
                f"config.json says, {missing[0]} for one; {advice}"
            )
        broken = [name for name, value in values.items() if is_read(report.model, name) and not is_finite(value)]
        if broken:
            raise DataError(f"{who} has NaN or infinity in {len(broken)} tensors, {broken[0]} for one; {advice}")


def refuse_missing_tokenizer(tokenizer: Any, folder: Path, who: str) -> None:
    """Stop where transformers made up a tokenizer without vocabulary, which it does for some models in silence.

    Args:
        tokenizer: the loaded one.
        folder: it was loaded from.
        who: names the model in the message.

    Raises:
        DataError: no file of a vocabulary is in the folder.
    """
    names = {*getattr(tokenizer, "vocab_files_names", {}).values(), *_OTHER_TOKENIZER_FILES}
    if not any(path for name in sorted(names) for path in folder.rglob(name)):
        raise DataError(f"{who} has no tokenizer in {folder}; copy the files of its tokenizer to that folder")


def describe_error(error: BaseException) -> str:
    r"""The first line of a fault's message, or its kind where it has none.

    >>> describe_error(OSError("no file\nmore")), describe_error(KeyError())
    ('no file', 'KeyError')
    """
    if isinstance(error, UnpicklingError):
        return "its pytorch_model.bin is broken or holds code"
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def is_finite(value: torch.Tensor) -> bool:
    """Whether all numbers are finite; one pass without a copy, for NaN and infinity pass on to a sum."""
    if not value.is_floating_point() or value.is_meta:
        return True
    total = value.float().sum() if value.element_size() == 1 else value.sum()  # 8-bit numbers have no sum of their own
    return bool(total.isfinite()) or bool(value.float().isfinite().all())  # a sum of finite numbers may overflow
