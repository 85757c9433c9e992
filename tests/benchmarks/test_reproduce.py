"""Experiments of the paper on toy data, from the command line to the files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.benchmarks import reproduce, run
from hellm_recbole.benchmarks.tasks import reproduction_studies
from hellm_recbole.config.request import SearchRequest
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.experiments.earlier_search import write_request
from hellm_recbole.experiments.results import read_result
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SearchResult, write_search
from hellm_recbole.experiments.tuner import choose_points
from tests.toy import write_prepared
from tests.toy_records import rewrite, toy_search, toy_trial

QUICK = ["--dataset", "toy", "--set", "epochs=2", "--set", "batch_size=64", "--threads", "1"]
VARIANTS = ["HeLLMPre", *(f"HeLLMPre-without-{part}" for part in ("U2U", "I2I", "CL"))]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_ablation_is_run_once_and_made_again_of_what_is_there(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--models", "HeLLMPre-without-CL", *QUICK]) == 0
    capsys.readouterr()
    assert reproduce.main(["table3", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "plan: 4 runs; 1 finished, 3 to run; expected time in all unknown" in out
    assert "toy has no item texts, so the 7 rows of language models are left out" in out
    assert "The paper has no numbers for toy." in out
    assert out.count("plan: ") == 1
    assert out.count("written to ") == 1
    assert "best (bold)" not in out  # neither the tables of run.py
    assert "readings" not in out  # nor notes about rows that are left out
    assert "HeLLM-without-any-prefix" not in out
    results = workplace / "results" / "toy"
    assert sorted(path.name for path in results.iterdir() if (path / "2024").is_dir()) == sorted(VARIANTS)
    table = read_table(results / "reproduce" / "table3.csv")
    assert [line["run"] for line in table] == VARIANTS
    for line in table:
        record = read_result(results / line["run"] / "2024" / "record.json")
        if record.mask_history == "train":
            assert float(line["R@20"]) == pytest.approx(record.metrics["test"]["R@20"])
    written = {path.name: path.read_bytes() for path in (results / "reproduce").iterdir()}
    assert set(written) == {"table3.md", "table3.csv"}
    assert {"table.md", "ablation.md"} <= {path.name for path in results.iterdir()}
    for name in written:
        (results / "reproduce" / name).unlink()
    assert reproduce.main(["table3", *QUICK, "--only-finished"]) == 0
    assert "plan: " not in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (results / "reproduce").iterdir()} == written


@pytest.mark.slow
def test_all_rows_of_an_ablation_with_a_language_model(
    workplace: Path, tiny: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ("", *(f"item {number}" for number in range(1, toy_dataset.n_items + 1)))
    shutil.rmtree(workplace / "dataset" / "toy")
    write_prepared(workplace / "dataset" / "toy", replace(toy_dataset, item_text=texts, paper="Beauty"))
    small = [f"--set={name}" for name in ("emb_dim=8", "prefix_hidden=8", "micro_batch_size=16")]
    command = ["table3", *QUICK, *small, "--llm", str(tiny)]
    assert reproduce.main([*command, "--plan"]) == 0
    out = capsys.readouterr().out
    assert "SASRec, seed 2024 (its embeddings are read)" in out
    assert "plan: 12 runs; 0 finished, 12 to run" in out
    assert reproduce.main(command) == 0
    table = {line["run"]: line for line in read_table(workplace / "results" / "toy" / "reproduce" / "table3.csv")}
    assert len(table) == 11
    for part, paper in (("U2U", 0.0736), ("I2I", 0.0719), ("CL", 0.0774)):
        first, second = table[f"HeLLM-without-{part}@tiny-llama"], table[f"HeLLMPre-without-{part}"]
        assert first["R@20_paper"] == second["R@20_paper"] == str(paper)  # both readings of the same row
        assert float(first["R@20_paper_change_percent"]) == pytest.approx(100 * (paper / 0.1021 - 1))
        assert float(second["R@20_paper_change_percent"]) == pytest.approx(100 * (paper / 0.0820 - 1))
        whole = float(table["HeLLM@tiny-llama"]["R@20"])
        assert float(first["R@20_change_percent"]) == pytest.approx(100 * (float(first["R@20"]) / whole - 1))
    out = " ".join(capsys.readouterr().out.split())
    assert "its LLM rows read LLaMA-2-7B" in out
    assert "no item texts" not in out
    assert "Both readings of w/o-U2U, w/o-I2I and w/o-CL are here" in out
    assert "HeLLM-without-any-prefix, which is not here" in out


def test_the_plan_and_the_table_say_the_same_of_a_stopped_run(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--models", "HeLLMPre", *QUICK]) == 0
    (workplace / "results" / "toy" / VARIANTS[1] / "2024" / "checkpoint").mkdir(parents=True)
    capsys.readouterr()
    assert reproduce.main(["table3", *QUICK, "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "stopped before it finished" in next(line for line in plan.splitlines() if line.startswith(VARIANTS[1]))
    assert "a finished run is kept if its settings and inputs have not changed" in plan
    assert "a stopped run is resumed if nothing that it depends on has changed" in plan
    assert reproduce.main(["table3", *QUICK, "--only-finished"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Missing, not run yet: {VARIANTS[2]}, {VARIANTS[3]}." in shown
    assert f"Stopped before they finished: {VARIANTS[1]}." in shown


def test_the_plan_runs_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["table1", *QUICK, "--plan", "--seeds", "1,2"]) == 0
    out = capsys.readouterr().out
    assert "plan: 24 runs; 0 finished, 24 to run" in out  # twelve rows need no language model
    assert "LightGCN, seed 2" in out
    assert reproduce.main(["figure3", *QUICK, "--plan"]) == 0
    assert "plan: 4 studies; 0 finished, 4 to run" in capsys.readouterr().out
    assert not (workplace / "results").exists()


def test_a_failed_run_does_not_stop_the_others_and_stands_in_the_table(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--set", "HeLLMPre-without-I2I.learning_rate=1.0e+30"]
    assert reproduce.main(["table3", *QUICK, *wrong]) == 1
    shown = capsys.readouterr()
    table = {line["run"]: line for line in read_table(workplace / "results" / "toy" / "reproduce" / "table3.csv")}
    assert table["HeLLMPre-without-I2I"]["problem"].startswith("failed: ")
    assert table["HeLLMPre-without-I2I"]["R@20"] == ""
    assert all(table[name]["R@20"] for name in VARIANTS if name != "HeLLMPre-without-I2I")
    assert "HeLLMPre-without-I2I failed: " in shown.out
    assert "Traceback" not in shown.err
    assert reproduce.main(["table3", *QUICK, *wrong, "--only-finished"]) == 0


def test_missing_runs_stand_in_the_table_of_what_is_there(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--models", "HeLLMPre", *QUICK]) == 0
    assert reproduce.main(["table3", *QUICK, "--only-finished"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Missing, not run yet: HeLLMPre-without-U2U, HeLLMPre-without-I2I, HeLLMPre-without-CL." in out
    rewrite(workplace / "dataset" / "toy" / "dataset.json", lambda content: content.update(paper="Beauty"))
    rewrite(
        workplace / "results" / "toy" / "HeLLMPre" / "2024" / "record.json",
        lambda content: content.update(paper="Beauty"),
    )
    assert reproduce.main(["table3", *QUICK, "--only-finished"]) == 0
    first, *others = read_table(workplace / "results" / "toy" / "reproduce" / "table3.csv")
    assert first["R@20_paper"] == "0.082"
    assert [line["R@20_paper"] for line in others] == ["0.0736", "0.0719", "0.0774"]


def test_the_statistics_need_no_training(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(workplace / "dataset" / "toy" / "dataset.json", lambda content: content.update(paper="Toys"))
    assert reproduce.main(["table2", "--plan"]) == 0
    assert not (workplace / "results").exists()
    assert reproduce.main(["table2"]) == 0  # of all prepared datasets
    (line,) = read_table(workplace / "results" / "reproduce" / "table2.csv")
    assert (line["dataset"], line["users"], line["paper_interactions"]) == ("toy", "60", "148185")
    assert int(line["interactions"]) - int(line["interactions_train_and_test"]) == 60
    assert "leave the validation items out" in capsys.readouterr().out
    assert [path.name for path in (workplace / "results").iterdir()] == ["reproduce"]


def pretend_to_search(tasks: Sequence[SearchTask], request: SearchRequest) -> Iterator[SearchResult]:
    """Finish searches without training and without Ray: the metrics of a trial follow from its number."""
    for task in tasks:
        trials = [toy_trial(n, 0.01 * n, values=point) for n, point in enumerate(choose_points(task), start=1)]
        asked = task.describe_request()
        result = toy_search(trials, **{key: value for key, value in asked.items() if key != "points"})
        folder = task.locate(request.output)
        folder.mkdir(parents=True)
        write_request(folder, asked)
        write_search(folder, result)
        yield result


def test_a_figure_is_drawn_of_its_studies(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduction_studies, "run_searches", pretend_to_search)
    rewrite(workplace / "dataset" / "toy" / "dataset.json", lambda content: content.update(paper="Beauty"))
    command = ["figure3", *QUICK, "--studies", "l2"]
    assert reproduce.main(command) == 0
    folder = workplace / "results" / "toy" / "reproduce"
    names = ["figure3-l2.csv", "figure3-l2.pdf", "figure3-l2.png", "figure3-l2.svg", "figure3.md"]
    assert sorted(path.name for path in folder.iterdir()) == names
    lines = read_table(folder / "figure3-l2.csv")
    assert [line["l2_weight"] for line in lines] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert {line["l2_weight_best_in_paper"] for line in lines} == {"0.0001"}
    caption = (folder / "figure3.md").read_text()
    assert "l2\\_weight 0.0001" in caption or "l2_weight 0.0001" in caption
    assert "no setting is chosen on the test part" in caption
    drawn = (folder / "figure3-l2.svg").read_bytes()
    (folder / "figure3-l2.svg").unlink()
    capsys.readouterr()
    assert reproduce.main(command) == 0
    out = capsys.readouterr().out
    assert "plan: 1 study; 1 finished, 0 to run" in out
    assert "finished before, kept" in out
    assert (folder / "figure3-l2.svg").read_bytes() == drawn
    assert reproduce.main(["figure3", *QUICK, "--only-finished"]) == 0
    assert "width        missing: it has not been run" in capsys.readouterr().out
    assert reproduce.main(["figure3", *QUICK, "--set", "emb_dim=8"]) == 2  # before any other study is run
    assert "choose another --output" in capsys.readouterr().err
    assert len(list(folder.glob("*.csv"))) == 1


def test_the_origin_and_a_failed_trial_of_figure_4(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduction_studies, "run_searches", pretend_to_search)
    assert reproduce.main(["figure4", *QUICK]) == 0
    assert "plan: 1 study; 0 finished, 1 to run" in capsys.readouterr().out
    lines = read_table(workplace / "results" / "toy" / "reproduce" / "figure4-contrast.csv")
    assert len(lines) == 26
    assert (lines[-1]["user_contrast_weight"], lines[-1]["item_contrast_weight"]) == ("0.0", "0.0")
    caption = (workplace / "results" / "toy" / "reproduce" / "figure4.md").read_text()
    assert "both hypergraphs stay" in caption
    assert "The paper has no figure of toy." in caption

    def fail_the_origin(content: dict[str, Any]) -> None:
        content["trials"][-1].update(valid={}, status="failed", reason="the loss is NaN")

    rewrite(workplace / "results" / "toy" / "sweeps" / "HeLLMPre" / "study-contrast" / "sweep.json", fail_the_origin)
    assert reproduce.main(["figure4", *QUICK]) == 1
    out = capsys.readouterr().out
    assert "user_contrast_weight 0, item_contrast_weight 0: no metric (the loss is NaN)" in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["tabel1"], "unknown experiment 'tabel1'; did you mean 'table1'?"),
        ([], "Missing argument 'EXPERIMENT'"),
        (["table3", "--dataset", "Toyz"], "unknown dataset 'Toyz'; did you mean 'toy'?"),
        (["table3", "--studies", "width"], "--studies chooses studies of a figure, and table3 has none"),
        (["figure3", "--dataset", "toy", "--studies", "widht"], "figure3 has no study 'widht'; did you mean 'width'?"),
        (["figure4", "--dataset", "toy", "--studies", "width"], "figure4 has no study 'width'; it has contrast"),
        (["figure3", "--dataset", "toy", "--seeds", "1,2"], "a study has one seed, but --seeds names 2"),
        (["table3", "--dataset", "toy", "--only-finished"], "has no run of table3 with preset paper"),
        (["figure3", "--dataset", "toy", "--only-finished"], "no finished study of figure3"),
        (["table3", "--dataset", "toy", "--plan", "--only-finished"], "give one of them"),
        (["table3", "--dataset", "toy", "--llm-layers", "2"], "toy has no item texts, so no row of table3 there reads"),
        (
            ["table1", "--dataset", "toy", "--set", "HeLLM.epochs=6", "--plan"],
            "no row of table1 there reads this setting",
        ),
        (["table3", "--dataset", "toy", "--set", "emb_dimm=8"], "emb_dimm"),
        (["table3", "--dataset", "toy", "--set", "emb_dimm=8", "--only-finished"], "emb_dimm"),
    ],
)
def test_bad_input_is_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert reproduce.main(arguments) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err


def test_several_processes_are_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert reproduce.main(["table3", *QUICK]) == 2
    assert "hellm-recbole reproduce runs in one process" in capsys.readouterr().err
