from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.api import run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import HellmError, ModelError, ResultError, SettingsError
from tests.serving.small_results import SMALL, prepare_toy


def test_runs_are_found_by_model_and_seed(tmp_path: Path, toy_dataset: Dataset) -> None:
    loaded = prepare_toy(tmp_path, toy_dataset)
    output = tmp_path / "results"
    assert [one.result.label for one in run("Transitions, Priors", loaded, output=output)] == ["Priors", "Transitions"]
    failing = {**SMALL, "LightGCN.learning_rate": 1e30}
    results = run(["SASRec", "LightGCN"], loaded, seeds=[1, 2], settings=failing, device="cpu", output=output)
    assert [(one.result.model, one.result.seed) for one in results] == [
        *(("LightGCN", 1), ("LightGCN", 2), ("SASRec", 1), ("SASRec", 2))
    ]
    assert results["SASRec", 2].result.seed == 2
    assert results["SASRec", 2].load().name == "SASRec on toy, seed 2"
    with pytest.raises(ResultError, match=r"several runs fit 'SASRec'; choose one of \('SASRec', 1\), \('SASRec', 2\)"):
        results["SASRec"]
    with pytest.raises(ResultError, match="there is no run of 'Transitions'"):  # it was not named in this call
        results["Transitions"]
    assert [one.result.label for one in results.failed] == ["LightGCN", "LightGCN"]
    assert results.failed[0].metrics == {}
    with pytest.raises(ResultError, match=r"is failed \(.*\); run LightGCN again"):
        results["LightGCN", 1].load()
    assert {*results.table()["model"]} == {"SASRec", "LightGCN", "Transitions", "Priors"}
    assert repr(results) == "Results(toy: 4 runs of LightGCN, SASRec; failed: LightGCN (seed 1), LightGCN (seed 2))"
    shown = results._repr_html_()
    assert shown is not None
    assert ">SASRec" in shown
    assert f"{results.table().set_index('model').loc['SASRec', 'R@10']:.4f}" in shown
    assert repr(results["SASRec", 2]).startswith("Run(SASRec on toy, seed 2: R@5 0.")
    assert repr(results["LightGCN", 1]).startswith("Run(LightGCN on toy, seed 1: failed, ")
    assert repr(results["SASRec", 2].load()).startswith("Recommender(SASRec on toy, seed 2: R@5 0.")
    (output / "toy" / "SASRec" / "1" / "record.json").write_text("{")
    assert results._repr_html_() is None  # a notebook then shows the line


def test_wrong_requests_are_refused_before_anything_is_trained(tmp_path: Path, toy_dataset: Dataset) -> None:
    loaded = prepare_toy(tmp_path, toy_dataset)
    cases: list[tuple[dict[str, object], type[HellmError], str]] = [
        ({"models": "SASRek"}, ModelError, "did you mean 'SASRec'"),
        ({"models": []}, ModelError, "name at least one model and one seed"),
        ({"settings": {"SASRec.drop": 0.1}}, SettingsError, "--set SASRec.drop=0.1: unknown setting 'drop'"),
        ({"seeds": -1}, SettingsError, "a seed must be at least 0"),
        ({"exports": ["lists"]}, SettingsError, "--export 'lists' is unknown"),
        ({"preset": "fast"}, SettingsError, "unknown preset 'fast'"),
    ]
    for arguments, error, sentence in cases:
        with pytest.raises(error, match=sentence):
            run(**{"models": "SASRec", "dataset": loaded, "output": tmp_path / "results", **arguments})  # type: ignore[arg-type]
    assert not (tmp_path / "results" / "toy").exists()
