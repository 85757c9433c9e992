from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.experiments.results import RunResult, digest_run
from hellm_recbole.report.footnotes import find_footnotes, find_repacked_models, list_marks
from tests.toy_records import toy_identity, toy_record


def one(model: str, *, seed: int = 2024, **changes: Any) -> RunResult:
    return toy_record(model=model, seed=seed, **changes)


def said(*groups: list[RunResult]) -> list[tuple[str, str, list[int]]]:
    return [(note.mark, note.text, sorted(note.rows)) for note in find_footnotes(groups)]


def with_settings(**origins: str) -> dict[str, Any]:
    return {key: {"value": origin.rpartition("=")[2], "origin": origin} for key, origin in origins.items()}


def test_rows_that_are_alike_have_no_footnote() -> None:
    assert said([one("VBPR", identity=toy_identity("a"))], [one("BM3", identity=toy_identity("a"))], [one("Pop")]) == []


def test_different_features_are_said_with_their_origin() -> None:
    rows = (
        [one("VBPR", identity=toy_identity("aaaaaaaaaa", ["title"]))],
        [one("LightGCN")],
        [one("BM3", identity=toy_identity("bbbbbbbbbb", ["title", "genre"]))],
        [one("GRCN", identity=toy_identity("bbbbbbbbbb", ["title", "genre"]))],
    )
    end = "; other rows read others, so their numbers do not compare"
    assert said(*rows) == [
        ("a", f"reads text features aaaaaaaa, MiniLM on title{end}", [0]),
        ("b", f"reads text features bbbbbbbb, MiniLM on title, genre{end}", [2, 3]),
    ]
    notes = find_footnotes(rows)
    assert [list_marks(notes, place) for place in range(4)] == [("a",), (), ("b",), ("b",)]


def test_features_behind_pretrained_embeddings_count() -> None:
    read = {"HeLLMPre": {"sha256": "e", "run_sha256": "r", "features": {"text": "a"}, "code": {}}}
    rows = [one("HeLLM", identity=toy_identity(embeddings=read))], [one("VBPR", identity=toy_identity("b"))]
    assert [rows for _, _, rows in said(*rows)] == [[0], [1]]


def test_different_item_texts_are_said() -> None:
    rows = [
        [one(name, identity=toy_identity(item_texts={"sha256": digest, "columns": ("title",)}))]
        for name, digest in (("LLaRA", "a" * 9), ("CoLLM", "b" * 9))
    ]
    assert "reads item texts aaaaaaaa, title; other rows" in said(*rows)[0][1]


def test_language_models_of_one_name_and_different_content() -> None:
    def run(model: str, backbone: str, **changes: Any) -> list[RunResult]:
        about = {"weights_sha256": "w" * 9, "files_sha256": "f" * 9, "dtype": "float32", "origin": None, **changes}
        return [one(model, family="llm", backbone=backbone, identity=toy_identity(language_model=about))]

    assert said(run("HeLLM", "tiny"), run("CoLLM", "tiny"), run("CoLLM", "other", weights_sha256="v")) == []
    notes = said(run("HeLLM", "tiny"), run("CoLLM", "tiny", weights_sha256="x" * 9), run("LLaRA", "other"))
    assert [(text.partition(";")[0], rows) for _, text, rows in notes] == [
        ("reads weights wwwwwwww of tiny", [0]),
        ("reads weights xxxxxxxx of tiny", [1]),
    ]
    assert len(said(run("HeLLM", "tiny"), run("CoLLM", "tiny", files_sha256="x"))) == 2
    assert said(run("HeLLM", "tiny"), run("HeLLM-random-llm", "tiny", weights_sha256=None)) == []


def test_a_repacked_language_model_is_named_in_the_caption() -> None:
    about = {"weights_sha256": "w", "files_sha256": "f", "dtype": "float32", "origin": "4-bit repack of google/x"}
    record = one("HeLLM", backbone="x-q4", identity=toy_identity(language_model=about))
    assert find_repacked_models([record, one("Pop")]) == ["x-q4 is a 4-bit repack of google/x."]


def test_embeddings_of_a_run_that_was_replaced() -> None:
    sasrec = one("SASRec")
    made = {"sha256": "e", "run_sha256": digest_run(sasrec), "features": {}, "code": {}}
    reader = [one("HeLLM", identity=toy_identity(embeddings={"SASRec": made}))]
    assert said(reader, [sasrec]) == []
    again = one("SASRec", settings=with_settings(dropout="model/SASRec.yaml=0.5"))
    assert said(reader, [again]) == [("a", "reads embeddings of another run of SASRec than the one in this table", [0])]
    assert said(reader, [one("SASRec", seed=7, settings=again.settings)]) == []  # another seed's are not read
    threads = one("SASRec", ranks_sha256="0" * 64)  # made alike, and other numbers came out
    assert "another run of SASRec" in said(reader, [threads])[0][1]


def test_changed_code_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.identity.code.find_current_digest", {"m.one": "1", "m.two": "2"}.get)
    now = toy_identity(code={"sha256": "", "modules": {"m.one": "1"}})
    old = toy_identity(code={"sha256": "", "modules": {"m.one": "1", "m.two": "1"}})
    assert said([one("VBPR", identity=old)], [one("BM3", identity=now)]) == [
        ("a", "code has changed since the run (m.two)", [0])
    ]
    more = toy_identity(code={"sha256": "", "modules": {"m.one": "0", "m.two": "1"}})
    assert said([one("VBPR", identity=more)], [one("BM3", identity=now)], [one("GRCN", identity=old)]) == [
        ("a", "code has changed since the run (m.two, m.one)", [0, 2])
    ]


def test_options_of_the_command_line_are_said_and_what_the_name_says_is_not() -> None:
    given = with_settings(epochs="--epochs=3", llm="--llm folder", eval_block_users="--set eval_block_users=9")
    assert said([one("VBPR", settings=given)], [one("BM3")]) == [("a", "run with --epochs=3", [0])]
    more = given | with_settings(dropout="--set dropout=0.1")
    assert said([one("VBPR", settings=more)], [one("BM3", settings=given)]) == [
        ("a", "run with --set dropout=0.1", [0]),
        ("", "run with --epochs=3", [0, 1]),
    ]
    both = find_footnotes([[one("VBPR", settings=given)], [one("BM3", settings=given)]])
    assert [str(note) for note in both] == ["Every row: run with --epochs=3."]
    assert list_marks(both, 0) == ()
    assert [note.mark for note in find_footnotes([[one("VBPR", settings=given)]])] == ["a"]  # one row is not "every"


def test_a_settings_file_that_has_changed_since() -> None:
    def run(model: str, **values: Any) -> list[RunResult]:
        settings = {key: {"value": value, "origin": origin} for key, (value, origin) in values.items()}
        return [one(model, settings=settings)]

    assert said(run("VBPR", patience=(20, "overall.yaml"), epochs=(10, "preset/quick.yaml"))) == []
    assert said(run("SASRec", epochs=(30, "preset/quick.yaml, datasets: ml-100k"))) == []
    assert said(run("VBPR", patience=(1, "results/Toy/tuned/VBPR.yaml"), k=(1, "RecBole's BPR"))) == []
    assert said(run("VBPR", patience=(30, "overall.yaml")), run("BM3", patience=(20, "overall.yaml"))) == [
        ("a", "run with patience = 30 of overall.yaml, which says 20 now", [0])
    ]
    assert said(run("BM3"), run("SASRec", batch_size=(77, "preset/quick.yaml"))) == [
        ("a", "run with batch_size = 77 of preset/quick.yaml, which says 128 now", [1])
    ]
    assert said(run("HeLLM-no-llm", llm_weights=("x", "model/HeLLM.yaml, variants: no-llm"))) == [
        ("a", "run with llm_weights = x of model/HeLLM.yaml, variants: no-llm, which says none now", [0])
    ]
    assert said(run("VBPR", gone=(1, "model/VBPR.yaml"))) == [
        ("a", "run with gone = 1 of model/VBPR.yaml, which says nothing now", [0])
    ]


def test_records_of_an_earlier_version_are_marked_unknown() -> None:
    assert said([one("VBPR", identity=None)], [one("BM3")]) == [
        ("a", "features, code: unknown (recorded by an earlier version)", [0])
    ]
    assert said([one("HeLLM", backbone="x", identity=None)], [one("BM3")])[0][1].startswith(
        "features, language model, embeddings, code: unknown"
    )


def test_code_of_a_package_that_is_not_here_is_unknown() -> None:
    identity = toy_identity(code={"sha256": "", "modules": {"not_installed_here.model": "1"}})
    assert said([one("VBPR", identity=identity)], [one("BM3")]) == [
        ("a", "code of not_installed_here: unknown (the package is not installed here)", [0])
    ]


def test_code_behind_pretrained_embeddings_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.identity.code.find_current_digest", {"m.one": "1"}.get)
    read = {"SASRec": {"sha256": "e", "run_sha256": "r", "features": {}, "code": {"m.one": "0"}}}
    identity = toy_identity(embeddings=read, code={"sha256": "", "modules": {"m.one": "1"}})
    assert said([one("LLaRA", identity=identity)], [one("BM3")]) == [
        ("a", "code has changed since the run (m.one)", [0])
    ]


def test_runs_that_would_not_give_the_same_numbers_again() -> None:
    notes = said([one("VBPR", deterministic=False, threads=2)], [one("BM3")])
    assert notes == [("a", "not deterministic on cpu with 2 threads: another run differs", [0])]


def test_failed_runs_have_no_footnote() -> None:
    empty: Any = {"valid": {}, "test": {}}
    failed = one("VBPR", status="failed", reason="why", metrics=empty, identity=None)
    assert said([failed], [one("BM3")]) == []
