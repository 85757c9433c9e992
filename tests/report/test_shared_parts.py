"""The sentence on rows with another prompt or head than the other rows with a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report.shared_parts import write_shared_parts_note
from tests.report.toy_tables import build_ranks, make_table
from tests.toy_records import add_run, toy_record


def make_record(model: str, family: str = "llm", **settings: Any) -> RunResult:
    found = {key: {"value": value, "origin": "llm.yaml"} for key, value in settings.items()}
    return toy_record(model=model, family=family, settings=found)


SHARED = [make_record(name, prompt="bought:", head="embedding") for name in ("CoLLM", "LLaRA", "HeLLM")]
PLUS = make_record("HeLLM-plus", prompt="bought:", cosine_head=True)


def test_rows_with_the_same_prompt_and_head_need_no_sentence() -> None:
    assert write_shared_parts_note([]) == []
    assert write_shared_parts_note(SHARED) == []
    assert write_shared_parts_note([*SHARED, make_record("SASRec", "sequential", head="other")]) == []
    assert write_shared_parts_note([PLUS]) == []  # there is no row that it could be compared with


def test_rows_outside_the_rule_are_named() -> None:
    released = make_record("HeLLM-released", prompt="bought:", head="frozen-random")
    start = "Rows with a language model share prompt and head; outside this rule: "
    assert write_shared_parts_note([SHARED[2], PLUS]) == [f"{start}HeLLM-plus."]
    assert write_shared_parts_note([PLUS, released, *SHARED]) == [f"{start}HeLLM-plus, HeLLM-released."]
    other = make_record("HeLLM", prompt="next:", head="embedding")
    assert write_shared_parts_note([other, *SHARED[:2]]) == [f"{start}HeLLM."]


def test_the_caption_has_the_sentence(tmp_path: Path) -> None:
    for record in (SHARED[2], PLUS):
        add_run(tmp_path, build_ranks(10, 1), model=record.model, family="llm", settings=record.settings)
    assert "outside this rule: HeLLM-plus." in " ".join(make_table(tmp_path).notes)
