"""`--embeddings MODEL=FILE` from the command line: what is read, what is recorded, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from hellm_recbole.benchmarks import run, study, tune
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.embedding_files import read_embedding_file
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import RunResult, read_result
from tests.benchmarks.test_distributed_runs import run_distributed
from tests.toy import write_prepared

EXPORTED = Path("embeddings") / "embeddings.safetensors"
READ = ("HeLLMPre", "SASRec")
SETTINGS = {"HeLLM.epochs": 2, "prefix_hidden": 8, "micro_batch_size": 16, "batch_size": 24}
OF_PRETRAINED = {"HeLLMPre.epochs": 2, "SASRec.epochs": 2, "emb_dim": 8}
RUN = Path("toy") / "HeLLM@tiny-llama" / "2024"


def name_settings(values: dict[str, int]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def list_words(tiny: Path, *more: str, models: str = "HeLLM", **settings: int) -> list[str]:
    given = name_settings({**SETTINGS, **settings})
    return ["--dataset", "toy", "--threads", "1", "--models", models, "--llm", str(tiny), *given, *more]


def name_files(files: dict[str, Path]) -> list[str]:
    return [part for model, path in files.items() for part in ("--embeddings", f"{model}={path}")]


def convert(source: Path, path: Path) -> Path:
    """Convert exported embeddings to the format of the ending, in another order of rows and with one more row."""
    found = read_embedding_file(source)
    order = np.random.default_rng(1).permutation(len(found.tokens))
    values = np.vstack([found.values[order], np.ones((1, found.values.shape[1]), np.float32)])
    tokens = [*(found.tokens[row] for row in order), "an item of another dataset"]
    if path.suffix == ".parquet":
        pd.DataFrame({"item_id": tokens, "vector": list(values)}).to_parquet(path, index=False)
        return path
    path.with_name(f"{path.stem}.tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".safetensors":
        save_file({"vectors": torch.from_numpy(values)}, path)
    else:
        torch.save(torch.from_numpy(values), path)
    return path


def write_random(path: Path, n_items: int, width: int, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(size=(n_items, width)).astype(np.float32)
    np.save(path, values)
    path.with_name(f"{path.stem}.tokens.txt").write_text("".join(f"i{item}\n" for item in range(1, n_items + 1)))
    return path


def fail_with_sentence(capsys: pytest.CaptureFixture[str], words: Sequence[str], code: int = 2) -> str:
    capsys.readouterr()
    assert run.main(words) == code
    sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    return sentences[0]


def assert_equal_runs(one: Path, other: Path) -> tuple[RunResult, RunResult]:
    """Assert that two runs have the same losses, metrics and ranks, to the last bit."""
    first, second = (read_result(folder / "record.json") for folder in (one, other))
    assert first.metrics == second.metrics
    assert [(point["losses"], point["valid"]) for point in first.curve] == [
        (point["losses"], point["valid"]) for point in second.curve
    ]
    for phase in ("valid", "test"):
        ranks = [read_ranks(folder / "ranks.npz")[phase] for folder in (one, other)]
        assert np.array_equal(ranks[0].rank, ranks[1].rank)
        assert np.array_equal(ranks[0].rank_none, ranks[1].rank_none)
    return first, second


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tiny: Path, toy_dataset: Dataset) -> Path:
    """The results of a HeLLM that has trained the models that it reads."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_prepared(folder / "dataset" / "toy", toy_dataset)
        assert run.main(list_words(tiny, *name_settings(OF_PRETRAINED), "--export", "test-lists")) == 0
    return folder / "results"


@pytest.fixture
def trained(own: Path) -> dict[str, Path]:
    """Exported embeddings of the models that this HeLLM has read: model -> file."""
    return {model: own / "toy" / model / "2024" / EXPORTED for model in READ}


def test_embeddings_of_every_format_give_the_numbers_of_the_run_that_trained_them(
    workplace: Path, tiny: Path, own: Path, trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in (".npy", ".safetensors", ".parquet", ".pt", ".pth"):
        files = {model: convert(path, workplace / f"{model}{ending}") for model, path in trained.items()}
        output = f"read{ending}"
        words = [*list_words(tiny, *name_files(files)), "--output", output, "--export", "test-lists"]
        assert run.main(words) == 0
        first, read = assert_equal_runs(own / RUN, workplace / output / RUN)
        assert first.stages == read.stages
        lists = [pd.read_parquet(root / RUN / "test-lists.parquet") for root in (own, workplace / output)]
        pd.testing.assert_frame_equal(*lists)  # scores included
        assert not (workplace / output / "toy" / "HeLLMPre").exists()
        assert read.identity is not None
        external = read.identity["embeddings"]["HeLLMPre"]["external"]
        assert (external["file"], external["shape"]) == (f"HeLLMPre{ending}", (41, 8))
        assert (
            f"external: embeddings of SASRec are read from the file SASRec{ending}"
            in (workplace / output / "toy" / "table.md").read_text()
        )
    shown = capsys.readouterr().out
    line = f"toy: embeddings of SASRec come from {workplace / 'SASRec.npy'} and are not trained here; 41 rows x 8"
    assert line in shown
    assert "; 1 further id is ignored" in shown
    assert "embeddings from files: HeLLMPre from HeLLMPre.pt, SASRec from SASRec.pt;" in shown


def test_a_model_can_be_read_from_a_file_and_be_trained_as_a_row_of_its_own(
    workplace: Path, tiny: Path, own: Path, trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = list_words(tiny, *name_files(trained), models="SASRec,HeLLM,Pop", **{"SASRec.epochs": 1})
    capsys.readouterr()
    assert run.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "embeddings from files: HeLLMPre from embeddings.safetensors, SASRec from embeddings.safetensors (its run in "
        "this plan is a row of its own that nothing reads)" in shown
    )
    assert "models SASRec, HeLLM@tiny-llama, Pop" in shown
    results = workplace / "results" / "toy"
    assert read_result(results / "SASRec" / "2024" / "record.json").epochs_run == 1
    assert not (results / "SASRec" / "2024" / "embeddings").exists()
    assert not (results / "HeLLMPre").exists()
    assert_equal_runs(own / RUN, results.parent / RUN)
    table = (results / "table.md").read_text()
    assert table.count("HeLLM@tiny-llama <sup>") == 1
    assert "external: embeddings of HeLLMPre are read from the file embeddings.safetensors (SHA-256 " in table


@pytest.mark.slow
def test_widths_may_differ_and_other_embeddings_are_another_run(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_random(workplace / "graph.npy", 40, 5)
    files = {"HeLLMPre": graph, "SASRec": write_random(workplace / "sasrec.npy", 40, 11)}
    words = list_words(tiny, *name_files(files))
    assert run.main(words) == 0
    record = read_result(workplace / "results" / RUN / "record.json")
    capsys.readouterr()
    assert run.main(words) == 0
    assert "HeLLM@tiny-llama on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out
    write_random(graph, 40, 5, seed=1)
    assert "made with other embeddings of HeLLMPre than now; run with --fresh" in fail_with_sentence(capsys, words)
    (workplace / "results" / RUN / "record.json").unlink()  # as if it had been stopped
    sentence = fail_with_sentence(capsys, words)
    assert "2024/checkpoint was made with other embeddings of HeLLMPre than now; run with --fresh" in sentence
    assert run.main([*words, "--fresh"]) == 0
    again = read_result(workplace / "results" / RUN / "record.json")
    assert again.stages["SASRec"] == record.stages["SASRec"]
    assert again.stages["HeLLMPre"] != record.stages["HeLLMPre"]


def test_a_run_that_has_read_a_file_does_not_train_the_model_by_accident(
    workplace: Path, tiny: Path, own: Path, trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = list_words(tiny)
    assert run.main([*words, *name_files(trained)]) == 0
    sentence = fail_with_sentence(capsys, words)
    assert "was made with embeddings of HeLLMPre from the file embeddings.safetensors; name it again" in sentence
    record = workplace / "results" / RUN / "record.json"
    record.rename(workplace / "record.json")  # as if it had been killed
    sentence = fail_with_sentence(capsys, words)
    assert "2024/checkpoint was made with embeddings of HeLLMPre from the file embeddings.safetensors;" in sentence
    (workplace / "record.json").rename(record)
    assert not list((workplace / "results" / "toy" / "HeLLMPre").glob("*/*"))
    capsys.readouterr()
    for model in READ:  # runs that made the same embeddings: nothing that the numbers depend on has changed
        shutil.copytree(own / "toy" / model, workplace / "results" / "toy" / model, dirs_exist_ok=True)
    assert run.main([*words, *name_settings(OF_PRETRAINED)]) == 0
    assert "HeLLM@tiny-llama on toy, seed 2024: finished before, kept\n" in capsys.readouterr().out
    assert run.main([*words, *name_files(trained), "--output", str(own)]) == 0  # has read no file
    same = "embeddings.safetensors holds the same embeddings of SASRec as the run that this one has read"
    assert same in capsys.readouterr().out


def test_wrong_files_are_one_sentence_before_anything_is_trained(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_random(workplace / "graph.npy", 40, 4)
    few = write_random(workplace / "few.npy", 38, 4)
    np.save(workplace / "bare.npy", np.ones((40, 4)))
    said = {
        "LightGCN=graph.npy": "no run of this command reads embeddings of LightGCN; the runs read HeLLMPre and SASRec",
        "SASRec=none.npy": "--embeddings SASRec: none.npy does not exist",
        "SASRec=few.npy": "--embeddings SASRec: few.npy has no row for 2 of the 40 items of toy: 'i39', 'i40'; its own",
        "SASRec=bare.npy": "bare.npy does not say which item each of its 40 rows belongs to; write bare.tokens.txt",
        "SASRec": "--embeddings 'SASRec' is not understood; write MODEL=FILE",
        "SASRec=": "--embeddings 'SASRec=' is not understood; write MODEL=FILE",
    }
    assert few.exists()
    for value, part in said.items():
        words = list_words(tiny, "--embeddings", f"HeLLMPre={graph}", "--embeddings", value)
        assert part in fail_with_sentence(capsys, words)
    words = list_words(tiny, "--embeddings", "SASRec=graph.npy", "--embeddings", "SASRec=few.npy")
    assert "--embeddings names SASRec twice (graph.npy and few.npy)" in fail_with_sentence(capsys, words)
    words = ["--models", "Pop", "--dataset", "toy", "--embeddings", "SASRec=graph.npy"]
    sentence = fail_with_sentence(capsys, words)
    assert "no run of this command reads embeddings of SASRec; name one that does, such as HeLLM, in --mo" in sentence
    assert not list(Path("results").rglob("checkpoint"))


def test_a_dry_run_uses_the_width_of_the_file(workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for width in (4, 12):
        files = {model: write_random(workplace / f"{model}.npy", 40, width) for model in READ}
        assert run.main(list_words(tiny, "--dry-run", *name_files(files))) == 0
        out = capsys.readouterr().out
        shown.append(next(line for line in out.splitlines() if line.startswith("| item projector")))
    assert shown[0] != shown[1]
    files = {"HeLLMPre": write_random(workplace / "wide.npy", 40, 300)}
    sentence = "a graph prefix made of them has 90,000 inputs, and --dry-run prints how much memory this needs"
    assert run.main([*list_words(tiny, "--dry-run", *name_files(files), "--set", "SASRec.emb_dim=8")]) == 0
    assert sentence in capsys.readouterr().out


@pytest.mark.slow
def test_workers_of_ray_and_further_processes_get_the_embeddings_with_the_split(
    workplace: Path, tiny: Path, own: Path, trained: dict[str, Path]
) -> None:
    words = [*list_words(tiny, *name_files(trained)), "--set", "eval_block_users=7"]
    assert run.main([*words, "--output", "ray", "--ray"]) == 0
    assert_equal_runs(own / RUN, workplace / "ray" / RUN)
    no_dropout = [f"{name}_dropout" for name in ("item", "head", "prefix", "lora")]
    words += name_settings(dict.fromkeys(no_dropout, 0))
    assert run.main([*words, "--output", "one"]) == 0
    done = run_distributed(workplace, [*words, "--output", "two"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("embeddings of SASRec come from") == 1
    one, two = (read_result(workplace / name / RUN / "record.json") for name in ("one", "two"))
    assert two.device == f"2 x {one.device}"
    assert two.stages == one.stages
    for before, after in zip(one.curve, two.curve, strict=True):
        assert after["losses"] == pytest.approx(before["losses"], rel=1e-5)


def test_searches_read_files_too(workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = write_random(workplace / "graph.npy", 40, 4)
    assert tune.main(["--models", "LightGCN", "--dataset", "toy", "--embeddings", f"SASRec={graph}"]) == 2
    assert "no run of this command reads embeddings of SASRec" in capsys.readouterr().err
    assert study.main(["--models", "HeLLMPre", "--dataset", "toy", "--embeddings", f"SASRec={graph}"]) == 2
    assert "no run of this command reads embeddings of SASRec" in capsys.readouterr().err


def test_records_without_files_have_the_keys_that_they_had(own: Path) -> None:
    record = read_result(own / RUN / "record.json")
    assert record.identity is not None
    assert record.identity["embeddings"]["SASRec"].keys() == {"sha256", "run_sha256", "features", "code"}
