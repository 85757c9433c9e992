"""Kills and changed bytes at random positions: nothing is lost or blocked, and no number changes silently.

`HELLM_STRESS=10` makes the tests ten times as long.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.experiments.ranks_file import read_ranks
from tests.benchmarks.test_llm_rows import arguments as llm_words

SCALE = int(os.environ.get("HELLM_STRESS", "1"))
ROOT = Path(__file__).resolve().parents[2]
COMMON = ["--dataset", "toy", "--threads", "1"]
FAST = ["--set", "epochs=6", "--set", "batch_size=64"]
MARK = "HELLM_STRESS_SERVER"  # environment variable of all processes that the server starts
TIMES = ("train_seconds", "eval_seconds", "peak_memory_bytes", "sha256")

pytestmark = pytest.mark.slow


class CommandServer:
    """A process that runs commands in a folder."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self.folder = server, folder

    def run_command(self, command: str, words: list[str], **kill: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {"command": command, "words": words, "folder": str(self.folder), **kill}
        print(json.dumps(job), file=self._server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        assert "Traceback" not in answer["said"], answer["said"]
        return answer

    def list_processes(self) -> list[str]:
        """List the processes that commands have started and that still run, such as those of Ray."""
        found = []
        for process in (path for path in Path("/proc").iterdir() if path.name.isdecimal()):
            with suppress(OSError):
                marked = f"{MARK}={self.folder}\0".encode() in (process / "environ").read_bytes()
                if int(process.name) != self._server.pid and (
                    marked or os.readlink(process / "cwd") == str(self.folder)
                ):
                    found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
        return [one for one in found if int(one.split()[0]) != os.getpid()]


@pytest.fixture
def server(workplace: Path) -> Iterator[CommandServer]:
    with serve(workplace, {}) as running:
        yield running


@pytest.fixture
def native_server(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """Start a server that counts the file operations of all code, also of native code such as Ray's copying."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("native") / "kill_at.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, ROOT / "tests" / "kill_at.c", "-ldl"], check=True)
    with serve(workplace, {"LD_PRELOAD": str(library)}) as running:
        yield running


@contextmanager
def serve(workplace: Path, more: dict[str, str]) -> Iterator[CommandServer]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: str(workplace), **more}
    command = [sys.executable, "-W", "ignore", "-m", "tests.stress"]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield CommandServer(process, workplace)
        assert process.stdin is not None
        process.stdin.close()


def read_files(folder: Path) -> dict[str, Any]:
    """Read everything below a folder except times: records and ranks by content, other files as bytes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if (
            path.is_dir()
            or "checkpoint/" in name
            or "tensorboard/" in name
            or path.suffix in (".svg", ".png", ".html", ".parquet", ".csv")
        ):
            continue
        if path.name == "record.json":
            record = json.loads(path.read_text())
            found[name] = {key: value for key, value in record.items() if key not in TIMES}
            found[name]["curve"] = [{**entry, "seconds": 0} for entry in record["curve"]]
        elif path.name == "ranks.npz":
            phases = read_ranks(path)
            found[name] = {name: [array.tolist() for array in vars(phase).values()] for name, phase in phases.items()}
        elif path.name not in ("table.md", "table.tex", "README.md", "test-openings.jsonl"):  # tables count openings
            found[name] = path.read_bytes()
    return found


def list_leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if ".tmp" in path.name or path.name in ("traceback.txt",)] + [
        str(path) for path in folder.rglob(".*.lock")
    ]


def make_words(model: str, tiny: Path) -> list[str]:
    if model == "LLaRA":
        return llm_words(tiny, models="LLaRA")
    exports = "test-lists" if model.startswith("RecBole-") else "embeddings,test-lists"
    return [*COMMON, *FAST, "--models", model, "--export", exports]


@pytest.mark.parametrize("model", ["LightGCN", "VBPR", "HeLLMPre", "SASRec", "RecBole-BPR", "LLaRA"])
def test_killed_runs_end_with_the_results_of_undisturbed_ones(server: CommandServer, tiny: Path, model: str) -> None:
    words, results, draw = make_words(model, tiny), server.folder / "results", random.Random(model)
    whole = server.run_command("run", words)
    assert whole["code"] == 0, whole["said"]
    expected = read_files(results)
    shutil.rmtree(results)
    kills = 0
    while kills < 6 * SCALE:
        at_file = draw.random() < 0.7
        kill = (
            {"kill_at": draw.randrange(1, whole["operations"] + 1)}
            if at_file
            else {"kill_after": draw.uniform(0.0, whole["seconds"])}
        )
        killed = server.run_command("run", words, **kill)
        assert killed["code"] in (0, -9), killed["said"]
        kills += killed["code"] == -9
        if killed["code"] == 0 or draw.random() < 0.1:
            shutil.rmtree(results, ignore_errors=True)
    assert server.run_command("run", words)["code"] == 0
    assert read_files(results) == expected
    assert list_leftovers(server.folder) == []
    print(f"{model}: {kills} kills, {whole['operations']} file operations of an undisturbed run")


def read_search_files(folder: Path) -> dict[str, Any]:
    """Read everything that searches write, except times."""
    found: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in list_files(folder)}
    for name in [name for name in found if name.endswith("sweep.json")]:
        sweep = json.loads(found[name])
        trials = [{**trial, "seconds": 0} for trial in sweep["trials"]]
        found[name] = {**sweep, "trials": trials, "seconds": 0, "sha256": ""}
    return found


def list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() or not any(path.iterdir())]


def test_a_killed_search_ends_with_the_result_of_an_undisturbed_one(native_server: CommandServer) -> None:
    """The search is killed at operations spread over its whole duration, also during writes, and resumed."""
    server, draw, results = native_server, random.Random("search"), native_server.folder / "results"
    words = [*COMMON, "--models", "LightGCN", "--set", "epochs=2", "--set", "eval_every=1", "--budget", "trials=2"]
    log = server.folder / "log"
    whole = server.run_command("tune", words, log=str(log))
    assert whole["code"] == 0, whole["said"]
    expected, count, said = read_search_files(results), whole["operations"], log.read_text().splitlines()
    assert len(said) == count
    n_kills = min(4 * SCALE, count)
    for operation in [1 + int((part + draw.random()) * count / n_kills) for part in range(n_kills)]:
        shutil.rmtree(results, ignore_errors=True)
        log.unlink(missing_ok=True)
        killed = server.run_command("tune", words, log=str(log), kill_at=operation)
        assert killed["code"] in (0, -9), killed["said"]
        last = log.read_text().splitlines()[-1]
        deadline = time.monotonic() + 30
        while server.list_processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert server.list_processes() == [], last
        resumed = server.run_command("tune", words)
        assert resumed["code"] == 0, (last, resumed["said"])
        assert read_search_files(results) == expected, last
        assert list_leftovers(server.folder) == [], last
    print(f"{n_kills} kills, {count} file operations of an undisturbed search")


def test_killed_reports_and_preparations_can_be_repeated(server: CommandServer, tmp_path: Path) -> None:
    draw = random.Random("others")
    source = tmp_path / "source"
    source.mkdir()
    lines = [f"u{u}\ti{i}\t{t}" for u in range(30) for t, i in enumerate(draw.sample(range(20), 6))]
    (source / "own.tsv").write_text("user_id\titem_id\ttimestamp\n" + "\n".join(lines) + "\n")
    assert server.run_command("run", [*COMMON, *FAST, "--models", "Pop,LightGCN"])["code"] == 0
    prepare = ["Own", "--from", "table", "--source", str(source / "own.tsv"), "--k-core", "0", "--fresh"]
    for command, words, folder in (
        ("report", ["--dataset", "toy"], server.folder / "results"),
        ("prepare", prepare, server.folder / "dataset"),
    ):
        whole = server.run_command(command, words)
        assert whole["code"] == 0, whole["said"]
        expected = read_files(folder)
        for _ in range(4 * SCALE):
            killed = server.run_command(command, words, kill_at=draw.randrange(1, whole["operations"] + 1))
            assert killed["code"] in (0, -9), killed["said"]
        assert server.run_command(command, words)["code"] == 0
        assert read_files(folder) == expected
        assert list_leftovers(server.folder) == []


def test_a_changed_byte_is_refused_or_harmless(server: CommandServer, tiny: Path) -> None:
    """One byte of every file is changed. The runs are finished, or their records are deleted so that they resume."""
    words, draw = llm_words(tiny, models="LLaRA,LightGCN"), random.Random(7)
    assert server.run_command("run", words)["code"] == 0
    backup, counts, silent = server.folder / "kept", {"refused": 0, "harmless": 0}, []
    backup.mkdir()
    for name in ("results", "dataset"):
        shutil.copytree(server.folder / name, backup / name)
    numbers = {
        key: value for key, value in read_files(server.folder / "results").items() if "record" in key or "rank" in key
    }
    files = [path for path in sorted(backup.rglob("*")) if path.is_file() and path.stat().st_size]
    for path in files * SCALE:
        for name in ("results", "dataset"):
            shutil.rmtree(server.folder / name)
            shutil.copytree(backup / name, server.folder / name)
        target, resumed = server.folder / path.relative_to(backup), draw.random() < 0.5
        content = bytearray(target.read_bytes())
        position = draw.randrange(len(content))
        content[position] ^= draw.randrange(1, 256)
        target.write_bytes(content)
        if resumed:
            for record in (server.folder / "results").rglob("record.json"):
                record.unlink()
        answer = server.run_command("run", words)
        if answer["code"]:
            assert "error: " in answer["said"]
            counts["refused"] += 1
        elif {key: value for key, value in read_files(server.folder / "results").items() if key in numbers} == numbers:
            counts["harmless"] += 1
        else:
            silent.append((str(path.relative_to(backup)), position, resumed))
    print(f"{len(files)} files: {counts}, silent {silent}")
    assert silent == []
