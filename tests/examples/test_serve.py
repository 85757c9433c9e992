from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.dataset import Dataset
from tests.serving.small_results import run_small

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "serve.py"


def ask(port: int, **values: Any) -> Any:
    """Ask the service for a list; an error of the service is returned as its status and its message."""
    body = json.dumps(values).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/recommend", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["detail"]


def test_a_run_is_served(tmp_path: Path, toy_dataset: Dataset) -> None:
    pytest.importorskip("fastapi", reason="the example needs fastapi and uvicorn")
    pytest.importorskip("uvicorn", reason="the example needs fastapi and uvicorn")
    results = run_small(tmp_path, toy_dataset, "SASRec")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(SCRIPT), "results/toy/SASRec/2024", str(port)]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            shown = []
            while "Uvicorn running" not in (line := service.stderr.readline()):
                shown.append(line)
                assert service.poll() is None, "".join(shown)
            time.sleep(0.1)
            found = ask(port, items=["i1", "i2"], k=3)
            expected = results["SASRec"].load().recommend(histories=[["i1", "i2"]], k=3)
            assert [row["item_id"] for row in found] == expected["item_id"].tolist()
            assert [row["rank"] for row in found] == [1, 2, 3]
            assert ask(port, items=["x"]) == (422, "history 0: toy has no items 'x'; leave them out")
        finally:
            service.terminate()
        assert service.wait(timeout=60) in (0, -15)
