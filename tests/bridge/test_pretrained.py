"""Pretrained models in RecBole: files that a run leaves, training of missing ones, and refused ones."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.bridge.pretrained import load_pretrained
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.embeddings import export_embeddings
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError, ModelError, OutputError, SettingsError
from tests.bridge.door import QUIET, SEED

SMALL: dict[str, Any] = {"data_path": "dataset", "epochs": 1, "batch_size": 64, "emb_dim": 8}


def configure(**values: Any) -> Any:
    from recbole.config import Config

    return Config(model="HeLLM", dataset="toy", config_dict={**QUIET, **SMALL, **values})


def load(models: tuple[str, ...] = ("SASRec",), **values: Any) -> dict[str, np.ndarray]:
    return load_pretrained(configure(**values), read_split(), models, "HeLLM")


def read_split() -> Split:
    return split_dataset(load_dataset(Path("dataset/toy"), modalities=None))


def run(model: str, **values: Any) -> None:
    from recbole.quick_start import run_recbole

    run_recbole(model=model, dataset="toy", config_dict={**QUIET, **SMALL, **values})


def test_a_run_leaves_its_embeddings_where_they_are_read(workplace: Path) -> None:
    run("HellmSASRec")
    folder = workplace / "saved" / "embeddings" / "toy" / "SASRec" / str(SEED)
    record = json.loads((folder / "recbole.json").read_text())
    assert (record["model"], record["seed"], record["settings"]["epochs"]) == ("SASRec", SEED, 1)
    assert record["split_hash"] == read_split().sha256
    assert load()["SASRec"].shape == (41, 8)
    before = (folder / "recbole.json").stat().st_mtime_ns
    load()
    assert (folder / "recbole.json").stat().st_mtime_ns == before  # not trained again


def test_a_missing_model_is_trained_and_the_log_says_so(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tables = load(("HeLLMPre", "SASRec"), embeddings_dir="mine", **{"SASRec.emb_dim": 4})
    assert {name: table.shape for name, table in tables.items()} == {"HeLLMPre": (41, 8), "SASRec": (41, 4)}
    assert "HeLLM: there are no item embeddings of SASRec in mine/toy/SASRec/7; SASRec is trained first" in caplog.text
    assert (workplace / "mine" / "toy" / "HeLLMPre" / str(SEED) / "embeddings" / "SHA256SUMS").is_file()


def test_an_unsaved_run_leaves_nothing(workplace: Path) -> None:
    from recbole.quick_start import run_recbole

    run_recbole(model="VBPR", dataset="toy", config_dict={**QUIET, **SMALL}, saved=False)
    assert not (workplace / "saved" / "embeddings").exists()


def test_embeddings_of_another_split_are_refused(workplace: Path) -> None:
    run("HellmSASRec", eval_args={"split": {"RS": [2, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"})
    with pytest.raises(ModelError, match="were made on another split; run SASRec again on this one"):
        load()


def test_results_of_the_command_are_read_and_never_written(workplace: Path) -> None:
    folder = workplace / "results" / "toy" / "SASRec" / str(SEED)
    split, vectors = read_split(), np.arange(80, dtype=np.float32).reshape(40, 2)
    export_embeddings(folder / "embeddings", split.user_tokens[1:3], vectors[:2], split.item_tokens[1:], vectors)
    (folder / "record.json").write_text(json.dumps({"split_hash": split.sha256}))
    np.testing.assert_array_equal(load(embeddings_dir="results")["SASRec"][1:], vectors)
    with pytest.raises(OutputError, match="set embeddings_dir to another folder"):
        run("HellmSASRec", embeddings_dir="results")
    np.testing.assert_array_equal(load(embeddings_dir="results")["SASRec"][1:], vectors)


def test_a_folder_can_be_named(workplace: Path) -> None:
    split, vectors = read_split(), np.arange(80, dtype=np.float32).reshape(40, 2)
    export_embeddings(workplace / "x", split.user_tokens[1:3], vectors[:2], split.item_tokens[:0:-1], vectors[::-1])
    np.testing.assert_array_equal(load(embeddings={"SASRec": "x"})["SASRec"][1:], vectors)


@pytest.mark.parametrize(
    ("models", "values", "message"),
    [
        (("SASRec",), {"embeddings": "x"}, "embeddings = 'x' must map each model to a folder"),
        (("SASRec",), {"embeddings": {"SASRecc": "x"}}, "names SASRecc, but HeLLM reads only SASRec"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_wrong_keys_are_refused(models: tuple[str, ...], values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(models, **values)


@pytest.mark.parametrize("model", ["Pop", "NeuMF", "CoLLM", "Nothing"])
@pytest.mark.usefixtures("workplace")
def test_a_model_without_item_embeddings_is_refused(model: str) -> None:
    with pytest.raises(ModelError, match=f"reads item embeddings of {model}, but there is no such model"):
        load((model,))


def test_damaged_files_are_refused(workplace: Path) -> None:
    run("HellmSASRec")
    folder = workplace / "saved" / "embeddings" / "toy" / "SASRec" / str(SEED)
    shutil.copy(folder / "embeddings" / "users.txt", folder / "embeddings" / "items.txt")
    with pytest.raises(DataError, match="has changed since the export"):
        load()
    (folder / "recbole.json").write_text("{")
    with pytest.raises(DataError, match=r"recbole\.json cannot be read .* remove the folder to train the model again"):
        load()
