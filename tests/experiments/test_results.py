from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import OutputError, ResultError
from hellm_recbole.experiments.results import check_comparable, digest_run, find_results, read_result, write_result
from hellm_recbole.system.files import check_seal, seal
from tests.toy_records import add_run, toy_record


def edit(path: Path, keys: str, value: Any) -> None:
    """Change `a.b` of a JSON file; the value `...` removes it."""
    content = check_seal(json.loads(path.read_text()))
    *parents, last = keys.split(".")
    parent = content
    for key in parents:
        parent = parent[key]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    path.write_text(json.dumps(seal(content)))


def remove_checksum(path: Path) -> str:
    """Return the text of a result without checksum, as earlier versions wrote it, so that other faults are found."""
    return json.dumps(check_seal(json.loads(path.read_text())), indent=2)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = toy_record(modalities=("image", "text"), git_commit="abc", git_dirty=True)
    path = write_result(tmp_path / "new" / "folder", record)
    back = read_result(path)
    assert back == record
    assert back.path == path
    assert os.listdir(path.parent) == ["record.json"]


def test_keys_that_other_tools_rely_on(tmp_path: Path) -> None:
    raw = json.loads(write_result(tmp_path, toy_record()).read_text())
    assert raw["metrics"]["test"] == {"R@10": 0.5}
    assert raw["cutoffs"] == [10, 20]
    assert {"split_hash", "mask_history", "n_candidates", "status"} <= raw.keys()
    assert "path" not in raw


def test_an_integer_is_accepted_for_a_float(tmp_path: Path) -> None:
    path = write_result(tmp_path, toy_record())
    edit(path, "train_seconds", 90)
    assert isinstance(read_result(path).train_seconds, float)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("extra", 1, "key extra is unknown"),
        ("seed", ..., "key seed is missing"),
        ("seed", "2024", "key seed is '2024', it must be of type int"),
        ("seed", True, "key seed is True, it must be of type int"),
        ("counts.users", ..., "key counts.users is missing"),
        ("counts.extra", 1, "key counts.extra is unknown"),
        ("counts", [], r"key counts is \[\], it must be an object"),
        ("cutoffs", 10, "key cutoffs is 10, it must be a list"),
        ("cutoffs", ["a"], r"key cutoffs\[0\] is 'a', it must be of type int"),
        ("split_kind", "random", "key split_kind is 'random', not one of leave-one-out, given"),
        ("metrics.test", {"R@10": "x"}, "key metrics.test.R@10 is 'x', it must be of type float"),
        ("metrics.test", 3, "key metrics.test is 3, it must be an object"),
        ("peak_memory_bytes.device", 1.5, "key peak_memory_bytes.device is 1.5, it must be of type int"),
        ("schema", 2, "has schema 2, this version reads 1"),
        ("schema", ..., "has schema None"),
        ("status", "done", "key status is 'done', not one of success, failed, cancelled"),
        ("status", "failed", "status is failed, which needs a reason and no metrics"),
        ("reason", "why", "status is success, which needs metrics and no reason"),
    ],
)
def test_the_refusal_of_a_broken_result_names_file_and_key(tmp_path: Path, key: str, value: Any, said: str) -> None:
    path = write_result(tmp_path, toy_record())
    edit(path, key, value)
    with pytest.raises(ResultError, match=said) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "nonsense", '{"schema": 1, "threads": NaN}', "\udcff".encode("utf-8", "surrogateescape")]
)
def test_a_file_that_is_not_a_result_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResultError, match=r"record\.json"):
        read_result(path)


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="cannot be read"):
        read_result(tmp_path / "record.json")


def test_a_result_that_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="key seed"):
        write_result(tmp_path, toy_record(seed="2024"))
    with pytest.raises(ResultError, match="needs a reason"):
        write_result(tmp_path, toy_record(status="cancelled"))
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_result(tmp_path, toy_record())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="no space left on"):
        write_result(tmp_path, toy_record(seed=1))
    assert read_result(path).seed == 2024
    assert os.listdir(tmp_path) == ["record.json"]


def test_failed_and_cancelled_runs_have_results(tmp_path: Path) -> None:
    nothing: Any = {"valid": {}, "test": {}}
    for status in ("failed", "cancelled"):
        record = toy_record(status=status, reason="out of memory", metrics=nothing, train_seconds=None, best_epoch=None)
        assert read_result(write_result(tmp_path, record)) == record


def test_find_results_reads_one_dataset(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2], model="VBPR")
    add_run(tmp_path, [1, 2], seed=7)
    add_run(tmp_path, [1, 2], dataset="Other")
    found = find_results(tmp_path, "Toy")
    assert [(record.model, record.seed) for record in found] == [("LightGCN", 7), ("VBPR", 2024)]
    assert find_results(tmp_path, "Nothing") == []


def test_a_copied_folder_does_not_count_twice(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 2])
    path.parent.rename(path.parent.with_name("2025"))
    with pytest.raises(ResultError, match="says it is Toy/LightGCN/2024, not Toy/LightGCN/2025"):
        find_results(tmp_path, "Toy")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split_hash", "f" * 64),
        ("split_kind", "given"),
        ("mask_history", "train"),
        ("n_candidates", 999),
        ("cutoffs", (5, 10)),
    ],
)
def test_results_of_two_protocols_are_refused_together(key: str, value: Any) -> None:
    a, b = toy_record(path=Path("a/record.json")), toy_record(path=Path("b/record.json"), **{key: value})
    check_comparable([a, a])
    with pytest.raises(ResultError, match=rf"a/record\.json and b/record\.json .* {key} differ") as caught:
        check_comparable([a, a, b])
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (None, "[" * 100_000, "is not JSON"),
        (None, '{"a":' * 100_000, "is not JSON"),
        ('"train_seconds": 90.0', '"train_seconds": 1e400', "train_seconds is not a finite number"),
        ('"train_seconds": 90.0', f'"train_seconds": {"9" * 400}', "train_seconds"),
        ('"seed": 2024', f'"seed": {"9" * 5000}', "is not JSON"),
        ('"schema": 1', f'"schema": {"9" * 4000}', "has schema"),
        ('"model": "LightGCN"', f'"model": {"9" * 4000}', "key model is"),
    ],
)
def test_the_refusal_of_a_malformed_result_is_one_short_sentence(
    old: str | None, new: str, said: str, tmp_path: Path
) -> None:
    path = add_run(tmp_path, [1, 2])
    text = remove_checksum(path)
    assert old is None or old in text
    path.write_text(new if old is None else text.replace(old, new))
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700


def test_cutoffs_that_no_table_can_have_are_refused(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 2], cutoffs=(20,))
    path.write_text(remove_checksum(path).replace("    20\n  ]", "    2000000000\n  ]"))
    with pytest.raises(ResultError, match="cutoffs must be integers from 1 to 1,000,000"):
        read_result(path)


def test_a_published_result_keeps_the_digest_of_its_run(tmp_path: Path) -> None:
    run = toy_record(ranks_sha256="0" * 64)
    published: Any = {"run_sha256": digest_run(run), "settings_sha256": "1" * 64, "cut": ("settings.llm.value",)}
    result = toy_record(ranks_sha256="2" * 64, published=published)
    assert read_result(write_result(tmp_path, result)) == result
    assert digest_run(result) == digest_run(run)
    assert digest_run(toy_record(ranks_sha256="2" * 64)) != digest_run(run)


def test_only_a_model_of_all_data_says_that_it_is_not_evaluated(tmp_path: Path) -> None:
    evaluated = write_result(tmp_path / "Toy" / "LightGCN" / "2024", toy_record())
    assert "evaluated" not in json.loads(evaluated.read_text())
    whole = toy_record(evaluated=False, metrics={"valid": {}, "test": {}}, seed=1)
    path = write_result(tmp_path / "Toy" / "LightGCN" / "1", whole)
    assert read_result(path) == whole
    assert [result.seed for result in find_results(tmp_path, "Toy")] == [2024]
    for wrong in (toy_record(evaluated=False), toy_record(metrics={"valid": {}, "test": {}})):
        with pytest.raises(ResultError, match="status is success, which needs metrics and no reason"):
            write_result(tmp_path / "Toy" / "LightGCN" / "2", wrong)
