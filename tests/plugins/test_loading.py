from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config.plugin_points import SPLITS
from hellm_recbole.errors import PluginError
from hellm_recbole.plugins.loading import convert_failures, load_point, make_record, report_unusable, select_point
from tests.plugin_site import use_site, write_package


def test_a_point_is_selected_by_name_and_loaded(tmp_path: Path) -> None:
    points = {SPLITS: {"good": "toy_load.a:Holder.value", "broken": "toy_load.b:x", "lost": "toy_load.a:gone"}}
    files = {"a.py": "class Holder:\n    value = 3\n", "b.py": "import no_such_module\n"}
    write_package(tmp_path, "toy_load", points, files)
    with use_site(tmp_path):
        point = select_point(SPLITS, "good", "--split")
        assert load_point(point) == 3
        expected = {"kind": "split", "name": "good", "package": "toy_load", "version": "1.2"}
        assert make_record("split", "good", point) == expected
        for name, problem in (("broken", "ModuleNotFoundError: No module named"), ("lost", "AttributeError: ")):
            with pytest.raises(PluginError, match=rf"^plug-in toy_load \(toy_load.*\) cannot be imported \({problem}"):
                load_point(select_point(SPLITS, name, "--split"))
        with pytest.raises(PluginError, match=r"^--split god is unknown; did you mean 'good'\?$"):
            select_point(SPLITS, "god", "--split")
    with pytest.raises(PluginError, match=r"^--split good is unknown; no installed package has entry points of"):
        select_point(SPLITS, "good", "--split")


def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    for package in ("toy_one", "toy_two"):
        write_package(tmp_path, package, {SPLITS: {"same": f"{package}:x"}}, {})
    with use_site(tmp_path), pytest.raises(PluginError, match="toy_one and toy_two have an entry point of this name"):
        select_point(SPLITS, "same", "--split")


def test_what_cannot_be_used_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        report_unusable("plug-in toy is broken")
    assert capsys.readouterr().err == "warning: plug-in toy is broken\n"


def test_only_a_stop_of_the_command_passes() -> None:
    for error in (SystemExit(0), GeneratorExit(), ValueError("0")):
        with pytest.raises(PluginError, match=rf"^x failed \({type(error).__name__}"), convert_failures("x failed"):
            raise error
    with pytest.raises(KeyboardInterrupt), convert_failures("x failed"):
        raise KeyboardInterrupt


def test_a_module_that_ends_the_process_is_one_sentence(tmp_path: Path) -> None:
    write_package(tmp_path, "toy_exit", {SPLITS: {"exit": "toy_exit.a:x"}}, {"a.py": "import sys\nsys.exit(0)\n"})
    with use_site(tmp_path), pytest.raises(PluginError, match=r"cannot be imported \(SystemExit: 0\)$"):
        load_point(select_point(SPLITS, "exit", "--split"))
