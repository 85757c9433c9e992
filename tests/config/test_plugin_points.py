from __future__ import annotations

from pathlib import Path

from hellm_recbole.config.plugin_points import GROUPS, MODELS, find_properties_folder, list_points
from tests.plugin_site import use_site, write_model, write_package


def test_entry_points_are_listed_with_package_and_version_but_without_ours(tmp_path: Path) -> None:
    write_model(tmp_path, "toy_plugin", "ToyModel")
    with use_site(tmp_path):
        (point,) = list_points(MODELS)
        assert (point.package, point.version, point.module) == ("toy_plugin", "1.2", "toy_plugin.registry")
        assert point.title == "toy_plugin (toy_plugin.registry:MODELS)"
    assert all(list_points(group) == () for group in GROUPS)


def test_the_innermost_properties_are_found_without_importing(tmp_path: Path) -> None:
    files = {"__init__.py": "raise RuntimeError", "inner/properties/model/A.yaml": "", "properties/model/B.yaml": ""}
    write_package(tmp_path, "toy_outer", {}, files)
    with use_site(tmp_path):
        inner = find_properties_folder("toy_outer.inner.registry")
        outer = find_properties_folder("toy_outer.registry")
        assert inner == (tmp_path / "toy_outer/inner/properties", "toy_outer/inner/properties")
        assert outer == (tmp_path / "toy_outer/properties", "toy_outer/properties")
        assert find_properties_folder("no_such_package.x") is None
        assert find_properties_folder("json") is None
