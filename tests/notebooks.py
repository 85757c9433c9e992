"""Run the notebooks of the documentation from top to bottom: `python tests/notebooks.py` stores their outputs.

Each notebook runs in a kernel of its own and in an empty folder, on one thread and without a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("first-comparison", "own-data", "own-model")
LIMIT_S = 1800  # of one cell; a loaded machine needs long
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def read_notebook(name: str) -> Any:
    """Read a notebook of the documentation."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def run_notebook(notebook: Any, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a notebook in a folder; its outputs are replaced by the new ones.

    Args:
        notebook: the notebook.
        folder: working folder of the kernel.
        environment: further environment variables of the kernel.

    Raises:
        CellExecutionError: a cell failed that has no tag `raises-exception`.
    """
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        "CUDA_VISIBLE_DEVICES": "",
        **(environment or {}),
    }
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=resources)
    client.execute(env=variables)
    clean_notebook(notebook, folder)


def clean_notebook(notebook: Any, folder: Path) -> None:
    """Remove from a notebook what changes with each run or names this machine.

    Args:
        notebook: a notebook with outputs.
        folder: folder in which it ran; its path becomes the relative one.
    """
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            data = output.get("data", {})
            for holder, key in [(output, "text"), (data, "text/plain"), (data, "text/html")]:
                if key in holder:
                    text = _ESCAPES.sub("", holder[key]).replace("\r\n", "\n")
                    holder[key] = text.replace(f"{folder.resolve()}{os.sep}", "")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}


def main(names: list[str]) -> None:
    """Run notebooks, all if none are named, and store their outputs."""
    if importlib.util.find_spec("ipykernel") is None:
        sys.exit("error: a notebook needs a kernel; pip install 'hellm-recbole[notebooks]' brings it")
    for name in names or NAMES:
        print(f"running {name}", flush=True)
        notebook = read_notebook(name)
        with tempfile.TemporaryDirectory() as folder:
            run_notebook(notebook, Path(folder))
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1:])
