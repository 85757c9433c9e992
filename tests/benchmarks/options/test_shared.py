from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.shared import read_run_request, read_search_request
from hellm_recbole.config.request import Request, RunRequest, SearchRequest

Parsed = list[Request]


def read(*arguments: str, search: bool = False) -> Request | int:
    """Return the request of a command line, or the exit code if the command line is refused."""
    found: Parsed = []

    @pass_request(read_search_request if search else read_run_request)
    def body(request: Request) -> int:
        found.append(request)
        return 0

    code = run_command(body, arguments, "toy", "Read a request.", takes_settings=True)
    return found[0] if found else code


def test_the_default_request() -> None:
    assert read() == RunRequest(
        models=(),
        datasets=("ml-100k",),
        preset="paper",
        overrides=(),
        data_path=None,
        output=Path("results"),
        device="auto",
        threads=None,
        seeds=(2024,),
        tuned=False,
        ray=None,
        protocol="unified",
        exports=(),
        export_k=None,
        fresh=False,
        dry_run=False,
        jobs=None,
    )
    assert read(search=True) == SearchRequest(
        models=(),
        datasets=("ml-100k",),
        preset="paper",
        overrides=(),
        data_path=None,
        output=Path("results"),
        device="auto",
        threads=None,
        seed=2024,
        fresh=False,
        address="local",
    )


def test_all_forms_of_a_setting_are_read_in_the_same_way() -> None:
    request = read(
        *("--models", "A, B,A", "--llm", "auto", "--llm-layers", "2"),
        *("--set", "epochs=3", "--set", "A.emb_dim=8", "--B.dropout=0.5"),
    )
    assert isinstance(request, RunRequest)
    assert request.models == ("A", "B")
    assert [(entry.model, entry.key, entry.value, entry.origin) for entry in request.overrides] == [
        (None, "llm", "auto", "--llm auto"),
        (None, "llm_layers", 2, "--llm-layers 2"),
        (None, "epochs", 3, "--set epochs=3"),
        ("A", "emb_dim", 8, "--set A.emb_dim=8"),
        ("B", "dropout", 0.5, "--B.dropout=0.5"),
    ]


def test_embeddings_are_named_by_model_in_runs_and_searches() -> None:
    for search in (False, True):
        request = read("--embeddings", "HeLLMPre=a=b.npy", "--embeddings", "SASRec = c.pt", search=search)
        assert isinstance(request, Request)
        assert request.embeddings == {"HeLLMPre": Path("a=b.npy"), "SASRec": Path("c.pt")}


@pytest.mark.parametrize(
    ("arguments", "address"), [(["--ray"], "local"), (["--ray", "auto"], "auto"), (["--ray=ray://h:1"], "ray://h:1")]
)
def test_the_address_of_a_cluster_may_be_left_out(arguments: list[str], address: str) -> None:
    request = read(*arguments, "--seeds", "1,2,1", "--export", "test-lists", "--export-k", "5")
    assert isinstance(request, RunRequest)
    assert (request.ray, request.seeds, request.exports, request.export_k) == (address, (1, 2), ("test-lists",), 5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--model-s", "LightGCN"],
            "--model-s is not understood; did you mean --models? A setting is written --model-s=VALUE",
        ),
        (["--callbacks", ","], "--callbacks names nothing; give names separated by commas"),
        (["--gpu_id=0"], "--gpu_id=0: gpu_id is a key of RecBole; here, choose the device with --device cuda:N"),
        (["--epochs", "3"], "--epochs is not understood; write a setting as --set key=value"),
        (["-epochs=3"], "-epochs=3 is not understood; options begin with two dashes"),
        (["--quietly"], "--quietly is not understood; write a setting as --set key=value"),
        (["LightGCN"], "LightGCN is not understood; write a setting as --set key=value"),
        (["--models", ","], "--models names nothing; give names separated by commas"),
        (["--dataset", "../x"], "dataset '../x' is not usable as a file name"),
        (["--threads", "0"], "--threads 0 must be at least 1 and at most 1024"),
        (["--output", " "], "Invalid value for '--output': the name is empty"),
        (["--data-path", ""], "Invalid value for '--data-path': the name is empty"),
        (["--embeddings", "a.npy"], "--embeddings 'a.npy' is not understood; write MODEL=FILE, such as HeLLMPre="),
        (["--embeddings", "=a.npy"], "--embeddings '=a.npy' is not understood; write MODEL=FILE"),
        (["--embeddings", "../x=a.npy"], "--embeddings '../x' is not usable as a file name"),
        (["--embeddings", "A=a.npy", "--embeddings", "A=b.npy"], "--embeddings names A twice (a.npy and b.npy)"),
        (["--seeds", "1,-1"], "--seeds '1,-1': a seed must be at least 0"),
        (["--export-k", "5"], "--export-k is the length of exported lists; use it together with --export test-lists"),
        (["--export", "recommendations"], "--export recommendations is now called test-lists"),
    ],
)
def test_a_wrong_option_of_a_run_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "-1"], "--seeds '-1': a seed must be at least 0"),
        (["--seed", "x"], "--seeds 'x' must be integers separated by commas, such as 2024,2025"),
        (["--seeds", "1,2"], "--seeds 1,2: a search has one seed for all its trials; name one"),
        (["--resume", "--fresh"], "--resume and --fresh contradict each other; use only one of them"),
        (["--threads", "1025"], "--threads 1025 must be at least 1 and at most 1024"),
    ],
)
def test_a_wrong_option_of_a_search_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(*arguments, search=True) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1


def test_other_spellings_of_options_are_understood() -> None:
    search = read("--model", "A", "--seed", "3", "--address", "auto", "--resume", search=True)
    assert isinstance(search, SearchRequest)
    assert (search.models, search.seed, search.address) == (("A",), 3, "auto")
    request = read("--model=A", "--seed=3", "--datasets", "toy", "--stopping_step=9", "--topk=[5,10]")
    assert isinstance(request, RunRequest)
    assert (request.models, request.seeds, request.datasets) == (("A",), (3,), ("toy",))
    assert [(one.key, one.value) for one in request.overrides] == [("patience", 10), ("cutoffs", [5, 10])]
