"""A hyper-parameter search as it is requested: its run config, its search space, and the input of its trials.

The settings files are read here, in the process of the command. A trial gets resolved run configs and changes only the
values of its point, so a worker reads no settings file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from hellm_recbole.config.request import Override, SchedulerName, SearchBudget, SearchName, SearchRequest
from hellm_recbole.config.search_space import Point, Space, add_values
from hellm_recbole.config.settings import Settings, load_settings
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.ray_cluster import refuse_gpu_number
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.search_point import change_settings
from hellm_recbole.experiments.sweeps import locate_search
from hellm_recbole.identity.compare import SETTING
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.types import SelectionData

LANGUAGE_MODEL = "llm"  # the only setting whose value decides which settings files are read


class TuneSettings(Settings):
    """Settings of the early stopping and restarting of trials, from `properties/tune.yaml`.

    Attributes:
        grace_reports: number of reports before a trial may be stopped.
        reduction_factor: at each rung, one trial in this many continues.
        max_failures: number of times that a trial is restarted after its process died.
    """

    grace_reports: int = Field(ge=1)
    reduction_factor: int = Field(ge=2)
    max_failures: int = Field(ge=0)


def read_tune_settings() -> TuneSettings:
    """Read `properties/tune.yaml`."""
    return load_settings(TuneSettings, "tune.yaml")


@dataclass(frozen=True)
class TrialJob:
    """Input of all trials of a search. Each trial gets its point in addition.

    Attributes:
        configs: the run config of the search; if language models are searched, one run config for each of them, in the
            order of the search space.
        space: setting -> values to try; a point holds indices into these values.
        data: training part and validation targets, without the test part.
        dataset: name of the dataset.
        seed: random seed of the run, the same for all trials.
        device: device as given on the command line.
        folder: working folder of the command.
        run_parts: name -> value or digest of everything that all trials depend on.
    """

    configs: tuple[TrainedRunConfig, ...]
    space: Space
    data: SelectionData
    dataset: str
    seed: int
    device: str
    folder: Path
    run_parts: Mapping[str, str]

    def resolve(self, point: Mapping[str, int]) -> TrainedRunConfig:
        """Return the run config of one point. No file is read.

        Args:
            point: setting -> index into its values.

        Raises:
            SettingsError: the values of the point do not fit together.
        """
        config = self.configs[point.get(LANGUAGE_MODEL, 0)]
        values = {key: self.space[key][index] for key, index in point.items()}
        return change_settings(config, [_make_override(config, key, value) for key, value in values.items()])


def _make_override(config: TrainedRunConfig, key: str, value: Value) -> Override:
    """Return the override by which a search changes one setting."""
    return Override(config.model, key, value, f"{key} of the search")


@dataclass(frozen=True)
class SearchTask:
    """One hyper-parameter search for one run config.

    Attributes:
        job: input of all trials.
        base: run config before the search.
        name: name of the search.
        budget: number of trials or minutes.
        scheduler: "asha" stops poor trials early, "none" does not.
        search: method that chooses the points.
        split_hash: SHA-256 of the dataset's split.
        n_candidates: number of ranked items.
        grid: setting -> values whose combinations are the grid; `space` holds the values of `points`, too.
        points: points that a grid search tries after those of the grid.
        split_kind: kind of the dataset's split, for trackers; "" if it is not known.
    """

    job: TrialJob
    base: TrainedRunConfig
    name: str
    budget: SearchBudget
    scheduler: SchedulerName
    search: SearchName
    split_hash: str
    n_candidates: int
    grid: Space
    points: tuple[Point, ...] = ()
    split_kind: str = ""

    @property
    def space(self) -> Space:
        """Setting -> values to try."""
        return self.job.space

    @property
    def max_reports(self) -> int:
        """Number of reports of a trial that trains all epochs."""
        train = self.base.train
        return -(-train.epochs // train.eval_every)

    def locate(self, output: Path) -> Path:
        """Return the folder of the search inside the folder of all results."""
        return locate_search(output, self.job.dataset, self.base.label, self.name)

    def list_rungs(self) -> list[int]:
        """List the numbers of reports after which the scheduler may stop a trial."""
        if self.scheduler == "none":
            return []
        settings = read_tune_settings()
        return [settings.grace_reports * settings.reduction_factor**k for k in range(self.max_reports.bit_length())]

    def describe_request(self) -> dict[str, Any]:
        """Return everything that determines the search, in the form of `request.json`."""
        fixed = {key: value for key, value in self.base.reproducibility_settings().items() if key not in self.space}
        request = {
            "dataset": self.job.dataset,
            "split_hash": self.split_hash,
            "n_candidates": self.n_candidates,
            "row": self.base.label,
            "model": self.base.model,
            "name": self.name,
            "preset": self.base.preset,
            "seed": self.job.seed,
            "valid_metric": self.base.train.valid_metric,
            "budget": str(self.budget),
            "scheduler": self.scheduler,
            "search": self.search,
            "space": {key: list(values) for key, values in self.space.items()},
            "settings": fixed,
            "identity": {key: value for key, value in self.job.run_parts.items() if not key.startswith(SETTING)},
        }
        if self.points:  # most searches have none, and those of earlier versions do not have the key
            request["points"] = self.points
        copied: dict[str, Any] = json.loads(json.dumps(request))
        return copied


def make_search_task(
    config: TrainedRunConfig,
    split: Split,
    space: Space,
    request: SearchRequest,
    *,
    registry: Mapping[str, ModelSpec],
    budget: SearchBudget,
    scheduler: SchedulerName,
    search: SearchName,
    name: str,
    points: Sequence[Point] = (),
) -> SearchTask:
    """Set up the search of one run config. The input of the trials does not contain the test part.

    Args:
        config: run config.
        split: split of the dataset.
        space: values to try for each setting.
        request: what the command was asked for.
        registry: name -> entry of each of our models.
        budget: number of trials or minutes.
        scheduler: "asha" stops poor trials early, "none" does not.
        search: method that chooses the points.
        name: name of the search.
        points: points that a grid search tries after those of the grid.

    Raises:
        SettingsError: a value to try is not allowed for its setting, or the device has a number.
        ModelError: a pretrained model that the run reads has no usable result.
    """
    refuse_gpu_number(request.device)
    grid, space = space, add_values(space, points)
    data, run_parts = _collect_trial_data(config, split, space, request)
    job = TrialJob(
        configs=_resolve_values(config, split.dataset, space, request, registry),
        space=space,
        data=data,
        dataset=split.dataset,
        seed=request.seed,
        device=request.device,
        folder=Path.cwd(),
        run_parts=run_parts,
    )
    return SearchTask(
        job,
        config,
        name,
        budget,
        scheduler,
        search,
        split.sha256,
        split.n_items,
        grid,
        tuple(map(dict, points)),
        split.kind,
    )


def _collect_trial_data(
    config: TrainedRunConfig, split: Split, space: Space, request: SearchRequest
) -> tuple[SelectionData, dict[str, str]]:
    """Collect the data that trials get, and everything that all trials depend on, name -> value or digest."""
    pretrained = PretrainedStore().load(request.output, split, config.pretrained_tables, request.seed)
    identity = identify_run(config, split, pretrained.identities)
    parts = list_run_parts(config, split, request.seed, identity)
    if identity["features"] or "modalities" in space:  # trials may read other modalities than the config does
        parts |= {f"features of {name}": digest for name, digest in split.feature_sha256.items()}
    data = split.make_selection_data()
    cache = None if data.train.cache is None else data.train.cache.resolve()
    return replace(data, train=replace(data.train, pretrained=pretrained.tables, cache=cache)), parts


def _resolve_values(
    config: TrainedRunConfig, dataset: str, space: Space, request: SearchRequest, registry: Mapping[str, ModelSpec]
) -> tuple[TrainedRunConfig, ...]:
    """Check each value to try, before the first trial, and return the run configs that trials start from.

    Each language model has settings files of its own. Their values lie below the preset, so they cannot be put into a
    resolved run config later, and there is one run config for each language model to try.

    Args:
        config: run config of the search.
        dataset: name of the dataset.
        space: values to try for each setting.
        request: what the command was asked for.
        registry: name -> entry of each of our models.

    Raises:
        SettingsError: a value is not allowed for its setting.
    """
    configs: tuple[TrainedRunConfig, ...] = (config,)
    for key, values in space.items():
        overrides = [_make_override(config, key, value) for value in values]
        resolved = tuple(
            resolve_run(config.model, dataset, registry, request.preset, [*request.overrides, override])
            for override in overrides
        )
        if key == LANGUAGE_MODEL:
            configs = resolved
    return configs
