from __future__ import annotations

from pathlib import Path

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.reproduce import read_reproduce_request
from hellm_recbole.config.request import RunRequest


def read(*arguments: str) -> RunRequest | int:
    """Return the request of a command line, or the exit code if the command line is refused."""
    found: list[RunRequest] = []

    @pass_request(read_reproduce_request)
    def body(request: RunRequest) -> int:
        found.append(request)
        return 0

    code = run_command(body, arguments, "toy", "Read a request.", takes_settings=True)
    return found[0] if found else code


def test_the_default_request_names_no_dataset() -> None:
    assert read() == RunRequest(
        models=(), datasets=(), preset="paper", overrides=(), data_path=None, output=Path("results"), device="auto",
        threads=None, seeds=(2024,), tuned=False, ray=None, protocol="paper", exports=(), export_k=None, fresh=False,
        dry_run=False,
        jobs=None,
    )  # fmt: skip


def test_options_reach_the_request() -> None:
    request = read(
        *("--dataset", "Beauty,Toys", "--seeds", "1,2", "--set", "HeLLM.epochs=6", "--llm-layers", "2", "--ray"),
        *("--threads", "1", "--preset", "quick", "--fresh", "--output", "x", "--emb_dim=8"),
    )
    assert isinstance(request, RunRequest)
    assert (request.datasets, request.seeds, request.ray, request.threads) == (("Beauty", "Toys"), (1, 2), "local", 1)
    assert (request.preset, request.fresh, request.output) == ("quick", True, Path("x"))
    given = {(one.model, one.key): one.value for one in request.overrides}
    assert given == {(None, "llm_layers"): 2, ("HeLLM", "epochs"): 6, (None, "emb_dim"): 8}


def test_wrong_values_are_refused() -> None:
    assert read("--seeds", "x") == 2
    assert read("--dataset", "") == 2
    assert read("--models", "HeLLM") == 2  # the experiment names its models
