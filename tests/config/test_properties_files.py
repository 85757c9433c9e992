from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config.model_layers import RunName, list_presets, merge_model_layers
from hellm_recbole.config.properties_files import (
    VARIABLE,
    find_by_origin,
    find_file,
    list_names,
    locate_file,
    read_file,
    use_folder,
)
from hellm_recbole.config.search_space import list_searched_keys
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.data.known_datasets import list_datasets, list_kinds
from hellm_recbole.errors import SettingsError
from hellm_recbole.identity.settings_files import find_value
from tests.plugin_site import use_site, write_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, empty."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return (tmp_path / "own").resolve()


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def test_presets_datasets_spaces_and_studies_of_the_user_are_found(folder: Path) -> None:
    write(folder, "preset/mine.yaml", "overall: {epochs: 7}\n")
    write(folder, "dataset/Shop.yaml", "kind: table\npaper: null\n")
    write(folder, "sweep/GRU4Rec.yaml", "learning_rate: [0.1]\n")
    assert "mine" in list_presets()
    assert "Shop" in list_datasets()
    assert list_kinds("Shop") == ["table"]
    assert list_searched_keys("GRU4Rec") == ["learning_rate"]
    resolved = merge_model_layers(RunName("LightGCN", "LightGCN", None), "toy", "mine", [], ["epochs"])
    assert resolved.values["epochs"] == 7
    assert resolved.origin["epochs"] == f"{folder.as_posix()}/preset/mine.yaml"


def test_a_file_of_a_known_name_must_say_that_it_replaces(folder: Path) -> None:
    path = write(folder, "preset/quick.yaml", "overall: {epochs: 7}\n")
    ours = find_properties() / "preset" / "quick.yaml"
    with pytest.raises(SettingsError) as caught:
        read_file("preset", "quick")
    assert str(caught.value) == (
        f"{path} has the same name as {ours}; rename it, or write `replaces: true` into it, so that it is used instead"
    )
    path.write_text("replaces: true\noverall: {epochs: 7}\n")
    assert read_file("preset", "quick") == {"overall": {"epochs": 7}}
    path.write_text("replaces: maybe\n")
    with pytest.raises(SettingsError, match="has the same name as"):
        read_file("preset", "quick")
    alone = write(folder, "preset/mine.yaml", "replaces: true\n")
    with pytest.raises(SettingsError, match=r"mine.yaml: replaces: true, but there is no other preset/mine.yaml"):
        find_file("preset", "mine")
    alone.write_text("replaces: 3\n")
    with pytest.raises(SettingsError, match="replaces must be true or false"):
        read_file("preset", "mine")


def test_a_wrong_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(SettingsError, match=rf"^--properties {tmp_path / 'gone'} is not a folder; name one with"):
        use_folder(tmp_path / "gone")
    write(tmp_path, "overall.yaml", "epochs: 1\n")
    with pytest.raises(SettingsError, match=r"^--properties: .*overall.yaml would not be read; settings files "):
        use_folder(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match=rf"^\${VARIABLE} .*gone is not a folder"):
        list_names("model")


def test_the_folder_of_an_option_is_found_by_processes_that_the_command_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    write(tmp_path, "preset/of-an-option.yaml", "overall: {}\n")
    monkeypatch.chdir(tmp_path.parent)
    use_folder(Path(tmp_path.name))
    monkeypatch.chdir("/")
    assert "of-an-option" in list_presets()


def test_current_values_are_found_by_origin(folder: Path) -> None:
    write(folder, "preset/changing.yaml", "overall: {epochs: 7}\nmodels: {LightGCN: {n_layers: 2}}\n")
    origin = f"{folder.as_posix()}/preset/changing.yaml"
    assert find_value(origin, "epochs", "LightGCN") == (7,)
    assert find_value(origin, "n_layers", "LightGCN") == (2,)
    assert find_value("preset/quick.yaml", "epochs", "LightGCN") == (10,)
    assert find_value(f"{folder.as_posix()}/preset/gone.yaml", "epochs", "LightGCN") is None
    assert find_by_origin("../etc/passwd") is None


def test_the_properties_of_a_package_are_found_and_named(tmp_path: Path) -> None:
    write_model(tmp_path, "toy_named", "ToyNamed")
    with use_site(tmp_path):
        assert list_variants("ToyNamed") == ["ToyNamed-flat"]
        resolved = merge_model_layers(RunName("ToyNamed-flat", "ToyNamed", "flat"), "toy", "paper", [], [])
        assert resolved.origin["emb_dim"] == "toy_named/properties/model/ToyNamed.yaml"
        assert resolved.origin["n_layers"] == "toy_named/properties/model/ToyNamed.yaml, variants: flat"
        assert locate_file("model", "ToyNamed") == tmp_path / "toy_named/properties/model/ToyNamed.yaml"
    assert find_file("model", "ToyNamed") is None


def test_a_package_cannot_replace_a_file_of_ours(tmp_path: Path) -> None:
    write_model(tmp_path, "toy_shadow", "LightGCN", settings="replaces: true\n")
    with use_site(tmp_path), pytest.raises(SettingsError, match=r"toy_shadow/.*has the same name as .*; rename it$"):
        find_file("model", "LightGCN")
