"""The notebooks of the documentation run from top to bottom, and their stored outputs are those of today's code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import FOLDER, NAMES, read_notebook, run_notebook

pytest.importorskip("ipykernel", reason="notebooks need the extra notebooks")

LONGER = sorted({*NAMES} - {"first-comparison"})  # notebooks that take more than half a minute
LARGEST = 200_000  # bytes of a notebook with its outputs
MACHINE = re.compile(r"(?<![\w.:/])/(?:tmp|home|root|work|usr|opt|Users|private|var|mnt)/|[A-Z]:\\\\|site-packages")
FIND_RECBOLE = 'importlib.util.find_spec("recbole")'


def list_headings(notebook: Any) -> list[list[str]]:
    """List what each cell shows: the kind of each output, and the names of columns and rows of tables."""
    found = []
    for cell in notebook.cells:
        shown = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown.append(f"{output['output_type']} {output.get('name', '')} {sorted(data)}")
            shown += re.findall(r"<th[^>]*>([^<]*)</th>", data.get("text/html", ""))
        found.append(shown)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_complete_small_and_name_no_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert MACHINE.search(text) is None
    assert "Warning: " not in text
    notebook = read_notebook(name)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        failed = [output for output in cell.outputs if output.output_type == "error"]
        assert bool(failed) == ("raises-exception" in cell.metadata.get("tags", []))
        assert [output.text for output in cell.outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name: str) -> None:
    text = "".join(cell.source for cell in read_notebook(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if "://" not in link and not (FOLDER / link).is_file()] == []


def test_there_are_no_other_notebooks() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", ["first-comparison", *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)])
def test_a_notebook_runs_without_recbole(name: str, tmp_path: Path) -> None:
    notebook = read_notebook(name)
    for cell in notebook.cells:
        cell.source = re.sub(r'epochs": \d+', 'epochs": 2', cell.source.replace(FIND_RECBOLE, "False"))
    run_notebook(notebook, tmp_path)
    assert not (tmp_path / "dataset" / "ml-100k").exists()
    assert (tmp_path / "dataset" / "synthetic-shop").is_dir()
    assert (tmp_path / "results").is_dir()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="MovieLens-100K comes with RecBole")
@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_have_the_tables_of_today(name: str, tmp_path: Path) -> None:
    stored, notebook = read_notebook(name), read_notebook(name)
    run_notebook(notebook, tmp_path)
    assert list_headings(notebook) == list_headings(stored)
