"""Ids of rows: what they depend on, where they are shown, and how they are found again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.published import cut_result
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report import number_ids
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.number_ids import find_number, identify_number, list_run_parts
from hellm_recbole.report.table_request import TableRequest
from tests.report.toy_tables import build_ranks, by_model, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run, toy_identity, toy_record

ID = re.compile("LOO-[0-9a-f]{6}")


def name(*runs: RunResult, mask: Any = "seen", cutoffs: tuple[int, ...] = (10, 20)) -> str:
    number = identify_number(runs, mask, cutoffs)
    assert number is not None
    return number.name


def change_setting(key: str, value: Any) -> RunResult:
    record = toy_record()
    return replace(record, settings={**record.settings, key: {"value": value, "origin": "overall.yaml"}})


LANGUAGE_MODEL = {"weights_sha256": "w", "files_sha256": "f", "dtype": "float32", "origin": None}
CHANGES = {
    "split": toy_record(split_hash="f" * 64),
    "kind of split": toy_record(split_kind="given"),
    "filter": toy_record(filter={"k_core": 0, "dropped": 3}),
    "candidates": toy_record(n_candidates=999),
    "model": toy_record(model="VBPR"),
    "setting": change_setting("emb_dim", 32),
    "seed": toy_record(seed=2025),
    "features": toy_record(identity=toy_identity("f" * 64)),
    "texts": toy_record(identity=toy_identity(item_texts={"sha256": "t", "columns": ("title",)})),
    "language model": toy_record(identity=toy_identity(language_model=LANGUAGE_MODEL)),
    "code": toy_record(identity=toy_identity(code={"sha256": "1", "modules": {"a.b": "1"}})),
    "unknown": toy_record(identity=None),
}


def test_the_id_depends_on_everything_that_the_number_depends_on() -> None:
    names = {key: name(record) for key, record in CHANGES.items()}
    names |= {"as it is": name(toy_record()), "mask": name(toy_record(), mask="none")}
    names |= {"K": name(toy_record(), cutoffs=(1, 10)), "seeds": name(toy_record(), toy_record(seed=1))}
    assert len(set(names.values())) == len(names)
    assert names["kind of split"].startswith("GIVEN-")


def test_the_id_does_not_depend_on_what_changes_no_number() -> None:
    same = [
        toy_record(preset="quick"),
        toy_record(device="cuda", threads=9, train_seconds=1.0, git_commit="abc"),
        toy_record(metrics={"valid": {"R@10": 0.1}, "test": {"R@10": 0.1}}),
        change_setting("eval_block_users", 7),
        toy_record(dataset="Renamed"),
    ]
    assert {name(record) for record in same} == {name(toy_record())}
    assert name(toy_record(seed=1), toy_record()) == name(toy_record(), toy_record(seed=1))


def test_a_path_of_the_machine_does_not_change_the_id() -> None:
    record = change_setting("llm", "/home/ada/models/tiny")
    assert (
        list_run_parts(record)
        == list_run_parts(change_setting("llm", "/mnt/tiny"))
        == list_run_parts(cut_result(record))
    )


def test_what_is_unknown_is_said() -> None:
    parts = list_run_parts(toy_record(identity=None, stages={"HeLLMPre": "e"}, backbone="tiny"))
    unknown = {key for key, value in parts.items() if value == "unknown"}
    assert unknown == {"features", "language model", "embeddings", "code"}
    assert parts["embeddings of HeLLMPre"] == "e"
    read = {"sha256": "e", "run_sha256": None, "features": None, "code": None}
    parts = list_run_parts(toy_record(identity=toy_identity(embeddings={"HeLLMPre": read})))
    assert {key for key, value in parts.items() if value == "unknown"} == {
        "run of HeLLMPre, features",
        "run of HeLLMPre, code",
    }


def test_rows_of_other_systems_depend_on_their_files() -> None:
    def make(digest: str) -> RunResult:
        files: Any = {"test": {"file": "run.trec", "file_sha256": digest}}
        return toy_record(source="external", identity=None, seed=0, external={"seed": None, "files": files})

    assert name(make("a" * 64)) != name(make("b" * 64))
    parts = list_run_parts(make("a" * 64))
    assert (parts["file of the phase test"], parts["seed"], parts["code"]) == ("a" * 64, "unknown", "unknown")


def test_ids_are_in_the_csv_file_and_elsewhere_by_option(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    folder = tmp_path / "Toy"
    assert not ID.search(write_reports(tmp_path, "Toy", "unified"))
    ids = {model: row["id"] for model, row in read_csv(folder / "table.csv").items()}
    assert ids.pop("BM3") == ""  # it failed
    assert len(set(ids.values())) == 3
    assert not any(ID.search((folder / f"table.{ending}").read_text()) for ending in ("md", "tex"))
    shown = write_reports(tmp_path, "Toy", "unified", TableRequest(ids=True))
    for text in (shown, *((folder / f"table.{ending}").read_text() for ending in ("md", "tex", "csv"))):
        assert set(ID.findall(text)) == set(ids.values())
    assert by_model(make_table(tmp_path))["VBPR"].number_id == ids["VBPR"]
    assert by_model(make_table(tmp_path, "paper"))["VBPR"].number_id != ids["VBPR"]


def test_an_id_is_found_again_under_its_mask_and_with_its_seeds(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    for protocol, mask in (("unified", "seen"), ("paper", "train")):
        row = by_model(make_table(tmp_path, protocol))["LightGCN"]
        (number,) = find_number(str(row.number_id), [tmp_path / "missing", tmp_path])
        assert (number.mask, [run.seed for run in number.runs]) == (mask, [2024, 2025])
        assert number.folder == tmp_path / "Toy" / "LightGCN"
    (number,) = find_number(name(toy_record(seed=2025)).lower(), [tmp_path])  # of a table before the other seed
    assert [run.seed for run in number.runs] == [2025]


def test_other_cutoffs_have_another_id(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    at = str(by_model(make_table(tmp_path, cutoffs=[50, 1]))["VBPR"].number_id)
    with pytest.raises(ResultError, match=rf"no number in .* has the id {at}; .* needs the same --cutoffs here"):
        find_number(at, [tmp_path])
    (number,) = find_number(at, [tmp_path], [1, 50])
    assert (number.runs[0].model, number.cutoffs) == ("VBPR", (1, 50))


def test_a_row_of_many_seeds_is_found_as_a_whole_and_by_one_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_ids, "_MOST_SEEDS", 2)
    runs = [toy_record(seed=seed) for seed in (1, 2, 3)]
    for seed in (1, 2, 3):
        add_run(tmp_path, build_ranks(5, 1), seed=seed)
    for chosen in (runs, runs[2:]):
        assert len(find_number(name(*chosen), [tmp_path])[0].runs) == len(chosen)
    with pytest.raises(ResultError, match="no number"):
        find_number(name(*runs[:2]), [tmp_path])


def test_the_same_number_in_two_places(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        add_run(tmp_path / folder, build_ranks(5, 1))
    found = find_number(name(toy_record()), [tmp_path / "a", tmp_path / "b"])
    assert [number.folder for number in found] == [tmp_path / "a/Toy/LightGCN", tmp_path / "b/Toy/LightGCN"]


def test_an_id_of_two_different_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_runs(tmp_path)
    real = number_ids.digest_number
    monkeypatch.setattr(number_ids, "digest_number", lambda shared, runs: "7f3a91" + real(shared, runs)[6:])
    digest = identify_number([toy_record()], "seen", (10, 20)).digest  # type: ignore[union-attr]
    with pytest.raises(
        ResultError, match=r"LOO-7f3a91 is the id of \d+ numbers; name one of them: LOO-7f3a91[0-9a-f]{6} in "
    ):
        find_number("LOO-7f3a91", [tmp_path])
    (number,) = find_number(f"LOO-{digest[:12]}", [tmp_path])
    assert (number.runs[0].model, number.mask) == ("LightGCN", "seen")
    with pytest.raises(ResultError, match="no number"):
        find_number(f"GIVEN-{digest[:12]}", [tmp_path])
    with pytest.raises(SettingsError, match="is not the id of a number"):
        find_number("LightGCN", [tmp_path])


def test_published_runs_keep_their_ids() -> None:
    # A change of the scheme would make the ids that somebody has quoted unknown.
    folder = Path(__file__).parents[2] / "results" / "published"
    (number,) = find_number("LOO-b99dfa", [folder])
    assert (number.runs[0].model, number.mask, number.cutoffs) == ("SASRec", "seen", (5, 10, 20))
