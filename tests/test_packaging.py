"""Tests of the wheel: its content, and that its command runs in any folder."""

from __future__ import annotations

import email
import os
import re
import site
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import hellm_recbole

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENT_NAME = re.compile(r"^[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from the checkout with the installed build tools, without network."""
    pytest.importorskip("hatchling")
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def normalize_name(name: str) -> str:
    """Normalize the name of a Python package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_contains_the_packages_and_every_settings_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    settings = {path.relative_to(ROOT).as_posix() for path in (ROOT / "properties").rglob("*.yaml")}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hellm_recbole").rglob("*.py")}
    for folder in ("baselines", "benchmarks"):
        modules |= {f"hellm_recbole/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.py")}
    assert "properties/overall.yaml" in settings
    assert names >= {f"hellm_recbole/{path}" for path in settings}
    assert names >= {*modules, "hellm_recbole/report/page.html.jinja"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hellm_recbole"}


def test_the_wheel_declares_its_version_licence_and_commands(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    about = f"hellm_recbole-{hellm_recbole.__version__}.dist-info"
    metadata = email.message_from_bytes(archive.read(f"{about}/METADATA"))
    assert metadata["Version"] == hellm_recbole.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{about}/licenses/LICENSE" in archive.namelist()
    points = archive.read(f"{about}/entry_points.txt").decode()
    assert "hellm-recbole = hellm_recbole.benchmarks.cli:main" in points
    assert "[hellm_recbole.models]\nbaselines = hellm_recbole.baselines.registry:REGISTRY" in points


def test_recbole_is_not_a_dependency_because_its_metadata_requires_an_old_ray() -> None:
    required = {REQUIREMENT_NAME.match(text)[0] for text in PROJECT["project"]["dependencies"]}  # type: ignore[index]
    assert "recbole" not in required
    assert PROJECT["dependency-groups"]["recbole"] == ["recbole==1.2.1"]


def test_every_direct_dependency_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {normalize_name(line.split("==")[0]) for line in lines if not line.startswith("#")}
    groups = [text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)]
    extras = [text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]
    required = [*PROJECT["project"]["dependencies"], *groups, *extras]
    assert len(required) > 30
    names = {normalize_name(REQUIREMENT_NAME.match(text)[0]) for text in required}  # type: ignore[index]
    assert names - tested == {"hellm-recbole"}, "the extra `all` names the other extras of this project"


def test_the_extra_all_names_all_others_but_the_one_that_needs_cuda() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (line,) = extras["all"]
    named = line.removeprefix("hellm-recbole[").removesuffix("]").split(",")
    assert {*named, "all", "quantization"} == {*extras}


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """The links of the checkout become files, and the wheel that is built from them is complete, too."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, "--sdist", str(ROOT)], check=True, capture_output=True, text=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        stream.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    subprocess.run([*build, "--wheel", str(source)], check=True, capture_output=True, text=True)
    (rebuilt,) = tmp_path.glob("*.whl")
    contents = [
        {info.filename: info.CRC for info in zipfile.ZipFile(path).infolist() if not info.filename.endswith("RECORD")}
        for path in (wheel, rebuilt)
    ]
    assert contents[0] == contents[1]


def test_packages_of_others_with_our_folders_names_change_nothing(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    for name in ("baselines", "benchmarks", "properties"):
        (tmp_path / "site" / name).mkdir()
        (tmp_path / "site" / name / "__init__.py").write_text("raise SystemExit('the package of somebody else')\n")
    script = (
        "import hellm_recbole, sys\n"
        "from hellm_recbole.benchmarks.cli import main\n"
        "code = main(['run', '--list'])\n"
        "print(hellm_recbole.__file__, code, [n for n in ('baselines', 'benchmarks') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'site' / 'hellm_recbole' / '__init__.py'} 0 []"
    assert "LightGCN" in done.stdout


@pytest.mark.slow
def test_an_installed_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    """Install the wheel into an empty environment that sees our dependencies but not our checkout."""
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # Python searches a path from a .pth file but does not read .pth files there, so the editable install is ignored.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    working_folder = tmp_path / "working_folder"
    working_folder.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HELLM"))}
        return subprocess.run(
            arguments, cwd=working_folder, env=environment, capture_output=True, text=True, check=False
        )

    properties = run(
        str(python),
        "-c",
        "import hellm_recbole.benchmarks, hellm_recbole.config.yaml_files as y; print(y.find_properties())",
    )
    assert properties.stdout.strip() == str(packages / "hellm_recbole" / "properties"), properties.stderr
    command = str(home / "bin" / "hellm-recbole")
    listed = run(command, "run", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "LightGCN" in listed.stdout
    assert "Beauty" in listed.stdout
    arguments = ["run", "--models", "LightGCN", "--dataset", "ml-100k", "--preset", "quick", "--set", "epochs=1"]
    result = run(command, *arguments)
    assert result.returncode == 0, result.stderr
    assert (working_folder / "results" / "ml-100k" / "LightGCN" / "2024" / "record.json").is_file()
    assert "LightGCN" in result.stdout
