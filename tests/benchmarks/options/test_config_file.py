from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.shared import read_run_request, read_search_request
from hellm_recbole.config.request import Request, RunRequest, SearchRequest

FILE = """
models: [SASRec, VBPR]
datasets: toy
seeds: [1, 2]
preset: quick
output: elsewhere
ray: true
tuned: true
llm: auto
threads: 2
topk: [5, 10]
embeddings: {HeLLMPre: a.npy}
search: {budget: {trials: 3}, method: optuna, space: {SASRec.dropout: [0.1, 0.2]}}
settings:
  epochs: 3
  stopping_step: 9
  metrics: [NDCG]
  SASRec: {dropout: 0.5, max_history: 7}
  VBPR.l2_weight: 0.01
"""


def read(path: Path, *arguments: str, search: bool = False) -> Request | int:
    found: list[Request] = []

    def body(request: Request) -> int:
        found.append(request)
        return 0

    reader: Any = read_search_request if search else read_run_request
    code = run_command(pass_request(reader)(body), ["--config", str(path), *arguments], "toy", "", takes_settings=True)
    return found[0] if found else code


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("exp.yaml").write_text(FILE)
    return Path("exp.yaml")


def test_a_file_gives_the_request_of_a_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = read(file)
    assert isinstance(request, RunRequest)
    assert (request.models, request.datasets, request.seeds) == (("SASRec", "VBPR"), ("toy",), (1, 2))
    assert (request.preset, request.output, request.ray, request.tuned) == ("quick", Path("elsewhere"), "local", True)
    assert (request.threads, request.embeddings) == (2, {"HeLLMPre": Path("a.npy")})
    assert {(one.model, one.key): one.value for one in request.overrides} == {
        (None, "llm"): "auto",
        (None, "cutoffs"): [5, 10],
        (None, "epochs"): 3,
        (None, "patience"): 10,
        ("SASRec", "dropout"): 0.5,
        ("SASRec", "max_history"): 7,
        ("VBPR", "l2_weight"): 0.01,
    }
    assert {one.origin for one in request.overrides} == {"--config exp.yaml"}
    assert capsys.readouterr().err == "exp.yaml: not read by toy: budget, search, space\n"


def test_the_command_line_wins(file: Path) -> None:
    arguments = ("--models", "SASRec", "--seeds=5", "--output", "here", "--set", "epochs=4", "--SASRec.dropout=0.1")
    request = read(file, *arguments)
    assert isinstance(request, RunRequest)
    assert (request.models, request.seeds, request.output) == (("SASRec",), (5,), Path("here"))
    last = {(one.model, one.key): (one.value, one.origin) for one in request.overrides}
    assert last[None, "epochs"] == (4, "--set epochs=4")
    assert last["SASRec", "dropout"] == (0.1, "--SASRec.dropout=0.1")
    assert ("VBPR", "l2_weight") not in last  # the file names VBPR, and this command does not run it


def test_a_file_gives_the_request_of_a_search(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = read(file, "--seeds", "3", search=True)
    assert isinstance(request, SearchRequest)
    assert (request.models, request.seed, request.address) == (("SASRec", "VBPR"), 3, "local")
    assert "exp.yaml: not read by toy: tuned, " in capsys.readouterr().err
    assert read(file, search=True) == 2
    assert "a search has one seed for all its trials; name one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("modles: SASRec", "unknown key 'modles'; did you mean 'models'? (settings of models stand in settings)"),
        ("dropout: 0.5", "unknown key 'dropout'; keys are "),
        ("search: {bugdet: trials=3}", "unknown key 'bugdet' in search; did you mean 'budget'?"),
        ("search: {budget: trials=3}\nbudget: trials=4", "budget stands at the top and in search; give it once"),
        ("seeds: {a: 1}", "seeds = {'a': 1} must be a text, a number, or a list of these"),
        ("models: 3", "models = 3 must be a list of names, such as [LightGCN, SASRec]"),
        ("models: [[a]]", "models = [['a']] must be a list of names, such as [LightGCN, SASRec]"),
        ("seeds: [[1]]", "seeds = [1] must be a text, a number, or a list of these"),
        ("tuned: 3", "tuned = 3 must be true or false"),
        ("settings: [1]", "settings = [1] must have lines `key: value` or `MODEL: {key: value}`"),
        ("llm: [a]", "llm = ['a'] must be a text, a number, or a list of these"),
        ("settings: {seed: 3}", "--config exp.yaml: seed is a key of RecBole; here, give random seeds with --seeds"),
        ("config_files: a.yaml", "config_files is a key of RecBole; here, name one YAML file with --config FILE"),
        ("models: A\nmodels: B", "settings file exp.yaml line 2: key 'models' occurs twice"),
        ("properties: gone", "--properties gone is not a folder"),
        ("seeds: x", "--seeds 'x' must be integers separated by commas"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    file: Path, capsys: pytest.CaptureFixture[str], content: str, sentence: str
) -> None:
    file.write_text(content)
    assert read(file) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path / "gone.yaml") == 2
    assert "gone.yaml does not exist; name a YAML file" in capsys.readouterr().err
    assert read(tmp_path) == 2
    assert f"--config {tmp_path} is a folder; name a YAML file" in capsys.readouterr().err


def test_an_empty_file_changes_nothing(file: Path) -> None:
    file.write_text("models:\n")
    request = read(file)
    assert isinstance(request, RunRequest)
    assert (request.models, request.overrides) == ((), ())
