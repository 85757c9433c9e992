"""Files of a pushed run that somebody has changed, with digests that fit: each is one sentence, and none is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, save

from hellm_recbole.api import load_run, run
from hellm_recbole.benchmarks import cli
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import HubError
from hellm_recbole.hub.repository import read_tables
from hellm_recbole.hub.untrusted import convert_faults
from hellm_recbole.system.files import check_seal, seal
from tests.hub_server import Hub
from tests.serving.small_results import SMALL, prepare_toy

RUN = "runs/toy/LightGCN/2024/"
STATE = f"{RUN}checkpoint/state.json"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("place")
    run(["LightGCN"], prepare_toy(folder, toy_dataset), settings=SMALL, device="cpu", output=folder / "results")
    return folder


@pytest.fixture
def pushed(place: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The files of a pushed run."""
    monkeypatch.chdir(place)
    assert cli.main(["push", "results/toy/LightGCN/2024", "--to", "ada/run"]) == 0
    return dict(hub.read("ada/run"))


def fail(hub: Hub, files: Files, **changed: Any) -> str:
    """Push files with a manifest that fits them, and return the message about them."""
    manifest = check_seal(json.loads(files["hellm.json"]))
    manifest["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in manifest["files"]}
    hub.add("ada/run", {**files, "hellm.json": json.dumps(seal({**manifest, **changed})).encode()})
    with pytest.raises(HubError) as caught:
        load_run("hub:ada/run")
    assert "\n" not in str(caught.value)
    assert "hub:ada/run" in str(caught.value)
    return str(caught.value)


def edit(files: Files, name: str, change: Callable[[dict[str, Any]], Any]) -> Files:
    content = check_seal(json.loads(files[name]))
    change(content)
    return {**files, name: json.dumps(seal(content)).encode()}


def edit_weights(files: Files, change: Callable[[dict[str, torch.Tensor]], Any]) -> Files:
    name = next(name for name in files if "/checkpoint/best" in name)
    tensors = load(files[name])
    change(tensors)
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    return edit({**files, name: content}, STATE, lambda state: state["files"]["best"].update(sha256=digest))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_checkpoint_names_files_of_the_manifest_only(which: str, pushed: Files, hub: Hub) -> None:
    for name in ("/dev/zero", "../../../../../hellm.json", "other.safetensors", "..", 7, None, "a\nb.safetensors"):
        damaged = edit(pushed, STATE, lambda state, name=name: state["files"][which].update(name=name))  # type: ignore[misc]
        assert "which hellm.json does not name; such a file is not read" in fail(hub, damaged)


def test_a_record_names_no_file_of_the_machine(pushed: Files, hub: Hub) -> None:
    entry = {"value": "/etc/hostname", "origin": "model/LightGCN.yaml"}
    damaged = edit(pushed, f"{RUN}record.json", lambda record: record["settings"].update(llm=entry))
    assert "names the language model '/etc/hostname', a file of the machine; such a file" in fail(hub, damaged)


def test_a_link_out_of_the_cache_and_an_unnamed_file_are_refused(pushed: Files, hub: Hub, tmp_path: Path) -> None:
    load_run("hub:ada/run")
    (record,) = Path(constants.HF_HUB_CACHE).glob(f"models--*/snapshots/*/{RUN}record.json")
    outside = tmp_path / "record.json"
    outside.write_bytes(record.read_bytes())
    record.unlink()
    record.symlink_to(outside)
    with pytest.raises(HubError, match=r"leads out of the cache of hub:ada/run; remove .*models--ada--run and load"):
        load_run("hub:ada/run")
    record.unlink()
    record.with_name("checkpoint").joinpath("more.safetensors").touch()
    with pytest.raises(HubError, match=r"has .*more.safetensors, which its hellm.json does not name"):
        load_run("hub:ada/run")


def test_a_damaged_state_is_one_sentence(pushed: Files, hub: Hub) -> None:
    deep = {**pushed, STATE: b"[" * 100_000 + b"]" * 100_000}
    assert "checkpoint/state.json of hub:ada/run is not a JSON" in fail(hub, deep)
    for progress in (None, 3, "text", {}):
        damaged = edit(pushed, STATE, lambda state, progress=progress: state.update(progress=progress))  # type: ignore[misc]
        assert "state.json of hub:ada/run does not say which epoch is the best one" in fail(hub, damaged)


def test_damaged_weights_are_one_sentence(pushed: Files, hub: Hub) -> None:
    extra = edit_weights(pushed, lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert "whose tensor 'extra' is not one of a checkpoint" in fail(hub, extra)

    def truncate(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({key: value.long() for key, value in tensors.items()})

    assert "of type int64, and the model has float32; push the run again" in fail(hub, edit_weights(pushed, truncate))


def test_a_record_of_another_split_is_refused(pushed: Files, hub: Hub) -> None:
    assert "has another split_sha256 than the record" in fail(hub, pushed, split_sha256="0" * 64)


def test_a_damaged_cache_is_repaired_as_the_message_says(pushed: Files, hub: Hub) -> None:
    load_run("hub:ada/run")
    cache = Path(constants.HF_HUB_CACHE) / "models--ada--run"
    for pattern in ("runs/**/best*", "hellm.json"):
        (file,) = cache.glob(f"snapshots/*/{pattern}")
        file.resolve().write_bytes(b"damaged")
        with pytest.raises(HubError, match=f"remove {cache} and load it again"):
            load_run("hub:ada/run")
        for path in sorted(cache.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        cache.rmdir()
        load_run("hub:ada/run")


@pytest.mark.parametrize(
    "table",
    [
        torch.zeros(4),
        torch.zeros(4, 2, 2),
        torch.zeros(4, 2, dtype=torch.bfloat16),
        torch.zeros(4, 2).to(torch.float8_e4m3fn),
        torch.zeros(4, 2, dtype=torch.int64),
    ],
)
def test_a_table_of_another_layout_is_refused(table: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "pretrained").mkdir()
    path = tmp_path / "pretrained" / "SASRec.safetensors"
    path.write_bytes(save({"items": torch.ones(4, 2)}))
    assert np.array_equal(read_tables(tmp_path)["SASRec"][1:], np.ones((4, 2), np.float32))
    path.write_bytes(save({"items": table}))
    with pytest.raises(HubError, match=r"SASRec.safetensors has a tensor 'items' of type"):
        read_tables(tmp_path)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), RecursionError("x"), TypeError("x\ny")])
def test_whatever_a_file_raises_is_one_sentence(error: Exception) -> None:
    with pytest.raises(HubError, match=r"^hub:a/b cannot be loaded: [^\n]*$"), convert_faults("hub:a/b"):
        raise error
