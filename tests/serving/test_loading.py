"""What loading compares; tests/test_api.py loads every model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.api import evaluate, load_run, run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, ModelError, ResultError
from tests.serving.small_results import SMALL, prepare_toy, run_small
from tests.toy_llm import small_values


def test_other_features_than_those_of_the_run_are_refused(tmp_path: Path, toy_dataset: Dataset) -> None:
    results = run_small(tmp_path / "one", toy_dataset, "VBPR", "SASRec")
    features = {name: values * 2 for name, values in toy_dataset.features.items()}
    other = prepare_toy(
        tmp_path / "two", replace(toy_dataset, features={**toy_dataset.features, "text": features["text"]})
    )
    with pytest.raises(
        ResultError, match="was made with other features of text than now; restore what it was made with"
    ):
        load_run(results["VBPR"].folder, dataset=other)
    assert load_run(results["SASRec"].folder, dataset=other).name == "SASRec on toy, seed 2024"  # it reads no features
    renamed = replace(other, split=replace(other.split, dataset="other"))
    with pytest.raises(DataError, match="is a run on toy, not on other"):
        load_run(results["SASRec"].folder, dataset=renamed)


def test_a_run_that_has_read_embeddings_from_a_file_needs_the_file(tmp_path: Path, toy_dataset: Dataset) -> None:
    loaded = prepare_toy(tmp_path, toy_dataset)
    path = tmp_path / "graph.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    (tmp_path / "graph.tokens.txt").write_text("".join(f"{item}\n" for item in loaded.items))
    small = {f"LLaRA.{key}": value for key, value in small_values("LLaRA").items()}
    options = {"settings": {**small, "LLaRA.epochs": 1}, "embeddings": {"SASRec": path}, "device": "cpu"}
    results = run("LLaRA", loaded, output=tmp_path / "results", **options)  # type: ignore[arg-type]
    found = results["LLaRA"]
    assert evaluate(found.load()) == found.metrics
    with pytest.raises(DataError, match=r"with embeddings of SASRec from the file graph.npy; name it with embeddings="):
        load_run(found.folder, dataset=loaded)
    np.save(path, np.ones((40, 6), np.float32))
    with pytest.raises(ResultError, match="was made with other embeddings of SASRec than now"):
        load_run(found.folder, dataset=loaded, embeddings={"SASRec": path})


def test_a_prompt_with_a_user_reads_no_new_histories(tmp_path: Path, toy_dataset: Dataset) -> None:
    small = {f"CoLLM.{key}": value for key, value in small_values("CoLLM").items()}
    prompt = {"CoLLM.prompt": "a customer {user} bought products :", "CoLLM.examples": "all"}
    results = run_small(tmp_path, toy_dataset, "CoLLM", **{**small, **prompt, "epochs": 1})
    model = results["CoLLM"].load()
    assert evaluate(model) == results["CoLLM"].metrics
    assert len(model.recommend(k=2)) == 120
    with pytest.raises(ModelError, match=r"CoLLM@.* on toy, seed 2024 scores the users that it was trained on"):
        model.recommend(histories=[["i1"]])


def test_changed_code_is_noted(tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_small(tmp_path, toy_dataset, "SASRec")
    monkeypatch.setattr(
        "hellm_recbole.serving.loading.find_changed_modules", lambda *_: ["hellm_recbole.models.sasrec"]
    )
    notes = results["SASRec"].load().notes
    assert notes == (
        "the code of SASRec has changed since its run (hellm_recbole.models.sasrec), so its scores may differ",
    )
    assert SMALL["epochs"] == results["SASRec"].result.epochs_run
