from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.api import Results, evaluate, load_run, train_all
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError, ResultError, SettingsError
from hellm_recbole.experiments.results import find_results, read_result
from hellm_recbole.serving import all_data
from hellm_recbole.serving.loading import take_all_data
from tests.serving.small_results import run_small


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Results:
    folder = tmp_path_factory.mktemp("all-data")
    averaged = {"SASRec.average_decay": 0.9, "SASRec.schedule": "constant", "SASRec.epochs": 3}
    return run_small(folder, toy_dataset, "SASRec", "Transitions", "Fusion(SASRec,LightGCN)", **averaged)


def train(results: Results, name: str, **options: Any) -> Path:
    return train_all(results[name].folder, dataset=results[name].load().dataset, device="cpu", **options)


def test_the_training_part_is_the_whole_dataset(toy_split: Split) -> None:
    whole = take_all_data(toy_split)
    assert whole.n_interactions == len(whole.train.items) == 452
    assert (len(whole.valid), len(whole.test), whole.sha256) == (0, 0, toy_split.sha256)
    expected = [*toy_split.train.get_items(4), toy_split.valid.item[3], toy_split.test.item[3]]
    assert whole.train.get_items(4).tolist() == expected


def test_counts_are_those_of_the_whole_dataset(results: Results) -> None:
    """In the toy dataset, a user follows a circle of ten items: transitions name the next one."""
    model = load_run(train(results, "Transitions"), dataset=results["Transitions"].load().dataset)
    data = model.dataset
    last = results["Transitions"].load().dataset.test.set_index("user_id")["item_id"]
    first = model.recommend(k=1, filter_seen=False).set_index("user_id")["item_id"]
    number = last.str[1:].astype(int) - 1
    following = number // 10 * 10 + (number + 1) % 10 + 1
    before = number // 10 * 10 + (number - 1) % 10 + 1
    chosen = first[last.index].str[1:].astype(int)
    assert ((chosen == following) | (chosen == before)).mean() > 0.9  # steps are counted in both directions
    assert len(data.train) == data.counts["interactions"]


def test_a_model_of_all_data_is_not_evaluated_and_no_table_shows_it(results: Results) -> None:
    table = results.table()
    folder = train(results, "Fusion(SASRec,LightGCN)")
    assert folder == results.folder / "all-data" / "toy" / "Fusion(SASRec,LightGCN)" / "2024"
    record = json.loads((folder / "record.json").read_text())
    assert record["evaluated"] is False
    assert record["metrics"] == {"valid": {}, "test": {}}
    assert "evaluated" not in json.loads((results["SASRec"].folder / "record.json").read_text())
    assert not (folder / "ranks.npz").exists()
    assert find_results(results.folder / "all-data", "toy") == []
    pd.testing.assert_frame_equal(results.table(), table)
    model = load_run(folder, dataset=results["SASRec"].load().dataset, device="cpu")
    assert "trained on all data and has not been evaluated" in model.notes[0]
    with pytest.raises(ModelError, match="was trained on all data, the test part included, so it cannot be evaluated"):
        evaluate(model)
    assert len(model.recommend(k=3)) == 3 * 60
    with pytest.raises(ResultError, match="was itself trained on all data"):
        train_all(folder, dataset=results["SASRec"].load().dataset, device="cpu")


def test_training_takes_the_chosen_epochs_and_is_resumed_exactly(
    results: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(results, "SASRec", fresh=True)
    result = read_result(folder / "record.json")
    assert result.best_epoch == result.epochs_run == results["SASRec"].result.best_epoch
    assert (result.counts["train"], result.counts["test"]) == (452, 0)
    data = results["SASRec"].load().dataset
    vectors = load_run(folder, dataset=data, device="cpu").item_embeddings()[1]
    capsys.readouterr()
    assert train(results, "SASRec") == folder
    assert "SASRec on all data of toy, seed 2024: trained before, kept" in capsys.readouterr().out
    real, epochs = all_data.train_epoch, []

    def stop(*arguments: Any) -> dict[str, float]:
        if len(epochs) == 1:
            epochs.append("stopped")
            raise KeyboardInterrupt
        epochs.append(arguments[2])
        return real(*arguments)

    monkeypatch.setattr(all_data, "train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(results, "SASRec", fresh=True)
    with pytest.raises(ResultError, match="is not the folder of a finished run"):
        load_run(folder, dataset=data)
    train(results, "SASRec")
    assert epochs[:3] == [1, "stopped", 2]
    np.testing.assert_array_equal(load_run(folder, dataset=data, device="cpu").item_embeddings()[1], vectors)


def test_pretrained_models_are_trained_so_first(tmp_path: Path, toy_dataset: Dataset) -> None:
    from tests.toy_llm import small_values

    small = {f"LLaRA.{key}": value for key, value in small_values("LLaRA").items()}
    results = run_small(tmp_path, toy_dataset, "LLaRA", **{**small, "epochs": 1})
    folder = train(results, "LLaRA")
    record = read_result(folder / "record.json")
    pretrained = read_result(folder.parents[1] / "SASRec" / "2024" / "record.json")
    assert (record.evaluated, pretrained.evaluated) == (False, False)
    assert record.stages["SASRec"] != results["LLaRA"].result.stages["SASRec"]
    model = load_run(folder, dataset=results["LLaRA"].load().dataset, device="cpu")
    assert len(model.recommend(histories=[["i1", "i2"]], k=4)) == 4


def test_embeddings_that_no_run_reads_are_refused(results: Results, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"embeddings names VBPR, but .* has read none from files; leave it out"):
        train(results, "SASRec", embeddings={"VBPR": tmp_path / "vbpr.npy"})
