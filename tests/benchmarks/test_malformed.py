"""Malformed command lines, settings and files, drawn at random: each gives one error message, and nothing is lost.

`HELLM_MALFORMED` is the number of cases, `HELLM_MALFORMED_SEED` the random seed that they are drawn with.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import ablate, prepare, report, run, tune
from hellm_recbole.benchmarks.options.prepare import KINDS
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared
from tests.toy_records import add_run

N_CASES = int(os.environ.get("HELLM_MALFORMED", "100"))
SEED = int(os.environ.get("HELLM_MALFORMED_SEED", "7"))
HUGE = "9" * 400
VALUES = (
    ".inf", "-.inf", ".nan", "1e400", "-1", "-0.5", HUGE, "1:30", "010", "[]", "[[1]]", "{a: 1}", "text", "~", "''",
    "true", "2024-01-01", "[" * 3000, "&a [*a]", "!!python/name:os.system", "\x1b[31m", "1e23", "{[1]: 2}",
)  # fmt: skip
NUMBERS = ("epochs", "batch_size", "learning_rate", "patience", "eval_every", "emb_dim", "n_layers", "eval_block_users")
BYTES = (
    b"",
    b"\x00" * 64,
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"{",
    b'{"a": NaN}',
    b"1e400",
    b"null",
    b"[1, 2",
    b"\x80\x81",
)
Case = tuple[str, Callable[[list[str]], int], list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """A working folder with a prepared dataset and a finished run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    for model in ("LightGCN", "HeLLMPre", "HeLLMPre-without-CL"):
        add_run(tmp_path / "results", [1, 5, 900, 3], model=model)
    return tmp_path


def draw_setting(rng: random.Random) -> list[str]:
    key = rng.choice(
        (*NUMBERS, "optimizer", "valid_metric", "loggers", "NoModel.epochs", "x y", "", "épochs", "=", ".")
    )
    value = rng.choice([value for value in VALUES if key in NUMBERS or value not in ("''",)])
    return rng.choice((["--set", f"{key}={value}"], [f"--{key or 'x'}={value}"], ["--set", key], ["--set", "="]))


def draw_run(rng: random.Random, folder: Path) -> list[str]:
    """Draw options of run.py, ablate.py and tune.py, with at least one wrong."""
    bad = rng.choice(
        [
            lambda: draw_setting(rng),
            lambda: ["--threads", rng.choice(("0", "-1", HUGE, "two", "1.5"))],
            lambda: ["--device", rng.choice(("gpu", "cuda:99", "", "cpu:x", HUGE))],
            lambda: ["--preset", rng.choice(("", "quik", "../overall", "a/b", HUGE, "\x1b[1m"))],
            lambda: ["--models", rng.choice(("", ",", "LightGNC", "BPR,NoModel", "\x1b[2J", HUGE, "LightGCN/../x"))],
            lambda: ["--dataset", rng.choice(("", ",", "no-such-data", HUGE, "\x1b[2J"))],
            lambda: ["--output", str(folder / "file" / "below")],
            lambda: [
                "--models",
                "LLaRA",
                "--llm",
                rng.choice((str(folder / "nothing"), str(folder / "file"), "", "a b", HUGE)),
            ],
        ]
    )()
    models = [] if "--models" in bad else ["--models", rng.choice(("LightGCN", "HeLLMPre"))]
    dataset = [] if "--dataset" in bad else ["--dataset", "toy"]
    return [*dataset, *models, *bad]


def draw_prepare(rng: random.Random, folder: Path) -> list[str]:
    source = folder / f"source{rng.random()}"
    source.mkdir()
    kind = rng.choice(KINDS)
    for name in ("Mine.csv", "Mine.inter", "user_sequences.txt", "train.json", "Mine.parquet", "Mine_items.csv"):
        (source / name).write_bytes(rng.choice(BYTES))
    return rng.choice(
        [
            ["Mine", "--from", kind, "--source", str(source)],
            [
                "Mine",
                "--from",
                "table",
                "--source",
                str(source),
                "--columns",
                rng.choice(("user=item_id", "x=y", "user", "=")),
            ],
            ["Mine", "--from", "table", "--source", str(source), "--k-core", rng.choice(("-1", HUGE, "x", "1.5"))],
            ["toy", "--shuffle-ties", rng.choice(("-1", HUGE, "x"))],
            ["toy", "--check", "--neighbors", rng.choice(("0", "-3", "x", HUGE))],
            ["nothing", "--check"],
            ["toy", "--export", "mmrec"],
            ["toy", "--check", "--fresh"],
            ["Mine", "--from", "csv"],
            ["", "--from", "table", "--source", str(folder / "nothing")],
        ]
    )


def draw_report(rng: random.Random, folder: Path) -> list[str]:
    results = folder / f"results{rng.random()}"
    shutil.copytree(folder / "results", results)
    run_folder = results / "Toy" / "LightGCN" / "2024"
    name = rng.choice(("record.json", "ranks.npz"))
    whole = (run_folder / name).read_bytes()
    content = json.loads((run_folder / "record.json").read_text())
    key = rng.choice(sorted(content))
    wrong = json.dumps({**content, key: {"\x1b[2J": [[10**400]]}})
    damage = rng.choice([*BYTES, whole[: len(whole) // 2], wrong.encode()])
    options = ["--output", str(results), "--dataset", "Toy"]
    if rng.random() < 0.6:
        (run_folder / name).write_bytes(damage)
        return options
    return [
        *options,
        *rng.choice(
            (
                ["--cutoffs", rng.choice(("0", "-1", "", HUGE, "5,5", "a", "1.5", "2000000000"))],
                ["--metric", rng.choice(("", "R@0", "MRR", "N@2000000000", HUGE, "R@"))],
                ["--dataset", rng.choice(("", ",", "None", "../..", HUGE))],
                ["--output", rng.choice((str(folder / "file"), str(folder / "nothing")))],
                ["--protocol", "other"],
                ["--unknown", "x"],
            )
        ),
    ]


def draw_case(rng: random.Random, folder: Path) -> Case:
    name = rng.choice(("run", "run", "run", "prepare", "tune", "report", "report", "ablate"))
    if name == "prepare":
        return name, prepare.main, draw_prepare(rng, folder)
    if name == "report":
        return name, report.main, draw_report(rng, folder)
    arguments = draw_run(rng, folder)
    if name == "ablate":
        return name, ablate.main, arguments
    if name == "run":
        more = rng.choice(
            ([], [], ["--seeds", rng.choice(("", "-1", HUGE, "a", "1,,2"))], ["--export", "x"], ["--protocol", "y"])
        )
        return name, run.main, [*arguments, *more]
    more = rng.choice(
        (["--budget", "x"], ["--budget", f"trials={HUGE}x"], ["--space", "x"], ["--space", "NoModel.x=[1]"],
         ["--search", "y"], ["--resume", "--fresh"], ["--seed", "-1"], ["--only", ","])
    )  # fmt: skip
    return name, tune.main, [*arguments, *more]


def run_command(main: Callable[[list[str]], int], arguments: list[str]) -> tuple[int, str]:
    """Run a command in this process and return its exit code and stderr."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, err.getvalue()


def read_results(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*/2024/*")) if path.is_file()}


@pytest.mark.slow
def test_malformed_commands_give_one_error_message(folder: Path) -> None:
    (folder / "file").write_text("a file")
    before = read_results(folder / "results")
    rng = random.Random(SEED)
    codes: Counter[tuple[str, int]] = Counter()
    wrong = []
    for number in range(N_CASES):
        name, main, arguments = draw_case(rng, folder)
        try:
            code, err = run_command(main, arguments)
        except BaseException as error:
            code, err = -1, f"{type(error).__name__}: {error}"[:300]
        codes[name, code] += 1
        sentences = [line for line in err.splitlines() if "error: " in line]
        fine = code in (1, 2) and len(sentences) == 1 and "Traceback" not in err and "\x1b" not in err
        if not fine or "hellm-recbole-traceback" in err:
            shown = [argument[:80] for argument in arguments]
            wrong.append(f"{number} {name} {shown} -> {code}: {err[-500:]}")
        assert read_results(folder / "results") == before, (number, name, arguments)
    print(dict(codes))
    assert not wrong, "\n".join(wrong)
