from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hellm_recbole
from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks import report, run
from hellm_recbole.config.properties_files import VARIABLE
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import HellmError, ModelError, PluginError, ResultError, SettingsError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.results import read_result
from hellm_recbole.plugins import user_models
from hellm_recbole.plugins.models import describe_model
from tests.plugin_site import MODEL_SETTINGS
from tests.toy import write_prepared

CODE = """
import toy_part
from hellm_recbole.baselines.lightgcn import LightGCN, LightGCNSettings
from hellm_recbole.models.base import ModelSpec

class Mine(LightGCN):
    factor = 1

MODELS = {"Mine": ModelSpec(Mine, LightGCNSettings, "collaborative", "pairs")}
"""
QUICK = ["--dataset", "toy", "--preset", "quick", "--set", "epochs=1", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder with the model Mine; all that its use changes in this process is undone."""
    folder = (tmp_path / "own").resolve()
    (folder / "model").mkdir(parents=True)
    (folder / "toy_code.py").write_text(CODE)
    (folder / "toy_part.py").write_text("PART = 1\n")
    (folder / "model" / "Mine.yaml").write_text(f"code: toy_code.py\n{MODEL_SETTINGS}")
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    (folder / "toy_part.py").write_text("PART = None\n")
    user_models.refresh_user_models()  # the folder has changed, so its modules are forgotten


def test_a_model_of_a_file_is_registered_recorded_and_found_by_processes_that_are_started(folder: Path) -> None:
    spec = load_registry()["Mine"]
    assert spec is load_registry()["Mine"]
    assert describe_model(spec) == {"kind": "model", "name": "Mine", "package": "toy_code.py", "version": "a file"}
    config = resolve_own_run("Mine", "toy", load_registry(), "quick", [])
    assert config.resolved.values["emb_dim"] == 8
    assert "code" not in config.resolved.values
    assert config.resolved.origin["emb_dim"] == f"{folder.as_posix()}/model/Mine.yaml"
    assert {"toy_code", "toy_part", "baselines.lightgcn"} <= config.identify_code().keys()
    assert str(folder) in os.environ["PYTHONPATH"].split(os.pathsep)
    assert not (folder / "__pycache__").exists()


@pytest.mark.parametrize("name", ["toy_code.py", "toy_part.py"])
def test_an_edited_file_is_read_again_and_has_another_digest(folder: Path, name: str) -> None:
    before = load_registry()["Mine"]
    code = resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code()
    user_models.refresh_user_models()
    assert load_registry()["Mine"] is before
    (folder / name).write_text((folder / name).read_text().replace("= 1", "= 2"))
    assert load_registry()["Mine"] is before  # a command keeps the code that it has started with
    assert resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code() == code
    user_models.refresh_user_models()
    after = load_registry()["Mine"]
    edited = after.cls.factor if name == "toy_code.py" else sys.modules["toy_part"].PART
    assert edited == 2
    now = resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code()
    assert {module for module in code if now[module] != code[module]} == {name.removesuffix(".py")}


@pytest.mark.parametrize(
    ("file", "content", "error", "sentence"),
    [
        ("model/Mine.yaml", "code: 3\n", SettingsError, "code = 3 must be the name of a Python file, such as my_mod"),
        ("model/Mine.yaml", "code: ../toy_code.py\n", SettingsError, "code = '../toy_code.py' must be the name of"),
        (
            "model/Mine.yaml",
            "code: gone.py\n",
            SettingsError,
            r"code = 'gone.py', but there is no file .*gone.py; write",
        ),
        (
            "toy_code.py",
            "MODELS = {}\n",
            PluginError,
            r"toy_code.py has no MODELS with 'Mine'; add MODELS = \{'Mine': M",
        ),
        (
            "toy_code.py",
            "x = 1\ny = z\n",
            PluginError,
            r"toy_code.py cannot be imported \(NameError: .*, line 2\); corre",
        ),
        ("toy_code.py", "x = (\n", PluginError, r"toy_code.py cannot be imported \(SyntaxError: .*line 1\)"),
        ("toy_code.py", "MODELS = {'Mine': 1}\n", ModelError, "model Mine is registered as int; register a ModelSpec"),
        (
            "json.py",
            "MODELS = {}\n",
            SettingsError,
            r"own/json.py has the name of another Python module \(.*json/__init",
        ),
        (
            "model/BPR.yaml",
            "replaces: true\ncode: toy_code.py\n",
            ModelError,
            "has code, but BPR is a model already; give",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    folder: Path, file: str, content: str, error: type[HellmError], sentence: str
) -> None:
    (folder / file).write_text(content)
    if file == "json.py":
        (folder / "model" / "Mine.yaml").write_text("code: json.py\n")
    with pytest.raises(error, match=sentence) as caught:
        load_registry()
    assert "\n" not in str(caught.value)


def test_the_key_code_is_read_only_in_the_folder_of_the_user(folder: Path) -> None:
    (folder / "sweep").mkdir()
    (folder / "sweep" / "Mine.yaml").write_text("code: [1]\n")
    from hellm_recbole.config.properties_files import read_file

    assert read_file("sweep", "Mine") == {"code": [1]}
    assert "code" not in read_file("model", "Mine")


def test_commands_and_the_api_run_the_model_and_an_old_number_is_not_taken_for_one_of_new_code(
    folder: Path,
    tmp_path: Path,
    toy_dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    assert run.main(["--models", "Mine", *QUICK, "--properties", "own"]) == 0
    monkeypatch.delenv(VARIABLE)
    record = read_result(tmp_path / "results" / "toy" / "Mine" / "2024" / "record.json")
    assert record.plugins[0]["package"] == "toy_code.py"
    assert record.identity is not None
    assert "toy_code" in record.identity["code"]["modules"]
    hellm_recbole.use_properties("own")
    settings = {"epochs": 1}
    results = hellm_recbole.run(["Mine"], "toy", preset="quick", settings=settings, threads=1, device="cpu")
    assert "finished before, kept\n" in capsys.readouterr().out
    assert results["Mine"].load().config.spec.cls.factor == 1  # type: ignore[union-attr]
    (folder / "toy_code.py").write_text(CODE.replace("factor = 1", "factor = 2"))
    results = hellm_recbole.run(["Mine"], "toy", preset="quick", settings=settings, threads=1, device="cpu")
    assert "kept; its code has changed since (toy_code" in capsys.readouterr().out
    results = hellm_recbole.run(["Mine"], "toy", preset="quick", settings=settings, threads=1, device="cpu", fresh=True)
    assert results["Mine"].load().config.spec.cls.factor == 2  # type: ignore[union-attr]
    monkeypatch.delenv(VARIABLE)
    user_models.refresh_user_models()
    with pytest.raises(ResultError, match=r"Mine of .* is in the file toy_code.py of a properties folder; name the"):
        hellm_recbole.load_run("results/toy/Mine/2024")
    assert report.main(["--dataset", "toy"]) == 0
    assert "it is a file of a properties folder" in " ".join(capsys.readouterr().out.split())
    assert report.main(["--dataset", "toy", "--properties", "own"]) == 0
    assert "code of toy_code" not in capsys.readouterr().out
    with pytest.raises(SettingsError, match=r"^--properties gone is not a folder"):
        hellm_recbole.use_properties("gone")


def test_the_file_may_be_a_symbolic_link(folder: Path, tmp_path: Path) -> None:
    (folder / "toy_code.py").rename(tmp_path / "elsewhere.py")
    (folder / "toy_code.py").symlink_to(tmp_path / "elsewhere.py")
    assert load_registry()["Mine"].cls.factor == 1  # type: ignore[attr-defined]
    (tmp_path / "elsewhere.py").write_text(CODE.replace("factor = 1", "factor = 2"))
    user_models.refresh_user_models()
    assert load_registry()["Mine"].cls.factor == 2  # type: ignore[attr-defined]


def test_a_second_folder_takes_the_place_of_the_first(folder: Path, tmp_path: Path) -> None:
    hellm_recbole.use_properties(folder)
    before = resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "toy_code.py").write_text(CODE.replace("factor = 1", "factor = 2"))
    hellm_recbole.use_properties(other)
    assert load_registry()["Mine"].cls.factor == 2  # type: ignore[attr-defined]
    assert resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code() != before
    assert str(folder) not in sys.path
    assert str(folder) not in os.environ["PYTHONPATH"].split(os.pathsep)
    hellm_recbole.use_properties(folder)
    assert resolve_own_run("Mine", "toy", load_registry(), "quick", []).identify_code() == before
