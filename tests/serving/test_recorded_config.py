from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.recording import collect_initial_fields
from hellm_recbole.experiments.results import RunResult, Search, read_result, write_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.serving.recorded_config import restore_config
from tests.toy_combined import build_context, build_resolver

NAMES = (
    *REGISTRY,
    *("HeLLMPre-without-CL", "HeLLM-no-llm", "RecBole-BPR", "GRU4Rec"),
    *("Transitions", "Priors-directed", "SASRec-priors", "Fusion(SASRec,Fusion(LightGCN,RecBole-Pop)-priors)"),
)


def write_record(output: Path, config: RunConfig, dataset: Dataset, split: Split) -> RunResult:
    """Write the record that a run with this config writes, and before it those of the rows that it combines."""
    for row in config.combined_runs:
        write_record(output, row, dataset, split)
    context = build_context(output)
    fields = collect_initial_fields(config, dataset, split, context)
    if config.combined_runs or not hasattr(config, "train"):
        fields["combination"] = {
            **{"rows": tuple(row.label for row in config.combined_runs), "priors": (), "left_out": ()},
            **{"transition_form": None, "weights": {}, "points": 0, "valid_metric": config.valid_metric},
            **{"valid": None, "valid_without": None},
        }
    result = RunResult(**{**fields, "status": "failed", "reason": "not run"})
    return read_result(write_result(context.locate_run(config, split.dataset), result))


@pytest.mark.parametrize("name", NAMES)
def test_a_record_gives_back_the_config(name: str, tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    config = build_resolver(Override(None, "eval_every", 3, "--set eval_every=3")).resolve(name)
    restored = restore_config(write_record(tmp_path, config, toy_dataset, toy_split), REGISTRY)
    assert type(restored) is type(config)
    assert json.dumps(restored.reproducibility_settings()) == json.dumps(config.reproducibility_settings())
    assert restored.resolved.origin == config.resolved.origin
    assert (restored.label, restored.family, restored.source) == (config.label, config.family, config.source)
    assert getattr(restored, "model_settings", None) == getattr(config, "model_settings", None)
    assert [row.label for row in restored.combined_runs] == [row.label for row in config.combined_runs]


def test_a_tuned_run_stays_a_tuned_one(tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    search: Search = {
        **{"budget": "trials=2", "scheduler": "none", "search": "random", "seed": 1, "trials": 2},
        **{"valid_metric": "N@20", "valid": 0.5},
    }  # type: ignore[typeddict-item]
    config = replace(build_resolver().resolve("SASRec"), search=search)
    restored = restore_config(write_record(tmp_path, config, toy_dataset, toy_split), REGISTRY)
    assert (restored.label, restored.search) == ("SASRec-tuned", search)


def test_a_setting_that_an_earlier_version_lacked_has_the_value_of_its_code(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    config = build_resolver(Override("SASRec", "average_decay", 0.9, "--set x")).resolve("SASRec")
    result = write_record(tmp_path, config, toy_dataset, toy_split)
    older = replace(result, settings={key: value for key, value in result.settings.items() if key != "average_decay"})
    assert restore_config(older, REGISTRY).resolved.values["average_decay"] == 0.0


def test_a_record_of_another_version_is_one_sentence(tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    result = write_record(tmp_path, build_resolver().resolve("SASRec"), toy_dataset, toy_split)
    odd = {**result.settings, "dropout": {"value": 7.0, "origin": "model/SASRec.yaml"}}
    with pytest.raises(SettingsError, match=r"cannot be loaded: model/SASRec.yaml: dropout = 7.0 must be < 1$"):
        restore_config(replace(result, settings=odd), REGISTRY)  # type: ignore[arg-type]
    with pytest.raises(ResultError, match="with the SASRec of recbole, and this version has another model"):
        restore_config(replace(result, source="recbole"), REGISTRY)
    fusion = write_record(tmp_path, build_resolver().resolve("SASRec-priors"), toy_dataset, toy_split)
    (tmp_path / "toy" / "SASRec" / "7" / "record.json").unlink()
    with pytest.raises(ResultError, match="combines the scores of SASRec, but there is no "):
        restore_config(fusion, REGISTRY)
