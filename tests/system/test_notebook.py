from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hellm_recbole.system.notebook import is_notebook
from tests.notebooks import run_notebook

pytest.importorskip("ipykernel", reason="notebooks need the extra notebooks")

CELL = """
from hellm_recbole.system.work_bar import WorkBar
import time
with WorkBar("encoding", 3, "texts") as bar:
    for _ in range(3):
        time.sleep(0.25)
        bar.update()
"""
ERROR = "from hellm_recbole.errors import DataError\nraise DataError('the first line\\nis wrong')"


def test_a_test_a_script_and_a_terminal_are_no_notebook() -> None:
    assert not is_notebook()
    code = "import ipykernel; from hellm_recbole.system.notebook import is_notebook; print(is_notebook())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_in_a_kernel_a_bar_is_one_output_and_an_error_one_sentence(tmp_path: Path) -> None:
    error = nbformat.v4.new_code_cell(ERROR, metadata={"tags": ["raises-exception"]})  # type: ignore[no-untyped-call]
    cells = [nbformat.v4.new_code_cell(CELL), error]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    run_notebook(notebook, tmp_path)
    (shown,) = notebook.cells[0].outputs  # neither lines on stderr nor a state of each update
    assert {*shown["data"]} == {"text/plain"}
    assert shown["data"]["text/plain"].splitlines()[0].startswith("encoding ")
    assert shown["data"]["text/plain"].count("3 of 3 texts") == 1
    (failed,) = notebook.cells[1].outputs
    assert failed["traceback"] == ["DataError: the first line is wrong"]


@pytest.mark.parametrize("name", ["ipywidgets", "IPython"])
def test_nothing_of_a_notebook_is_loaded_by_a_command(name: str) -> None:
    shown = f"print({name!r} in sys.modules)"
    code = f"import sys, hellm_recbole.api; from hellm_recbole.system.work_bar import start_live; start_live(); {shown}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
