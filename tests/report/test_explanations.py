"""Explanations of numbers: all parts in words, and differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report.explanations import compare_numbers, explain_number
from hellm_recbole.report.number_ids import Number, identify_number
from tests.toy_records import toy_identity, toy_record

LANGUAGE_MODEL = {"weights_sha256": "w" * 64, "files_sha256": "f" * 64, "dtype": "float32", "origin": None}
CODE = {"sha256": "c" * 64, "modules": {"hellm_recbole.gone": "1"}}


def make_number(*runs: RunResult, mask: str = "seen") -> Number:
    placed = [_place(run) for run in runs]
    number = identify_number(placed, mask, (10, 20))  # type: ignore[arg-type]
    assert number is not None
    return number


def _place(run: RunResult) -> RunResult:
    return replace(run, path=Path("results") / run.dataset / run.label / str(run.seed) / "record.json")


def test_all_parts_are_explained() -> None:
    identity = toy_identity("a" * 64, ["title", "brand"], language_model=LANGUAGE_MODEL, code=CODE)
    number = make_number(toy_record(identity=identity), toy_record(identity=identity, seed=2025))
    lines = explain_number([number]).splitlines()
    assert lines[0] == f"{number.name}: LightGCN, seeds 2024, 2025 on Toy, preset paper (results/Toy/LightGCN)"
    assert [line.strip() for line in lines[1:]] == [
        "split           leave-one-out, SHA-256 0123456789ab",
        "filter          5-core, 3 interactions dropped",
        "ties            an item with the same score counts as ranked before the target",
        "mask            seen: what a user had before is left out of the candidates",
        "candidates      all 1,000 items",
        "K               10, 20",
        "model           LightGCN of hellm_recbole",
        "seeds           2024, 2025",
        "settings        emb_dim = 64",
        "valid_metric = N@20",
        f"reads           configuration or tokenizer of the language model: {'f' * 12}",
        f"features of text: {'a' * 12}, MiniLM on title, brand",
        "number type of the language model: float32",
        f"weights of the language model: {'w' * 12}",
        f"code            1 modules, SHA-256 {'c' * 12}",
        "changed here since the run: hellm_recbole.gone",
        f"SHA-256 over all of this: {number.digest}",
    ]


def test_a_number_in_two_places_says_both() -> None:
    number = make_number(toy_record())
    assert "found 2 times, the same number: results/Toy/LightGCN, results/Toy/LightGCN" in explain_number([number] * 2)


def test_what_an_earlier_version_did_not_record_is_unknown() -> None:
    text = explain_number([make_number(toy_record(identity=None, stages={"HeLLMPre": "e" * 64}))])
    assert "features: unknown (recorded by an earlier version)" in text
    assert f"embeddings of HeLLMPre: {'e' * 12}" in text
    assert "code            unknown (recorded by an earlier version)" in text


def compare(first: Number, second: Number) -> list[str]:
    return [line.strip() for line in compare_numbers(first, second).splitlines()[1:]]


def test_differences_are_named_with_both_values() -> None:
    other = toy_record(
        model="VBPR",
        settings={"emb_dim": {"value": 8, "origin": "x"}, "l2": {"value": "a", "origin": "x"}},
        identity=toy_identity("b" * 64, code=CODE),
    )
    first, second = make_number(toy_record(identity=toy_identity("a" * 64))), make_number(other, mask="none")
    assert compare(first, second) == [
        "mask: seen | none",
        "model: LightGCN of hellm_recbole | VBPR of hellm_recbole",
        "setting emb_dim: 64 | 8",
        f"setting valid_metric = N@20: only {first.name}",
        f"features of text: SHA-256 {'a' * 12} | {'b' * 12}",
        f"setting l2 = a: only {second.name}",
        "code: other code (hellm_recbole.gone)",
    ]


def test_seeds_are_compared() -> None:
    several = make_number(toy_record(), toy_record(seed=2025))
    assert compare(make_number(toy_record()), several) == ["seed: 2024 | 2024, 2025"]


def test_what_is_unknown_of_one_number_is_not_compared() -> None:
    first = make_number(toy_record(identity=None))
    second = make_number(toy_record(identity=toy_identity("a" * 64, code=CODE)))
    assert compare(first, second) == [
        f"{part}: unknown for {first.name}, so it cannot be compared" for part in ("code", "features")
    ]


def test_a_setting_that_was_a_constant_has_its_value() -> None:
    key, value = next(iter(load_yaml(find_properties() / "added_settings.yaml").items()))
    record = toy_record()
    later = toy_record(settings={**record.settings, key: {"value": value, "origin": "overall.yaml"}})
    assert make_number(record).digest != make_number(later).digest
    assert compare(make_number(record), make_number(later)) == []


def test_equal_numbers_are_said_to_be_equal() -> None:
    number = make_number(toy_record())
    same = f"{number.name} and {number.name} are the same number"
    assert compare_numbers(number, number) == f"{same}: LightGCN, seed 2024 on Toy"
    earlier = make_number(toy_record(identity=None))
    assert "the same number, as far as it is recorded (unknown: code, features): " in compare_numbers(earlier, earlier)


def test_numbers_of_two_datasets_are_refused() -> None:
    first, second = make_number(toy_record()), make_number(toy_record(dataset="Shop"))
    with pytest.raises(ResultError, match=r"is a number of Toy and .* one of Shop; name two numbers of one dataset$"):
        compare_numbers(first, second)
