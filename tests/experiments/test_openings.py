"""Openings of the test part: what counts, what is written, and the sentence of the caption."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import report, run
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.openings import OPENINGS_FILE, count_opening, describe_openings, read_openings
from hellm_recbole.report.frame import read_frame
from hellm_recbole.system.files import sha256_file
from tests.toy_records import add_run, toy_record


def write_run(folder: Path, content: bytes = b"ranks") -> Path:
    run_folder = folder / "Toy" / "SASRec" / "2024"
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / "settings.yaml").write_text("dropout: 0.5\n")
    (run_folder / "ranks.npz").write_bytes(content)
    return run_folder


def test_an_opening_says_what_was_run(tmp_path: Path) -> None:
    with count_opening(tmp_path / "Toy" / "SASRec" / "2024", "5" * 64):
        folder = write_run(tmp_path)
    (opening,) = read_openings(tmp_path / "Toy")
    assert (opening.model, opening.seed, opening.split_sha256) == ("SASRec", 2024, "5" * 64)
    assert opening.config_sha256 == sha256_file(folder / "settings.yaml")
    assert opening.ranks_sha256 == sha256_file(folder / "ranks.npz")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", opening.time)
    assert (opening.git_commit is None) == (opening.git_dirty is None)


def test_only_new_ranks_are_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with count_opening(folder, "5" * 64):
        pass  # failed before it ranked anything: the ranks are those of an earlier run
    assert not (tmp_path / "Toy" / OPENINGS_FILE).exists()

    def stop_after_ranking() -> None:
        with count_opening(folder, "5" * 64):
            write_run(tmp_path, b"other ranks")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_ranking()
    assert len(read_openings(tmp_path / "Toy")) == 1


def test_a_broken_line_is_refused(tmp_path: Path) -> None:
    with count_opening(tmp_path / "Toy" / "SASRec" / "2024", "5" * 64):
        write_run(tmp_path)
    path = tmp_path / "Toy" / OPENINGS_FILE
    entry = json.loads(path.read_text())
    path.write_text(path.read_text() + json.dumps({**entry, "seed": "x"}) + "\n")
    with pytest.raises(ResultError, match=rf"{OPENINGS_FILE}, line 2: .*seed.*; restore the file, or remove this line"):
        read_openings(tmp_path / "Toy")


def test_the_sentence_says_which_runs_were_not_counted(tmp_path: Path) -> None:
    assert describe_openings((), [toy_record()]) is None
    with count_opening(tmp_path / "Toy" / "SASRec" / "2024", "5" * 64):
        folder = write_run(tmp_path)
    openings = read_openings(tmp_path / "Toy")
    counted = toy_record(ranks_sha256=sha256_file(folder / "ranks.npz"))
    assert describe_openings(openings, [counted]) == "Test part opened 1 time in this folder."
    failed = toy_record(status="failed", ranks_sha256=None)
    sentence = describe_openings(openings * 3, [counted, toy_record(), failed])
    assert sentence == (
        "Test part opened 3 times in this folder; 1 run of this table is not among them, from before the counting or "
        "from elsewhere."
    )


@pytest.mark.slow
def test_the_caption_has_the_sentence_only_with_the_file(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 30])
    add_run(tmp_path, [1, 5, 30], model="VBPR")
    assert report.main(["--dataset", "Toy", "--output", str(tmp_path)]) == 0
    before = (tmp_path / "Toy" / "table.md").read_text()
    with count_opening(tmp_path / "Toy" / "SASRec" / "2024", "5" * 64):
        write_run(tmp_path)
    (tmp_path / "Toy" / "SASRec" / "2024" / "ranks.npz").unlink()
    assert len(read_frame(tmp_path, "Toy").openings) == 1
    assert report.main(["--dataset", "Toy", "--output", str(tmp_path)]) == 0
    after = (tmp_path / "Toy" / "table.md").read_text()
    added = "Test part opened 1 time in this folder; 2 runs of this table are not among them, "
    assert added in after
    assert re.sub(rf" {added}[^.]*\.", "", after) == before
    for ending in ("tex", "csv"):
        assert ("opened 1 time" in (tmp_path / "Toy" / f"table.{ending}").read_text()) == (ending == "tex")
    assert added in (tmp_path / "Toy" / "report.html").read_text()


def test_runs_are_counted_and_fresh_keeps_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--models", "Pop,ItemKNN", "--dataset", "synthetic-shop", "--output", "out"]

    def count() -> list[str]:
        return [opening.model for opening in read_openings(tmp_path / "out" / "synthetic-shop")]

    assert run.main(command) == 0
    assert count() == ["Pop", "ItemKNN"]
    assert "Test part opened 2 times in this folder." in capsys.readouterr().out
    assert run.main(command) == 0  # both are finished and are kept
    assert count() == ["Pop", "ItemKNN"]
    assert run.main([*command[:1], "Pop", *command[2:], "--fresh"]) == 0
    assert count() == ["Pop", "ItemKNN", "Pop"]
    assert "Test part opened 3 times in this folder." in capsys.readouterr().out
