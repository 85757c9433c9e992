from __future__ import annotations

import getpass
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.published import (
    PUBLISHED_FILES,
    PublishedRun,
    is_same_run,
    list_published_folders,
    prepare_publication,
    read_published,
    read_published_result,
    render_settings,
    write_publication,
)
from hellm_recbole.experiments.results import RunResult, digest_run, read_result
from hellm_recbole.report.frame import read_frame
from hellm_recbole.system.files import check_seal, sha256_file
from tests.toy_records import add_run, rewrite, toy_identity

SETTINGS = {
    "emb_dim": {"value": 64, "origin": "model/LightGCN.yaml"},
    "loggers": {"value": ["tensorboard"], "origin": "overall.yaml"},
    "learning_rate": {"value": 1e-5, "origin": "--set learning_rate=1e-5"},
}


def read_all(folder: Path, dataset: str) -> list[RunResult]:
    """Read the results of the published runs of a dataset."""
    return [read_published_result(path) for path in list_published_folders(folder, dataset)]


def add_finished_run(results: Path, rank: list[int], **changes: Any) -> RunResult:
    """Write a finished run whose result has the digest of its ranks, and read it again."""
    path = add_run(results, rank, **changes)
    rewrite(path, lambda content: content.update(ranks_sha256=sha256_file(path.with_name("ranks.npz"))))
    return read_result(path)


def publish(results: Path, folder: Path, rank: list[int], **changes: Any) -> PublishedRun:
    return write_publication(prepare_publication(add_finished_run(results, rank, **changes)), folder)


def test_a_published_run_has_the_result_the_settings_and_the_ranks(tmp_path: Path) -> None:
    result = add_finished_run(tmp_path / "results", [3, 1, 20], train=10, none=30, settings=SETTINGS)
    run = write_publication(prepare_publication(result), tmp_path / "published")
    folder = tmp_path / "published" / "Toy" / "LightGCN" / "2024"
    assert sorted(path.name for path in folder.iterdir()) == sorted(PUBLISHED_FILES)
    assert replace(run.result, ranks_sha256=result.ranks_sha256, published=None) == result
    assert run.result.curve == result.curve != ()
    assert yaml.safe_load((folder / "settings.yaml").read_text()) == {"emb_dim": 64, "learning_rate": 1e-5}
    for phase in ("valid", "test"):
        ranks = run.ranks[phase]
        assert ranks.rank.tolist() == [3, 1, 20]
        assert ranks.rank_train.tolist() == [13, 11, 30]
        assert ranks.rank_none.tolist() == [33, 31, 50]
        assert ranks.history_length.tolist() == [2, 3, 4]
        assert ranks.item_count.tolist() == [0, 1, 2]
        assert ranks.user.tolist() == ["1", "2", "3"]
        assert ranks.item.tolist() == [""] * 3
    assert run.n_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_the_digest_of_a_published_run_is_that_of_the_run(tmp_path: Path) -> None:
    result = add_finished_run(tmp_path, [1, 2])
    run = write_publication(prepare_publication(result), tmp_path / "published")
    assert digest_run(run.result) == digest_run(result)
    assert run.result.ranks_sha256 != result.ranks_sha256


def test_no_published_text_names_the_machine(tmp_path: Path) -> None:
    weights = f"{tmp_path}/my models/tiny.gguf"
    settings = {
        **SETTINGS,
        "llm": {"value": weights, "origin": f"--llm {weights}"},
        "files": {"value": [f"{Path.home()}/a.npy"], "origin": f"--set files={Path.home()}/a.npy"},
        "who": {"value": 1, "origin": f"--set who={getpass.getuser()}@{socket.gethostname()}"},
    }
    text = {"encoder": f"{tmp_path}/encoder", "revision": None, "pooling": None, "columns": (), "sha256": "0"}
    identity = {**toy_identity(), "features": {"text": text}}
    run = publish(tmp_path / "results", tmp_path / "published", [1], settings=settings, identity=identity)
    assert run.result.published is not None
    keys = ("settings.llm.value", "settings.llm.origin", "settings.files.value[0]", "settings.files.origin")
    assert {*keys, "identity.features.text.encoder"} <= {*run.result.published["cut"]}
    assert run.result.settings["llm"] == {"value": ".../tiny.gguf", "origin": "--llm .../tiny.gguf"}
    folder = tmp_path / "published" / "Toy" / "LightGCN" / "2024"
    private = [str(tmp_path), str(Path.home()), "my models"]
    for name in ("record.json", "settings.yaml"):
        content = (folder / name).read_text()
        assert [word for word in private if word in content] == []
        words = set(re.findall(r"[\w.-]+", content))
        assert not {word for word in (getpass.getuser(), socket.gethostname()) if len(word) > 2} & words


def test_a_path_that_was_not_recognized_is_refused(tmp_path: Path) -> None:
    settings = {**SETTINGS, "odd": {"value": f"[{Path.home()}/a]", "origin": "overall.yaml"}}
    with pytest.raises(ResultError, match="a folder of this machine"):
        publish(tmp_path / "results", tmp_path / "published", [1], settings=settings)
    assert list_published_folders(tmp_path / "published", "Toy") == []


def test_published_ranks_hold_no_token_and_are_small_integers(tmp_path: Path) -> None:
    run = publish(tmp_path / "results", tmp_path / "published", [1, 2, 65535], none=1)
    path = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "ranks.npz"
    with np.load(path, allow_pickle=False) as stored:
        types = {name: stored[name].dtype for name in stored.files}
    assert not {
        name for name in types if "user" in name.replace("user_order", "") or "item" in name.replace("item_count", "")
    }
    assert types["test_rank"] == np.uint16
    assert types["test_rank_none"] == np.uint32, "65536 needs more than 16 bits"
    assert {str(dtype) for name, dtype in types.items() if name != "test_rank_none"} == {"uint16", "uint32"}
    assert run.ranks["test"].rank_none.tolist() == [2, 3, 65536]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "failed"}, "has status failed"),
        ({"published": {"run_sha256": None, "settings_sha256": "", "cut": ()}}, "publish the run that it was made"),
    ],
)
def test_other_runs_are_not_published(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    result = replace(add_finished_run(tmp_path, [1]), **changes)
    with pytest.raises(ResultError, match=said):
        prepare_publication(result)


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_one_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1, 2], settings=SETTINGS)
    path = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / name
    content = bytearray(path.read_bytes())
    if name == "record.json":
        content[content.index(b"123456")] = ord("9")
    else:
        content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ResultError, match=rf"{re.escape(name)}.*; restore the file, or publish the run again"):
        read_published(tmp_path / "published", "Toy", "LightGCN", 2024)


@pytest.mark.parametrize("name", ["record.json", "ranks.npz"])
@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_report_advises_to_restore_a_broken_published_file(tmp_path: Path, name: str, content: bytes) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1, 2])
    for root, advice in (
        ("published", "restore the file, or publish the run again with hellm-recbole publish --fresh"),
        ("results", "again with --fresh"),
    ):
        (tmp_path / root / "Toy" / "LightGCN" / "2024" / name).write_bytes(content)
        with pytest.raises(ResultError, match=rf"{re.escape(name)}.*{advice}$"):
            read_frame(tmp_path / root, "Toy")


def test_other_advice_on_published_runs_is_kept(tmp_path: Path) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1, 2])
    dataset = tmp_path / "published" / "Toy"
    (dataset / "LightGCN").rename(dataset / "BPR")
    with pytest.raises(ResultError, match="move the copied or renamed folder out of"):
        read_frame(tmp_path / "published", "Toy")


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1, 2])
    (tmp_path / "published" / "Toy" / "LightGCN" / "2024" / name).unlink()
    with pytest.raises(ResultError, match=re.escape(name)):
        read_published(tmp_path / "published", "Toy", "LightGCN", 2024)


def test_other_files_are_refused(tmp_path: Path) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1])
    (tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "model.safetensors").write_text("")
    with pytest.raises(ResultError, match=r"model\.safetensors does not belong to a published run"):
        read_published(tmp_path / "published", "Toy", "LightGCN", 2024)


def test_the_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1])
    folder = tmp_path / "published" / "Toy" / "LightGCN"
    (folder / "2024").rename(folder / "2025")
    with pytest.raises(ResultError, match="says it is Toy/LightGCN/2024"):
        read_all(tmp_path / "published", "Toy")


def test_published_runs_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    assert read_all(folder, "Toy") == []
    publish(tmp_path / "results", folder, [1, 2])
    publish(tmp_path / "results", folder, [2, 1], model="SASRec", family="sequential", seed=7)
    (folder / "Toy" / "table.md").write_text("a report")
    assert [(result.label, result.seed) for result in read_all(folder, "Toy")] == [
        ("LightGCN", 2024),
        ("SASRec", 7),
    ]
    assert read_all(folder, "Beauty") == []


def test_a_folder_of_results_is_not_read_as_published(tmp_path: Path) -> None:
    add_finished_run(tmp_path, [1])
    with pytest.raises(ResultError, match="is not a published run"):
        read_all(tmp_path, "Toy")


def test_equal_runs_are_the_same_whatever_their_files(tmp_path: Path) -> None:
    result = add_finished_run(tmp_path / "results", [1, 2])
    run = prepare_publication(result)
    written = write_publication(run, tmp_path / "published")
    assert is_same_run(run, written)
    assert not is_same_run(replace(run, result=replace(run.result, epochs_run=4)), written)
    other = prepare_publication(add_finished_run(tmp_path / "results", [1, 3], metrics=result.metrics))
    assert not is_same_run(replace(other, result=run.result), written)


def test_publication_replaces_the_whole_folder(tmp_path: Path) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1])
    (tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "left.txt").write_text("")
    run = publish(tmp_path / "results", tmp_path / "published", [2])
    assert run.ranks["test"].rank.tolist() == [2]
    assert [path.name for path in (tmp_path / "published" / "Toy" / "LightGCN").iterdir()] == ["2024"]


def test_the_settings_are_sealed_with_the_result(tmp_path: Path) -> None:
    run = publish(tmp_path / "results", tmp_path / "published", [1], settings=SETTINGS)
    record = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "record.json"
    content = check_seal(json.loads(record.read_text()))
    assert content["published"]["settings_sha256"] == sha256_file(record.with_name("settings.yaml"))
    assert record.with_name("settings.yaml").read_text() == render_settings(run.result)


def test_a_published_run_without_its_seal_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "results", tmp_path / "published", [1])
    record = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "record.json"
    content = check_seal(json.loads(record.read_text()))
    content["versions"]["torch"] = "1.0"
    record.write_text(json.dumps(content))
    with pytest.raises(ResultError, match="sha256 is missing, which every published run has; restore the file"):
        read_all(tmp_path / "published", "Toy")


@pytest.mark.parametrize("changed", [{"emb_dim": 128}, {"emb_dim": 64, "more": 1}, {}])
def test_settings_that_are_not_those_of_the_record_are_refused(tmp_path: Path, changed: dict[str, int]) -> None:
    settings = {"emb_dim": SETTINGS["emb_dim"]}
    publish(tmp_path / "results", tmp_path / "published", [1], settings=settings)
    path = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "settings.yaml"
    path.write_text(yaml.safe_dump(changed))
    record = path.with_name("record.json")
    rewrite(record, lambda content: content["published"].update(settings_sha256=sha256_file(path)))
    with pytest.raises(ResultError, match=r"does not have the settings of record\.json beside it; restore the file"):
        read_published(tmp_path / "published", "Toy", "LightGCN", 2024)


def test_texts_for_a_language_model_are_published_as_they_are(tmp_path: Path) -> None:
    prompt = "A sci-fi/fantasy/horror fan, see /books/list or ./it, bought:"
    settings = {
        "prompt": {"value": prompt, "origin": f"--set prompt={prompt}"},
        "ending": {"value": "/Next one/of/these:", "origin": "llm.yaml"},
        "item_separator": {"value": "/", "origin": "/data/ada/mine.yaml"},
        "lora_targets": {"value": ["a/b/c", "/data/d"], "origin": "llm.yaml"},
        "llm": {"value": "models/of/tiny", "origin": "--llm models/of/tiny"},
    }
    run = publish(tmp_path / "results", tmp_path / "published", [1], settings=settings)
    published = run.result.settings
    assert published["prompt"] == settings["prompt"]
    assert published["ending"] == settings["ending"]
    assert published["item_separator"] == {"value": "/", "origin": ".../mine.yaml"}
    assert published["lora_targets"]["value"] == ["a/b/c", ".../d"]
    assert published["llm"] == {"value": ".../tiny", "origin": "--llm .../tiny"}
    assert run.result.published is not None
    cut = ("item_separator.origin", "lora_targets.value[1]", "llm.value", "llm.origin")
    assert {*run.result.published["cut"]} == {f"settings.{key}" for key in cut}


def test_a_prompt_that_names_a_folder_of_the_machine_is_refused(tmp_path: Path) -> None:
    settings = {"prompt": {"value": f"Read {Path.home()}/x first.", "origin": "llm.yaml"}}
    with pytest.raises(ResultError, match="a folder of this machine"):
        publish(tmp_path / "results", tmp_path / "published", [1], settings=settings)
    assert list_published_folders(tmp_path / "published", "Toy") == []


def test_a_published_run_has_the_metrics_of_all_masks(tmp_path: Path) -> None:
    run = publish(tmp_path / "results", tmp_path / "published", [3, 1, 20], train=10, none=30)
    assert run.result.published is not None
    metrics = run.result.published["metrics"]
    assert [(phase, [*policies]) for phase, policies in metrics.items()] == [
        ("valid", ["seen", "train", "none"]),
        ("test", ["seen", "train", "none"]),
    ]
    test = metrics["test"]
    assert {policy: values["mean_rank"] for policy, values in test.items()} == {"seen": 8, "train": 18, "none": 38}
    assert [test[policy]["R@20"] for policy in ("seen", "train", "none")] == pytest.approx([1, 2 / 3, 0])
    assert test["seen"].items() >= run.result.metrics["test"].items()


def test_a_run_published_without_the_metrics_of_all_masks_is_the_same_run(tmp_path: Path) -> None:
    run = prepare_publication(add_finished_run(tmp_path / "results", [1, 2]))
    write_publication(run, tmp_path / "published")
    record = tmp_path / "published" / "Toy" / "LightGCN" / "2024" / "record.json"
    rewrite(record, lambda content: content["published"].pop("metrics"))
    assert is_same_run(run, read_published(tmp_path / "published", "Toy", "LightGCN", 2024))
