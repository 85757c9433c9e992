from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY, load_registry
from hellm_recbole.config.plugin_points import MODELS
from hellm_recbole.config.properties_files import VARIABLE
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.plugins.models import describe_model
from tests.plugin_site import use_site, write_model, write_package


def test_models_of_packages_are_added_and_named(tmp_path: Path) -> None:
    write_model(tmp_path, "toy_added", "ToyAdded")
    with use_site(tmp_path):
        registry = load_registry()
        assert [*registry] == [*REGISTRY, "ToyAdded"]
        config = resolve_own_run("ToyAdded-flat", "toy", registry, "quick", [])
        assert config.resolved.values["n_layers"] == 0
        expected = {"kind": "model", "name": "ToyAdded", "package": "toy_added", "version": "1.2"}
        assert describe_model(registry["ToyAdded"]) == expected
        assert describe_model(registry["VBPR"]) is None


def test_a_name_that_is_taken_is_refused_in_one_sentence(tmp_path: Path) -> None:
    write_model(tmp_path / "a", "toy_taken", "VBPR", settings=None)
    with (
        use_site(tmp_path / "a"),
        pytest.raises(
            ModelError, match=r"^plug-in toy_taken \(toy_taken.registry:MODELS\) registers the model VBPR, which this"
        ),
    ):
        load_registry()
    for package in ("toy_first", "toy_second"):
        write_model(tmp_path / "b", package, "ToyTwice", settings=None if package == "toy_second" else "emb_dim: 8\n")
    with (
        use_site(tmp_path / "b"),
        pytest.raises(ModelError, match=r"^model ToyTwice is registered by toy_first .* and "),
    ):
        load_registry()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import no_such_module\n", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("MODELS = [1]\n", "is of type list, not a dict from name to ModelSpec"),
        ("MODELS = {'A': 1}\n", "model A is registered as int; register a ModelSpec"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, problem: str
) -> None:
    write_package(tmp_path, "toy_broken", {MODELS: {"x": "toy_broken.registry:MODELS"}}, {"registry.py": code})
    write_model(tmp_path, "toy_fine", "ToyFine")
    with use_site(tmp_path):
        assert [*load_registry()] == [*REGISTRY, "ToyFine"]
        assert [*load_registry()] == [*REGISTRY, "ToyFine"]
    err = capsys.readouterr().err
    assert problem in err
    assert err.count("\n") == 1
    assert err.endswith("its models are left out\n")


def test_a_model_without_settings_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path, "toy_bare", "ToyBare", settings=None)
    with use_site(tmp_path):
        assert "ToyBare" not in load_registry()
    assert "has no settings file for its model ToyBare; add properties/model/ToyBare.yaml" in capsys.readouterr().err


def test_a_file_of_the_user_makes_a_model_of_another_ones_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / "model" / "Shallow.yaml"
    path.parent.mkdir()
    path.write_text("inherits: LightGCN\noverrides: {n_layers: 1}\nvariants: {flat: {n_layers: 0}}\n")
    registry = load_registry()
    assert registry["Shallow"] == REGISTRY["LightGCN"]
    config = resolve_own_run("Shallow-flat", "toy", registry, "quick", [])
    assert config.resolved.values["n_layers"] == 0
    assert config.resolved.origin["n_layers"] == f"{path.resolve().as_posix()}, variants: flat"
    path.write_text("inherits: LightGNC\n")
    with pytest.raises(SettingsError, match=r"Shallow.yaml: inherits = 'LightGNC' is not a model"):
        load_registry()
