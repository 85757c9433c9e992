"""Combined runs: what is searched, recorded and left out, against a brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.combined_scores import RowTerm
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments import component_scores
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.combined_run import combine_and_rank
from hellm_recbole.experiments.component_scores import build_combined_scorer
from hellm_recbole.experiments.jobs import RunJob, run_job
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult, read_result
from hellm_recbole.experiments.run import execute_run
from hellm_recbole.types import FloatArray, Histories, IdArray
from tests.toy_combined import build_context, build_resolver, resolve_combined, run_all

FEW = [
    Override(None, "text_weights", [0.0, 0.5, 1.0], "--set text_weights=[0,0.5,1]"),
    Override(None, "item_knn_weights", [0.0, 0.5], "--set item_knn_weights=[0,0.5]"),
    Override(None, "transition_weights", [0.0], "--set transition_weights=[0]"),  # on toy data it solves everything
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset, toy_split: Split) -> Path:
    """Results of SASRec and LightGCN."""
    folder = tmp_path_factory.mktemp("results")
    run_all(folder, toy_dataset, toy_split, "SASRec", "LightGCN")
    return folder


def execute(config: CombinedRunConfig, output: Path, dataset: Dataset, split: Split) -> RunResult:
    context = build_context(output)
    result = execute_run(config, dataset, split, context, PretrainedStore(), fresh=True, body=combine_and_rank)
    assert result == replace(read_result(context.locate_run(config, "toy") / "record.json"), path=None)
    return result


def test_the_search_of_a_run_equals_a_brute_force_on_validation(
    output: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    config = resolve_combined("SASRec-priors", *FEW)
    result = execute(config, output, toy_dataset, toy_split)
    assert result.status == "success", result.reason
    names = config.list_terms(toy_split.features)
    assert names == ["text-kNN", "ItemKNN"]
    values = {}
    for point in config.list_points(toy_split.features):
        scorer = build_combined_scorer(config, toy_split, build_context(output), dict(zip(names, point, strict=True)))
        ranks = rank_targets(
            scorer, toy_split.valid, train=toy_split.train, seen=toy_split.train, block_users=96, who="x"
        )
        values[point] = average_metrics(ranks.user, ranks.seen, [20])["N@20"]
    assert len({*values.values()}) > 2
    found = result.combination
    assert found is not None
    assert (found["points"], found["valid"]) == (6, max(values.values()))
    assert values[tuple(found["weights"].values())] == found["valid"] == result.metrics["valid"]["N@20"]
    assert found["valid_without"] == values[0.0, 0.0]
    sasrec = read_result(output / "toy" / "SASRec" / "7" / "record.json")
    assert found["valid_without"] == pytest.approx(sasrec.metrics["valid"]["N@20"], abs=1e-6)
    assert result.parameters == sasrec.parameters


def test_a_fusion_is_at_least_as_good_as_its_best_row_on_validation(
    output: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    result = execute(resolve_combined("Fusion(SASRec,LightGCN)"), output, toy_dataset, toy_split)
    rows = [read_result(output / "toy" / name / "7" / "record.json") for name in ("SASRec", "LightGCN")]
    found = result.combination
    assert found is not None
    assert (found["rows"], found["priors"], found["points"]) == (("SASRec", "LightGCN"), (), 11)
    assert sum(found["weights"].values()) == pytest.approx(1.0)
    assert found["valid_without"] == pytest.approx(max(row.metrics["valid"]["N@20"] for row in rows), abs=1e-6)
    assert found["valid"] is not None
    assert found["valid_without"] is not None
    assert found["valid"] >= found["valid_without"]
    assert result.family == "sequential"


def test_transitions_alone_search_nothing(output: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    result = execute(resolve_combined("Transitions-directed"), output, toy_dataset, toy_split)
    assert result.status == "success", result.reason
    assert result.combination == {
        "rows": (), "priors": ("transitions",), "left_out": (), "transition_form": "directed", "weights": {},
        "points": 0, "valid_metric": "N@20", "valid": None, "valid_without": None,
    }  # fmt: skip
    assert result.metrics["test"]["R@5"] == 1.0  # the last item of the toy dataset determines the next one
    assert result.identity is not None
    assert result.identity["features"] == {}


def test_without_text_the_prior_is_left_out_and_that_is_said(
    output: Path, toy_dataset: Dataset, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    images = replace(toy_split, features={"image": toy_split.features["image"]})
    result = execute(resolve_combined("SASRec-priors"), output, toy_dataset, images)
    assert "text-kNN is left out, for toy has no features text\n" in capsys.readouterr().out
    found = result.combination
    assert found is not None
    assert (found["priors"], found["left_out"], found["points"]) == (("ItemKNN", "transitions"), ("text-kNN",), 30)
    asked = Override(None, "prior_modality", "text", "--set prior_modality=text")
    refused = execute(resolve_combined("SASRec-priors", asked), output, toy_dataset, images)
    assert refused.status == "failed"
    assert refused.reason == ("--set prior_modality=text: the dataset has no features of this modality; it has image")


@pytest.mark.parametrize("change", ["missing", "no prior"])
def test_a_run_that_cannot_be_made_fails_with_one_sentence(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split, change: str
) -> None:
    overrides: list[Any] = []
    if change == "no prior":
        overrides = [
            Override(None, key, [0.0], f"--set {key}=[0]")
            for key in ("text_weights", "item_knn_weights", "transition_weights")
        ]
    name = "SASRec-priors" if change == "missing" else "Priors"
    result = execute(resolve_combined(name, *overrides), tmp_path, toy_dataset, toy_split)
    expected = "needs the scores of SASRec, but its run" if change == "missing" else "Priors has no prior: all weights"
    assert (result.status, (result.reason or "").startswith(expected)) == ("failed", True)


def test_scores_that_do_not_give_the_recorded_metric_are_refused(
    output: Path, toy_dataset: Dataset, toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(RowTerm):
        def compute(self, user: IdArray, history: Histories) -> FloatArray:
            return super().compute(user, history)[:, ::-1].copy()  # as code that has changed since the training

    monkeypatch.setattr(component_scores, "RowTerm", Other)
    result = execute(resolve_combined("SASRec-priors", *FEW), output, toy_dataset, toy_split)
    assert result.status == "failed"
    assert result.reason is not None
    assert result.reason.startswith("the scores of SASRec give N@20 0.")
    assert result.reason.endswith("has changed since; run SASRec again with --fresh")


def test_validation_on_a_sample_is_recorded_and_the_same_for_all_rows(
    output: Path, tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    sampled = Override(None, "valid_users", 20, "--set valid_users=20")
    whole = Override(None, "valid_users", "all", "--set valid_users=all")
    resolver = build_resolver(sampled)
    for name in ("LightGCN", "SASRec"):
        job = RunJob(resolver.resolve(name), build_context(tmp_path), False, (), False, toy_split.dataset)
        assert run_job(job, toy_dataset, toy_split, PretrainedStore()) is None
    results = [read_result(tmp_path / "toy" / name / "7" / "record.json") for name in ("LightGCN", "SASRec")]
    results.append(execute(resolve_combined("SASRec-priors", *FEW, sampled), tmp_path, toy_dataset, toy_split))
    digest = set()
    for result in results:
        assert result.valid_sample is not None
        digest.add(result.valid_sample["users_sha256"])
        assert (result.valid_sample["users"], result.settings["valid_users"]["value"]) == (20, 20)
        assert result.valid_sample["of"] == len(np.unique(toy_split.valid.user)) > 20
        ranks = read_ranks(tmp_path / "toy" / result.label / "7" / "ranks.npz")
        assert len(np.unique(ranks["valid"].user)) == 20
        assert len(ranks["valid"].user) == result.valid_sample["targets"]
        assert len(ranks["test"].user) == len(toy_split.test)  # whole
        assert average_metrics(ranks["valid"].user, ranks["valid"].rank, [20])["N@20"] == pytest.approx(
            result.metrics["valid"]["N@20"]
        )
        assert "valid_users: 20" in (tmp_path / "toy" / result.label / "7" / "settings.yaml").read_text()
    assert len(digest) == 1
    assert results[1].metrics["valid"]["N@20"] == max(point["valid"]["N@20"] for point in results[1].curve)
    assert read_result(output / "toy" / "SASRec" / "7" / "record.json").valid_sample is None
    config = resolve_combined("SASRec-priors", *FEW, sampled)
    (row,) = config.combined_runs
    other = row.evaluation.model_copy(update={"valid_users": "all"})
    refused = execute(replace(config, rows=(replace(row, evaluation=other),)), tmp_path, toy_dataset, toy_split)
    assert refused.status == "failed"
    assert "valid_users" in (refused.reason or "")
    assert resolve_combined("SASRec-priors", whole).evaluation.valid_users == "all"
