"""Kills and changed bytes at random places: nothing lost, nothing blocked, no other number without a word.

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

from hellm_recbole.experiments.results import read_ranks
from tests.benchmarks.test_llm_rows import arguments as llm_words

SCALE = int(os.environ.get("HELLM_STRESS", "1"))
ROOT = Path(__file__).resolve().parents[2]
COMMON = ["--dataset", "toy", "--threads", "1"]
FAST = ["--set", "epochs=6", "--set", "batch_size=64"]
MARK = "HELLM_STAGE"  # environment variable of all that the server starts
TIMES = ("train_seconds", "eval_seconds", "peak_memory_bytes", "sha256")

pytestmark = pytest.mark.slow


class Stage:
    """A server of commands and the folder that they work in."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self.folder = server, folder

    def do(self, command: str, words: list[str], **kill: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {"command": command, "words": words, "folder": str(self.folder), **kill}
        print(json.dumps(job), file=self._server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        assert "Traceback" not in answer["said"], answer["said"]
        return answer

    def list_processes(self) -> list[str]:
        """Names of the processes that commands have started and that still run, such as those of Ray."""
        found = []
        for place in (path for path in Path("/proc").iterdir() if path.name.isdecimal()):
            with suppress(OSError):
                marked = f"{MARK}={self.folder}\0".encode() in (place / "environ").read_bytes()
                if int(place.name) != self._server.pid and (marked or os.readlink(place / "cwd") == str(self.folder)):
                    found.append(f"{place.name} {(place / 'comm').read_text().strip()}")
        return [one for one in found if int(one.split()[0]) != os.getpid()]


@pytest.fixture
def stage(workplace: Path) -> Iterator[Stage]:
    with serve(workplace, {}) as there:
        yield there


@pytest.fixture
def native_stage(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One that counts the file operations of all code, also those of Ray's copying, which no Python sees."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("native") / "kill_at.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, ROOT / "tests" / "kill_at.c", "-ldl"], check=True)
    with serve(workplace, {"LD_PRELOAD": str(library)}) as there:
        yield there


@contextmanager
def serve(workplace: Path, more: dict[str, str]) -> Iterator[Stage]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: str(workplace), **more}
    command = [sys.executable, "-W", "ignore", "-m", "tests.stress"]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Stage(server, workplace)
        assert server.stdin is not None
        server.stdin.close()


def outcome(folder: Path) -> dict[str, Any]:
    """Everything below a folder but times: records, ranks and embeddings by content, other files by their bytes."""
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
        elif path.name not in ("table.md", "table.tex", "README.md"):
            found[name] = path.read_bytes()
    return found


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if ".tmp" in path.name or path.name in ("traceback.txt",)] + [
        str(path) for path in folder.rglob(".*.lock")
    ]


def run_words(model: str, tiny: Path) -> list[str]:
    if model == "LLaRA":
        return llm_words(tiny, models="LLaRA")
    exports = "test-lists" if model == "BPR" else "embeddings,test-lists"  # BPR is RecBole's
    return [*COMMON, *FAST, "--models", model, "--export", exports]


@pytest.mark.parametrize("model", ["LightGCN", "VBPR", "HeLLMPre", "SASRec", "BPR", "LLaRA"])
def test_runs_that_are_killed_end_as_undisturbed_ones(stage: Stage, tiny: Path, model: str) -> None:
    words, results, draw = run_words(model, tiny), stage.folder / "results", random.Random(model)
    whole = stage.do("run", words)
    assert whole["code"] == 0, whole["said"]
    expected = outcome(results)
    shutil.rmtree(results)
    kills = 0
    while kills < 6 * SCALE:
        at_file = draw.random() < 0.7
        kill = (
            {"kill_at": draw.randrange(1, whole["operations"] + 1)}
            if at_file
            else {"kill_after": draw.uniform(0.0, whole["seconds"])}
        )
        killed = stage.do("run", words, **kill)
        assert killed["code"] in (0, -9), killed["said"]
        kills += killed["code"] == -9
        if killed["code"] == 0 or draw.random() < 0.1:
            shutil.rmtree(results, ignore_errors=True)
    assert stage.do("run", words)["code"] == 0
    assert outcome(results) == expected
    assert leftovers(stage.folder) == []
    print(f"{model}: {kills} kills, {whole['operations']} file operations of an undisturbed run")


def found_by_search(folder: Path) -> dict[str, Any]:
    """Everything that searches leave, but times."""
    found: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}
    for name in [name for name in found if name.endswith("sweep.json")]:
        sweep = json.loads(found[name])
        trials = [{**trial, "seconds": 0} for trial in sweep["trials"]]
        found[name] = {**sweep, "trials": trials, "seconds": 0, "sha256": ""}
    return found


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() or not any(path.iterdir())]


def test_a_search_that_is_killed_ends_as_an_undisturbed_one(native_stage: Stage) -> None:
    """At operations spread over the whole search, half-written files included; killed, resumed, and killed again."""
    stage, draw, results = native_stage, random.Random("search"), native_stage.folder / "results"
    words = [*COMMON, "--models", "LightGCN", "--set", "epochs=2", "--set", "eval_every=1", "--budget", "trials=2"]
    log = stage.folder / "log"
    whole = stage.do("tune", words, log=str(log))
    assert whole["code"] == 0, whole["said"]
    expected, count, said = found_by_search(results), whole["operations"], log.read_text().splitlines()
    assert len(said) == count
    n_kills = min(4 * SCALE, count)
    for at in [1 + int((place + draw.random()) * count / n_kills) for place in range(n_kills)]:
        shutil.rmtree(results, ignore_errors=True)
        log.unlink(missing_ok=True)
        killed = stage.do("tune", words, log=str(log), kill_at=at)
        assert killed["code"] in (0, -9), killed["said"]
        last = log.read_text().splitlines()[-1]
        deadline = time.monotonic() + 30
        while stage.list_processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert stage.list_processes() == [], last
        resumed = stage.do("tune", [*words, "--resume"])
        assert resumed["code"] == 0, (last, resumed["said"])
        assert found_by_search(results) == expected, last
        assert leftovers(stage.folder) == [], last
    print(f"{n_kills} kills, {count} file operations of an undisturbed search")


def test_reports_and_datasets_that_are_killed_are_made_again(stage: Stage, tmp_path: Path) -> None:
    draw = random.Random("others")
    source = tmp_path / "source"
    source.mkdir()
    rows = [f"u{u}\ti{i}\t{t}" for u in range(30) for t, i in enumerate(draw.sample(range(20), 6))]
    (source / "own.tsv").write_text("user_id\titem_id\ttimestamp\n" + "\n".join(rows) + "\n")
    assert stage.do("run", [*COMMON, *FAST, "--models", "Pop,LightGCN"])["code"] == 0
    prepare = ["Own", "--from", "table", "--source", str(source / "own.tsv"), "--k-core", "0", "--fresh"]
    for command, words, folder in (
        ("report", ["--dataset", "toy"], stage.folder / "results"),
        ("prepare", prepare, stage.folder / "dataset"),
    ):
        whole = stage.do(command, words)
        assert whole["code"] == 0, whole["said"]
        expected = outcome(folder)
        for _ in range(4 * SCALE):
            killed = stage.do(command, words, kill_at=draw.randrange(1, whole["operations"] + 1))
            assert killed["code"] in (0, -9), killed["said"]
        assert stage.do(command, words)["code"] == 0
        assert outcome(folder) == expected
        assert leftovers(stage.folder) == []


def test_a_changed_byte_is_refused_or_harmless(stage: Stage, tiny: Path) -> None:
    """Of every file, with the runs finished or with the records gone, so that they are resumed."""
    words, draw = llm_words(tiny, models="LLaRA,LightGCN"), random.Random(7)
    assert stage.do("run", words)["code"] == 0
    kept, counts, silent = stage.folder / "kept", {"refused": 0, "harmless": 0}, []
    kept.mkdir()
    for name in ("results", "dataset"):
        shutil.copytree(stage.folder / name, kept / name)
    numbers = {
        key: value for key, value in outcome(stage.folder / "results").items() if "record" in key or "rank" in key
    }
    files = [path for path in sorted(kept.rglob("*")) if path.is_file() and path.stat().st_size]
    for path in files * SCALE:
        for name in ("results", "dataset"):
            shutil.rmtree(stage.folder / name)
            shutil.copytree(kept / name, stage.folder / name)
        there, resumed = stage.folder / path.relative_to(kept), draw.random() < 0.5
        content = bytearray(there.read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= draw.randrange(1, 256)
        there.write_bytes(content)
        if resumed:
            for record in (stage.folder / "results").rglob("record.json"):
                record.unlink()
        answer = stage.do("run", words)
        if answer["code"]:
            assert "error: " in answer["said"]
            counts["refused"] += 1
        elif {key: value for key, value in outcome(stage.folder / "results").items() if key in numbers} == numbers:
            counts["harmless"] += 1
        else:
            silent.append((str(path.relative_to(kept)), place, resumed))
    print(f"{len(files)} files: {counts}, silent {silent}")
    assert silent == []
