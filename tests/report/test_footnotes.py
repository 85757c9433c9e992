"""Footnotes: which differences between rows are found, and how they are marked."""

from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.experiments.results import RunResult, digest_run
from hellm_recbole.report.footnotes import find_footnotes, find_repacked_models, list_marks
from tests.toy_records import toy_identity, toy_record


def build_run(model: str, *, seed: int = 2024, **changes: Any) -> RunResult:
    """Build the run result of a model, with the given fields changed."""
    return toy_record(model=model, seed=seed, **changes)


def list_footnotes(*groups: list[RunResult]) -> list[tuple[str, str, list[int]]]:
    """List mark, text and row indices of the footnotes of a table; each group is a row."""
    return [(note.mark, note.text, sorted(note.rows)) for note in find_footnotes(groups)]


def build_settings(**origins: str) -> dict[str, Any]:
    """Build settings from their origins, such as "--epochs=3"; the value is the text after the last "="."""
    return {key: {"value": origin.rpartition("=")[2], "origin": origin} for key, origin in origins.items()}


def test_rows_that_do_not_differ_have_no_footnote() -> None:
    assert (
        list_footnotes(
            [build_run("VBPR", identity=toy_identity("a"))],
            [build_run("BM3", identity=toy_identity("a"))],
            [build_run("Pop")],
        )
        == []
    )


def test_different_features_are_named_with_their_origin() -> None:
    rows = (
        [build_run("VBPR", identity=toy_identity("aaaaaaaaaa", ["title"]))],
        [build_run("LightGCN")],
        [build_run("BM3", identity=toy_identity("bbbbbbbbbb", ["title", "genre"]))],
        [build_run("GRCN", identity=toy_identity("bbbbbbbbbb", ["title", "genre"]))],
    )
    end = "; other rows read others, so their numbers do not compare"
    assert list_footnotes(*rows) == [
        ("a", f"reads text features aaaaaaaa, MiniLM on title{end}", [0]),
        ("b", f"reads text features bbbbbbbb, MiniLM on title, genre{end}", [2, 3]),
    ]
    notes = find_footnotes(rows)
    assert [list_marks(notes, row) for row in range(4)] == [("a",), (), ("b",), ("b",)]


def test_features_of_pretrained_embeddings_are_compared() -> None:
    read = {"HeLLMPre": {"sha256": "e", "run_sha256": "r", "features": {"text": "a"}, "code": {}}}
    rows = [build_run("HeLLM", identity=toy_identity(embeddings=read))], [build_run("VBPR", identity=toy_identity("b"))]
    assert [rows for _, _, rows in list_footnotes(*rows)] == [[0], [1]]


def test_rows_with_other_features_than_their_preset_asks_for_are_named() -> None:
    through_graph = {"HeLLMPre": {"sha256": "e", "run_sha256": "r", "features": {"text": "a"}, "code": {}}}
    rows = (
        [build_run("HeLLMPre", preset="published", identity=toy_identity("a"))],
        [build_run("LightGCN", preset="published", identity=toy_identity())],
        [build_run("HeLLM", preset="published", identity=toy_identity(embeddings=through_graph))],
        [build_run("HeLLMPre", preset="paper", identity=toy_identity("a"))],
        [build_run("VBPR", preset="gone", identity=toy_identity("a"))],  # a preset that no longer exists
    )
    ((text, marked),) = [(text, marked) for _, text, marked in list_footnotes(*rows) if "asks for" in text]
    assert marked == [0, 2]
    assert text.startswith("preset published asks for text features of bert-base-uncased with pooling cls on title, ")
    assert "(these are of MiniLM with pooling auto on title) and image features of " in text
    assert text.endswith("(there are none)")


def test_different_item_texts_are_named() -> None:
    rows = [
        [build_run(name, identity=toy_identity(item_texts={"sha256": digest, "columns": ("title",)}))]
        for name, digest in (("LLaRA", "a" * 9), ("CoLLM", "b" * 9))
    ]
    assert "reads item texts aaaaaaaa, title; other rows" in list_footnotes(*rows)[0][1]


def test_language_models_of_one_name_and_different_content() -> None:
    def build_group(model: str, backbone: str, **changes: Any) -> list[RunResult]:
        about = {"weights_sha256": "w" * 9, "files_sha256": "f" * 9, "dtype": "float32", "origin": None, **changes}
        return [build_run(model, family="llm", backbone=backbone, identity=toy_identity(language_model=about))]

    assert (
        list_footnotes(
            build_group("HeLLM", "tiny"),
            build_group("CoLLM", "tiny"),
            build_group("CoLLM", "other", weights_sha256="v"),
        )
        == []
    )
    notes = list_footnotes(
        build_group("HeLLM", "tiny"),
        build_group("CoLLM", "tiny", weights_sha256="x" * 9),
        build_group("LLaRA", "other"),
    )
    assert [(text.partition(";")[0], rows) for _, text, rows in notes] == [
        ("reads weights wwwwwwww of tiny", [0]),
        ("reads weights xxxxxxxx of tiny", [1]),
    ]
    assert len(list_footnotes(build_group("HeLLM", "tiny"), build_group("CoLLM", "tiny", files_sha256="x"))) == 2
    assert (
        list_footnotes(build_group("HeLLM", "tiny"), build_group("HeLLM-random-llm", "tiny", weights_sha256=None)) == []
    )


def test_a_repacked_language_model_is_named_in_the_caption() -> None:
    about = {"weights_sha256": "w", "files_sha256": "f", "dtype": "float32", "origin": "4-bit repack of google/x"}
    record = build_run("HeLLM", backbone="x-q4", identity=toy_identity(language_model=about))
    assert find_repacked_models([record, build_run("Pop")]) == ["x-q4 is a 4-bit repack of google/x."]


def test_embeddings_of_a_run_that_was_replaced() -> None:
    sasrec = build_run("SASRec")
    embeddings = {"sha256": "e", "run_sha256": digest_run(sasrec), "features": {}, "code": {}}
    reader = [build_run("HeLLM", identity=toy_identity(embeddings={"SASRec": embeddings}))]
    assert list_footnotes(reader, [sasrec]) == []
    again = build_run("SASRec", settings=build_settings(dropout="model/SASRec.yaml=0.5"))
    assert list_footnotes(reader, [again]) == [
        ("a", "reads embeddings of another run of SASRec than the one in this table", [0])
    ]
    assert (
        list_footnotes(reader, [build_run("SASRec", seed=7, settings=again.settings)]) == []
    )  # the run reads no embeddings of another seed
    assert find_footnotes([reader, [again]], {("SASRec", 2024): "e"}) == []  # another run with the same embeddings
    other_ranks = build_run("SASRec", ranks_sha256="0" * 64)  # same settings and data, but other ranks
    assert "another run of SASRec" in list_footnotes(reader, [other_ranks])[0][1]


def test_embeddings_of_a_file_are_external() -> None:
    def build_reader(model: str, file: str, digest: str) -> list[RunResult]:
        external = {"file": file, "file_sha256": digest, "shape": (9, 4)}
        read = {"sha256": "e", "run_sha256": None, "features": {}, "code": {}, "external": external}
        return [build_run(model, identity=toy_identity(embeddings={"HeLLMPre": read}))]

    trained = {"sha256": "e", "run_sha256": None, "features": {}, "code": {}}
    rows = (
        build_reader("HeLLM", "graph\x1b[31m.npy", "a" * 64),
        [build_run("HeLLMPre")],
        [build_run("CoLLM", identity=toy_identity(embeddings={"HeLLMPre": trained}))],
        build_reader("LLaRA", "graph.npy", "b" * 64),
    )
    text = "external: embeddings of HeLLMPre are read from the file graph.npy (SHA-256 {})"
    assert list_footnotes(*rows) == [("a", text.format("a" * 8), [0]), ("b", text.format("b" * 8), [3])]


def test_changed_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.identity.code.find_current_digest", {"m.one": "1", "m.two": "2"}.get)
    now = toy_identity(code={"sha256": "", "modules": {"m.one": "1"}})
    old = toy_identity(code={"sha256": "", "modules": {"m.one": "1", "m.two": "1"}})
    assert list_footnotes([build_run("VBPR", identity=old)], [build_run("BM3", identity=now)]) == [
        ("a", "code has changed since the run (m.two)", [0])
    ]
    more = toy_identity(code={"sha256": "", "modules": {"m.one": "0", "m.two": "1"}})
    assert list_footnotes(
        [build_run("VBPR", identity=more)], [build_run("BM3", identity=now)], [build_run("GRCN", identity=old)]
    ) == [("a", "code has changed since the run (m.two, m.one)", [0, 2])]


def test_letters_are_in_the_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.identity.code.find_current_digest", {"m.one": "1"}.get)
    changed = toy_identity(code={"sha256": "", "modules": {"m.one": "0"}})
    given = build_settings(epochs="--epochs=3")
    rows = ([build_run("VBPR")], [build_run("BM3", settings=given)], [build_run("GRCN", identity=changed)])
    assert list_footnotes(*rows) == [
        ("a", "run with --epochs=3", [1]),
        ("b", "code has changed since the run (m.one)", [2]),
    ]


def test_options_of_the_command_line_are_named_unless_the_label_shows_them() -> None:
    given = build_settings(epochs="--epochs=3", llm="--llm folder", eval_block_users="--set eval_block_users=9")
    assert list_footnotes([build_run("VBPR", settings=given)], [build_run("BM3")]) == [
        ("a", "run with --epochs=3", [0])
    ]
    more = given | build_settings(dropout="--set dropout=0.1")
    assert list_footnotes([build_run("VBPR", settings=more)], [build_run("BM3", settings=given)]) == [
        ("", "run with --epochs=3", [0, 1]),
        ("a", "run with --set dropout=0.1", [0]),
    ]
    both = find_footnotes([[build_run("VBPR", settings=given)], [build_run("BM3", settings=given)]])
    assert [str(note) for note in both] == ["Every row: run with --epochs=3."]
    assert list_marks(both, 0) == ()
    assert [note.mark for note in find_footnotes([[build_run("VBPR", settings=given)]])] == [
        "a"
    ]  # a single row has a letter


def test_a_settings_file_that_has_changed_since() -> None:
    def build_group(model: str, **values: Any) -> list[RunResult]:
        settings = {key: {"value": value, "origin": origin} for key, (value, origin) in values.items()}
        return [build_run(model, settings=settings)]

    assert list_footnotes(build_group("VBPR", patience=(20, "overall.yaml"), epochs=(10, "preset/quick.yaml"))) == []
    assert list_footnotes(build_group("SASRec", epochs=(30, "preset/quick.yaml, datasets: ml-100k"))) == []
    assert (
        list_footnotes(build_group("VBPR", patience=(1, "results/Toy/tuned/VBPR.yaml"), k=(1, "RecBole's BPR"))) == []
    )
    assert list_footnotes(
        build_group("VBPR", patience=(30, "overall.yaml")), build_group("BM3", patience=(20, "overall.yaml"))
    ) == [("a", "run with patience = 30 of overall.yaml, which says 20 now", [0])]
    assert list_footnotes(build_group("BM3"), build_group("SASRec", batch_size=(77, "preset/quick.yaml"))) == [
        ("a", "run with batch_size = 77 of preset/quick.yaml, which says 128 now", [1])
    ]
    assert list_footnotes(build_group("HeLLM-no-llm", llm_weights=("x", "model/HeLLM.yaml, variants: no-llm"))) == [
        ("a", "run with llm_weights = x of model/HeLLM.yaml, variants: no-llm, which says none now", [0])
    ]
    assert list_footnotes(build_group("VBPR", gone=(1, "model/VBPR.yaml"))) == [
        ("a", "run with gone = 1 of model/VBPR.yaml, which says nothing now", [0])
    ]


def test_variants_are_looked_up_once_for_all_settings_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = []
    monkeypatch.setattr("hellm_recbole.identity.settings_files.list_all_variants", lambda: lookups.append(1) or {})
    settings = {key: {"value": 1, "origin": "model/VBPR.yaml"} for key in ("one", "two", "three")}
    find_footnotes([[build_run("Unheard", seed=seed, settings=settings)] for seed in (1, 2)])
    assert len(lookups) == 1


def test_rows_that_rank_the_items_of_a_beam_say_so() -> None:
    beam = {"beam_size": {"value": 50, "origin": "model/TIGER.yaml"}}
    rows = [build_run("TIGER", settings=beam)], [build_run("SASRec")]
    text = "generates items with a beam of 50; a target beyond it ranks last, a miss at every K"
    assert [note[1:] for note in list_footnotes(*rows) if "beam of" in note[1]] == [(text, [0])]


def test_records_of_an_earlier_version_are_marked_unknown() -> None:
    assert list_footnotes([build_run("VBPR", identity=None)], [build_run("BM3")]) == [
        ("a", "features, code: unknown (recorded by an earlier version)", [0])
    ]
    assert list_footnotes([build_run("HeLLM", backbone="x", identity=None)], [build_run("BM3")])[0][1].startswith(
        "features, language model, embeddings, code: unknown"
    )


def test_code_of_a_package_that_is_not_installed_is_unknown() -> None:
    identity = toy_identity(code={"sha256": "", "modules": {"not_installed_here.model": "1"}})
    assert list_footnotes([build_run("VBPR", identity=identity)], [build_run("BM3")]) == [
        ("a", "code of not_installed_here: unknown (the package is not installed here)", [0])
    ]
    record: Any = {"kind": "model", "name": "VBPR", "package": "not_installed_here.py", "version": "a file"}
    assert list_footnotes([build_run("VBPR", identity=identity, plugins=[record])]) == [
        (
            "a",
            "code of not_installed_here: unknown (it is a file of a properties folder; name the folder with "
            "--properties)",
            [0],
        )
    ]


def test_code_of_pretrained_embeddings_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellm_recbole.identity.code.find_current_digest", {"m.one": "1"}.get)
    read = {"SASRec": {"sha256": "e", "run_sha256": "r", "features": {}, "code": {"m.one": "0"}}}
    identity = toy_identity(embeddings=read, code={"sha256": "", "modules": {"m.one": "1"}})
    assert list_footnotes([build_run("LLaRA", identity=identity)], [build_run("BM3")]) == [
        ("a", "code has changed since the run (m.one)", [0])
    ]


def test_runs_that_are_not_deterministic_are_named() -> None:
    notes = list_footnotes([build_run("VBPR", deterministic=False, threads=2)], [build_run("BM3")])
    assert notes == [("a", "not deterministic on cpu with 2 threads: another run differs", [0])]


def test_failed_runs_have_no_footnote() -> None:
    empty: Any = {"valid": {}, "test": {}}
    failed = build_run("VBPR", status="failed", reason="why", metrics=empty, identity=None)
    assert list_footnotes([failed], [build_run("BM3")]) == []
