from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import publish, report
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.results import check_comparable, find_results
from hellm_recbole.report.groups import group_runs
from hellm_recbole.system.files import check_seal, sha256_file
from tests.toy import write_prepared
from tests.toy_published import CUTOFFS, add_random_run
from tests.toy_records import add_run, rewrite, toy_identity

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
ARRAYS = ("targets", "user_order", "rank", "rank_train", "rank_none", "history_length", "item_count")


@pytest.fixture
def finished(workplace: Path, toy_split: Split) -> Path:
    """The working folder, with the prepared toy dataset, two finished runs and a failed one."""
    add_random_run(workplace / "results", toy_split)
    add_random_run(workplace / "results", toy_split, model="SASRec", family="sequential", seed=7)
    settings = {
        "llm": {"value": f"{workplace}/tiny", "origin": f"--llm {workplace}/tiny"},
        "valid_metric": {"value": "N@10", "origin": "overall.yaml"},
    }
    add_random_run(workplace / "results", toy_split, model="HeLLM", family="llm", backbone="tiny", settings=settings)
    changes = {"split_hash": toy_split.sha256, "n_candidates": toy_split.n_items, "cutoffs": CUTOFFS}
    add_run(workplace / "results", None, dataset="toy", model="BM3", **changes)
    return workplace


def command(*options: str) -> int:
    return publish.main(["--dataset", "toy", *options])


def fail(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run a command that must fail and return its error message, one sentence."""
    capsys.readouterr()
    assert command(*options) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finished_runs_are_published_and_agree_with_the_dataset(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "toy BM3 2024: failed, left out"
    assert out[1].startswith("toy HeLLM@tiny 2024: published, ")
    assert out[1].endswith(" kB; paths cut in settings.llm.value, settings.llm.origin")
    assert out[2].startswith("toy LightGCN 2024: published, ")
    assert out[3].startswith("toy SASRec 7: published, ")
    assert out[4].endswith(" kB of published runs in results/published/toy")
    assert len(out) == 5
    assert command("--check") == 0
    agree = ["toy HeLLM@tiny 2024: agrees", "toy LightGCN 2024: agrees", "toy SASRec 7: agrees"]
    assert capsys.readouterr().out.splitlines() == agree


def test_only_three_files_of_a_run_are_published_and_none_names_machine_user_or_item(
    finished: Path, toy_split: Split
) -> None:
    run = finished / "results" / "toy" / "LightGCN" / "2024"
    for name in ("checkpoint/last.safetensors", "model/adapter/x.safetensors", "embeddings/items.txt"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("weights")
    assert command() == 0
    files = read_files(finished / "results" / "published")
    assert {Path(name).name for name in files} == {"record.json", "settings.yaml", "ranks.npz"}
    assert len(files) == 9
    names = [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 2]
    for name, content in files.items():
        for private in (str(finished), str(Path.home()), *names):
            assert private.encode() not in content, name
        if name.endswith("npz"):
            with np.load(finished / "results" / "published" / name, allow_pickle=False) as stored:
                assert {stored[key].dtype.kind for key in stored.files} == {"u"}


def test_an_equal_run_is_kept_and_another_one_is_refused(
    finished: Path, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    published = finished / "results" / "published"
    assert command() == 0
    before = read_files(published)
    times = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    assert command() == 0
    assert capsys.readouterr().out.count("published before, kept") == 3
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == times
    add_random_run(finished / "results", toy_split, epochs_run=9)
    add_random_run(finished / "results", toy_split, model="VBPR", family="multimodal")
    err = fail(capsys)
    assert "another run of LightGCN 2024" in err
    assert "publish with --fresh to replace it" in err
    assert read_files(published) == before, "nothing is written if one run is refused"
    assert command("--models", "LightGCN", "--fresh") == 0
    changed = {name for name, content in read_files(published).items() if before.get(name) != content}
    assert changed == {"toy/LightGCN/2024/record.json"}


def test_a_broken_published_run_is_replaced_only_with_fresh(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    record = finished / "results" / "published" / "toy" / "LightGCN" / "2024" / "record.json"
    record.write_text("{")
    assert "restore the file, or publish the run again" in fail(capsys)
    assert command("--fresh") == 0
    assert command("--check") == 0


@pytest.mark.parametrize(
    ("models", "labels"),
    [("SASRec", ["SASRec"]), ("HeLLM", ["HeLLM@tiny"]), ("HeLLM@tiny,LightGCN", ["HeLLM@tiny", "LightGCN"])],
)
def test_models_are_chosen_by_name_or_label(finished: Path, models: str, labels: list[str]) -> None:
    assert command("--models", models) == 0
    assert sorted(path.name for path in (finished / "results" / "published" / "toy").iterdir()) == labels


def test_a_run_that_has_no_result_yet_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished / "results" / "toy" / "GRCN" / "2024"
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text("epochs: 3\n")
    assert command("--models", "GRCN,LightGCN") == 0
    assert capsys.readouterr().out.startswith("toy GRCN 2024: not finished, left out\ntoy LightGCN 2024: published")
    assert "no run of toy in results is finished" in fail(capsys, "--models", "GRCN")
    assert not (finished / "results" / "published" / "toy" / "GRCN").exists()


def test_wrong_input_is_one_sentence(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "VBPR is no run of toy in results; there are BM3, HeLLM@tiny" in fail(capsys, "--models", "VBPR")
    assert "no run of toy in results is finished" in fail(capsys, "--models", "BM3")
    assert "no run of toy in none" in fail(capsys, "--output", "none")
    assert "no published run of toy in results/published" in fail(capsys, "--check")
    assert "is the folder of the results" in fail(capsys, "--to", "results")
    assert "is inside results/toy, the results of a dataset" in fail(capsys, "--to", "results/toy")
    assert "is inside results/toy, the results" in fail(capsys, "--to", "results/x/../toy/LightGCN/p")
    add_run(finished / "results", None, dataset="other")
    assert "is inside results/other, the results" in fail(capsys, "--to", "results/other/published")
    assert "contradict each other" in fail(capsys, "--check", "--fresh")
    assert publish.main([]) == 2
    assert "Missing option '--dataset'" in capsys.readouterr().err
    assert not (finished / "results" / "published").exists()


def test_a_dataset_that_is_not_prepared_cannot_be_checked(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    shutil.rmtree(finished / "dataset")
    assert "toy" in fail(capsys, "--check")


def test_runs_of_another_split_are_not_published_beside_others(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "SASRec") == 0
    record = finished / "results" / "toy" / "LightGCN" / "2024" / "record.json"
    rewrite(record, lambda content: content.update(split_hash="f" * 64))
    assert "split_hash differ" in fail(capsys, "--models", "LightGCN")


def test_a_run_that_disagrees_has_a_line_of_its_own(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    published = finished / "results" / "published" / "toy"
    ranks = published / "LightGCN" / "2024" / "ranks.npz"
    content = bytearray(ranks.read_bytes())
    content[len(content) // 2] ^= 1
    ranks.write_bytes(bytes(content))
    rewrite(published / "SASRec" / "7" / "record.json", lambda content: content["metrics"]["test"].update({"R@5": 0.9}))
    capsys.readouterr()
    assert command("--check") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy HeLLM@tiny 2024: agrees"
    assert lines[1].startswith("toy LightGCN 2024: ranks ")
    assert "SHA-256" in lines[1]
    assert lines[2].startswith("toy SASRec 7: test: R@5 is 0.9 in the record, and 0.")
    assert len(lines) == 3
    assert command("--check", "--models", "HeLLM") == 0


def test_a_changed_dataset_disagrees(finished: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    shutil.rmtree(finished / "dataset" / "toy")
    item = toy_dataset.item.copy()
    item[[0, 1]] = item[[1, 0]]
    write_prepared(finished / "dataset" / "toy", replace(toy_dataset, item=item))
    capsys.readouterr()
    assert command("--check") == 1
    assert capsys.readouterr().out.count("the split hash is") == 3


def test_published_runs_give_the_tables_of_the_runs(finished: Path) -> None:
    assert command() == 0
    assert report.main(["--dataset", "toy", "--output", "results"]) == 0
    before = read_files(finished / "results" / "published")
    assert report.main(["--dataset", "toy", "--from", "results/published"]) == 0
    assert read_files(finished / "results" / "published") == before, "the folder is only read"
    for name in ("table.csv", "slices.csv"):
        paths = [finished / "results" / folder / name for folder in ("toy", "report/toy")]
        lines, published_lines = (path.read_text().splitlines() for path in paths)
        assert [line for line in lines if "BM3" not in line] == published_lines, "equal to the last digit"
        assert len(published_lines) >= 4
    assert "report.html" in {path.name for path in (finished / "results" / "report" / "toy").iterdir()}


def test_git_tracks_only_published_runs_of_the_results(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    run = "results/published/Beauty/HeLLM@model.gguf/2024"
    tracked = [f"{run}/{name}" for name in ("record.json", "settings.yaml", "ranks.npz")]
    ignored = [
        *("results/Beauty/table.md", "results/Beauty/LightGCN/2024/record.json", "results/report/Beauty/table.md"),
        *(f"results/published/Beauty/{name}" for name in ("table.md", "slices.csv", "table.tex", "report.html")),
        "results/published/Beauty/figures/recall.svg",
    ]
    for name in (*tracked, *ignored):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert sorted(listed.stdout.splitlines()) == sorted([".gitignore", *tracked])


def seal_ranks(path: Path, **arrays: np.ndarray) -> None:
    """Change arrays of published ranks, and compute the digest of the file anew."""
    with np.load(path, allow_pickle=False) as stored:
        changed = {**stored, **arrays}
    np.savez(path, **changed)
    rewrite(path.with_name("record.json"), lambda content: content.update(ranks_sha256=sha256_file(path)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.array(5), np.zeros((2, 2), dtype=np.uint16)])
def test_damaged_ranks_stop_no_check_of_other_runs(
    finished: Path, value: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    published = finished / "results" / "published" / "toy"
    seal_ranks(published / "HeLLM@tiny" / "2024" / "ranks.npz", test_rank=value)
    empty = {f"{phase}_{name}": np.zeros(0, dtype=np.uint16) for phase in ("valid", "test") for name in ARRAYS}
    seal_ranks(published / "LightGCN" / "2024" / "ranks.npz", **empty)
    capsys.readouterr()
    assert command("--check") == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("toy HeLLM@tiny 2024: ")
    assert "test_rank is damaged" in lines[0]
    assert lines[1] == "toy LightGCN 2024: the ranks have no targets in valid and test"
    assert lines[2:] == ["toy SASRec 7: agrees"]
    assert captured.err == ""


def test_edited_records_disagree(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    published = finished / "results" / "published" / "toy"
    record = published / "HeLLM@tiny" / "2024" / "record.json"
    record.write_text(json.dumps(check_seal(json.loads(record.read_text()))))
    rewrite(published / "LightGCN" / "2024" / "record.json", lambda content: content.update(family="multimodal"))
    rewrite(published / "SASRec" / "7" / "record.json", lambda content: content["counts"].update(users=9))
    capsys.readouterr()
    assert command("--check") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "sha256 is missing" in lines[0]
    assert lines[1].startswith("toy LightGCN 2024: the model has family multimodal and source hellm_recbole, and coll")
    assert lines[2] == "toy SASRec 7: the count users is 9, and 60 in the dataset"
    assert len(lines) == 3


def test_a_seed_that_read_other_features_than_its_row_is_refused(
    workplace: Path, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    add_random_run(workplace / "results", toy_split, model="VBPR", identity=toy_identity("a"))
    assert command() == 0
    published = read_files(workplace / "results" / "published")
    add_random_run(workplace / "results", toy_split, model="VBPR", seed=7, identity=toy_identity("b"))
    assert "are seeds of one table row but differ in features of text" in fail(capsys)
    assert read_files(workplace / "results" / "published") == published


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="only a checkout has the published runs of this project")
def test_a_report_can_be_made_of_the_published_runs_of_this_project() -> None:
    for folder in PUBLISHED.iterdir():
        results = find_results(PUBLISHED, folder.name)
        check_comparable(results)
        assert group_runs(results)
