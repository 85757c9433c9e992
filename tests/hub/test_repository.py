"""What a pushed record holds; tests/hub/test_loading.py writes and reads whole repositories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hellm_recbole.api import run
from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import CheckpointError, HubError, ResultError
from hellm_recbole.experiments.results import SettingValue
from hellm_recbole.hub.repository import collect_files, list_sizes, prepare_record, read_tables, write_repository
from hellm_recbole.serving.loading import StoredRun, open_run, read_finished
from hellm_recbole.system.runtime import choose_device
from hellm_recbole.types import name_user_table
from tests.serving.small_results import SMALL, prepare_toy
from tests.toy_records import toy_record


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> StoredRun:
    folder = tmp_path_factory.mktemp("repository")
    results = run("LightGCN", prepare_toy(folder, toy_dataset), settings=SMALL, device="cpu", output=folder / "results")
    return open_run(read_finished(results["LightGCN"].folder), load_registry(), choose_device("cpu"))


def test_the_state_of_the_optimizer_is_left_out(stored: StoredRun, tmp_path: Path) -> None:
    manifest = write_repository(collect_files(stored, load_registry(), None), tmp_path)
    sizes = list_sizes(tmp_path)
    folder = f"runs/toy/LightGCN/2024/checkpoint/{'{}'}-00002.safetensors"
    local = {path.name: path.stat().st_size for path in (stored.folder / "checkpoint").iterdir()}
    assert sizes[folder.format("best")] == local["best-00002.safetensors"]
    assert sizes[folder.format("last")] < 100 < local["last-00002.safetensors"]
    assert {*sizes} == {*manifest.files, "hellm.json"}
    assert manifest.run == "runs/toy/LightGCN/2024"


def test_a_run_without_weights_is_refused(stored: StoredRun, tmp_path: Path) -> None:
    moved = replace(stored, context=replace(stored.context, output=tmp_path))
    with pytest.raises(HubError, match="has no checkpoint, so there are no weights to push"):
        collect_files(moved, load_registry(), None)
    folder = moved.folder / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json is corrupt"):
        write_repository(collect_files(moved, load_registry(), None), tmp_path / "new")


@pytest.mark.parametrize(
    ("llm", "pushed"),
    [
        ("auto", "auto"),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("/data/ada/Llama-2-7b-hf", ".../Llama-2-7b-hf"),
        ("~/models/tiny.gguf", ".../tiny.gguf"),
        ("tests/hub", ".../hub"),  # a folder that exists, though it looks like an id of the hub
    ],
)
def test_of_a_language_model_in_a_folder_only_its_name_is_pushed(llm: str, pushed: str) -> None:
    settings = {"llm": SettingValue(value=llm, origin=f"--llm {llm}"), "epochs": SettingValue(value=1, origin="x.yaml")}
    record = prepare_record(replace(toy_record(), settings=settings))
    assert record.settings["llm"] == {"value": pushed, "origin": f"--llm {pushed}"}
    assert record.settings["epochs"] == settings["epochs"]
    assert record.path is None


def test_a_record_that_names_a_folder_of_this_machine_is_refused(stored: StoredRun, tmp_path: Path) -> None:
    prompt = SettingValue(value=f"read {tmp_path} first", origin="--set")
    result = replace(stored.result, settings={**stored.result.settings, "prompt": prompt})
    files = collect_files(replace(stored, result=result), load_registry(), None)
    with pytest.raises(ResultError, match="a folder of this machine; it is not pushed"):
        write_repository(files, tmp_path / "new")


def test_tables_are_read_with_a_row_of_padding(tmp_path: Path) -> None:
    (tmp_path / "pretrained").mkdir()
    values: dict[str, Any] = {"items": np.ones((3, 2), np.float32), "users": np.full((2, 2), 2, np.float32)}
    save_file(values, tmp_path / "pretrained" / "HeLLMPre.safetensors")
    tables = read_tables(tmp_path)
    assert tables["HeLLMPre"].tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]
    assert tables[name_user_table("HeLLMPre")].tolist() == [[0, 0], [2, 2], [2, 2]]
    (tmp_path / "pretrained" / "HeLLMPre.safetensors").write_bytes(b"x")
    with pytest.raises(HubError, match=r"HeLLMPre.safetensors cannot be read .*; push the run again"):
        read_tables(tmp_path)
