"""What a command was asked to do, parsed and typed. Nothing here imports torch or Ray."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hellm_recbole.config.recbole_keys import translate_key
from hellm_recbole.config.yaml_files import Value, parse_value
from hellm_recbole.errors import SettingsError

Protocol = Literal["unified", "paper"]  # evaluation protocol of a table
MaskPolicy = Literal["seen", "train", "none"]  # what a table masks for all rows; see `evaluation.ranking`
SchedulerName = Literal["asha", "none"]
SearchName = Literal["random", "optuna", "grid"]

TEST_LISTS = "test-lists"  # export: the top-K lists of the test part
EMBEDDINGS = "embeddings"  # export: the embeddings of users and items; also the subfolder of a run that holds them
TREC = "trec"  # export: the same lists as a TREC run, and their targets as qrels
EXPORTS = (TEST_LISTS, TREC, EMBEDDINGS)
LOCAL = "local"  # address of a Ray cluster that the command starts on this machine


@dataclass(frozen=True)
class Override:
    """One `--set` option. It changes a setting of one model, or of all models that have this setting.

    Attributes:
        model: name of the model; None for all models.
        key: name of the setting.
        value: parsed value.
        origin: the option as the user wrote it.
    """

    model: str | None
    key: str
    value: Value
    origin: str


def parse_override(text: str, option: str) -> Override:
    """Parse an override of the form `[MODEL.]KEY=VALUE`.

    Args:
        text: the argument.
        option: the option before the argument, for messages. If it is empty, the argument is refused.

    Raises:
        SettingsError: the argument has another form.

    >>> parse_override("VBPR.l2_weight=1e-3", "--set ").model
    'VBPR'
    """
    key, equals, value = text.partition("=")
    if not equals or not key or not option:
        raise SettingsError(
            f"{option}{text} is not understood; write a setting as --set key=value (--help lists all options)"
        )
    model, dot, bare = key.rpartition(".")
    return Override(model if dot else None, bare, parse_value(value, f"{option}{text}"), f"{option}{text}")


def translate_overrides(overrides: Iterable[Override]) -> tuple[Override, ...]:
    """Translate overrides in RecBole's words (`stopping_step`, `topk`, ...) to our settings.

    Those that only say what every run does are left out.

    Raises:
        SettingsError: a key of RecBole is no setting here; the message says what does the same.
    """
    translated = ((one, translate_key(one.key, one.value, one.origin)) for one in overrides)
    return tuple(replace(one, key=found[0], value=found[1]) for one, found in translated if found is not None)


@dataclass(frozen=True)
class SearchBudget:
    """Budget of a search: a number of trials or a number of minutes.

    >>> SearchBudget.parse("trials=20"), str(SearchBudget.parse("minutes=1.5"))
    (SearchBudget(trials=20, minutes=None), 'minutes=1.5')
    """

    trials: int | None
    minutes: float | None

    @staticmethod
    def parse(text: str) -> SearchBudget:
        """Read a budget from `trials=N` or `minutes=M`.

        Raises:
            SettingsError: the text has neither form.
        """
        kind, _, amount = text.partition("=")
        try:
            if kind == "trials" and int(amount) > 0:
                return SearchBudget(int(amount), None)
            if kind == "minutes" and 0 < float(amount) < math.inf:
                return SearchBudget(None, float(amount))
        except ValueError:
            pass
        raise SettingsError(f"--budget {text!r} is not understood; write trials=20 or minutes=60")

    def __str__(self) -> str:
        return f"minutes={self.minutes:g}" if self.trials is None else f"trials={self.trials}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """Models, data, settings and machine, which every command that trains is asked for.

    Attributes:
        models: names of models and variants, each once.
        datasets: names of the datasets, each once.
        preset: name of the preset.
        overrides: values from the command line; they win over all others.
        data_path: folder with the source files of the datasets; None searches the usual folders.
        output: folder of all results.
        device: auto, cpu, cuda or cuda:N.
        threads: number of CPU threads, which runs side by side share, or of CPUs of a local Ray cluster; None takes
            all.
        embeddings: pretrained model -> file of item embeddings that is read instead of training the model.
        split: value of `--split`; None splits by leave-one-out, or as the dataset itself says.
        may_download: whether raw files of a known dataset are downloaded if its source files are not found.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    preset: str
    overrides: tuple[Override, ...]
    data_path: Path | None
    output: Path
    device: str
    threads: int | None
    embeddings: Mapping[str, Path] = field(default_factory=dict)
    split: str | None = None
    may_download: bool = True


@dataclass(frozen=True, kw_only=True)
class RunRequest(Request):
    """Request to run models and to print the tables.

    Attributes:
        seeds: random seeds, each once.
        tuned: whether to run the models with the best values that a search found.
        ray: address of the Ray cluster that executes the runs; None executes them in this process.
        protocol: evaluation protocol of the printed table.
        exports: names of the files to write for each run, from `EXPORTS`.
        export_k: length of each exported list; None takes the largest cut-off of the run.
        fresh: whether to delete earlier runs of the named models first.
        dry_run: whether to print only the memory and time that LLM runs need.
        callbacks: names of callbacks of installed packages that follow each run.
        mask: masking policy of all rows of the printed table; None takes those of the protocol.
        jobs: number of runs to execute side by side; None takes as many as there are threads.
        timings: whether to print and write where the time of the runs went.
        storage: URI of the storage for prepared data and runs; None keeps them on this machine only.
    """

    seeds: tuple[int, ...]
    tuned: bool
    ray: str | None
    protocol: Protocol
    exports: tuple[str, ...]
    export_k: int | None
    fresh: bool
    dry_run: bool
    callbacks: tuple[str, ...] = ()
    mask: MaskPolicy | None = None
    jobs: int | None = 1
    timings: bool = False
    storage: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Request):
    """Request to search the settings of models.

    Attributes:
        seed: random seed of all trials and of the choice of points.
        fresh: whether to delete earlier searches first.
        address: address of the Ray cluster.
    """

    seed: int
    fresh: bool
    address: str
