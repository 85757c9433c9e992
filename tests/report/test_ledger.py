"""The ledger: verdicts and ratios of hand-made runs, obstacles and named differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.ledger import Ledger, LedgerLine, build_ledger, has_references
from hellm_recbole.report.settings import read_report_settings
from tests.report.toy_references import SOURCE, TABLE2, write_sources
from tests.report.toy_tables import N_USERS, build_ranks
from tests.toy_records import add_run, toy_identity

SETTINGS = read_report_settings()


def name_values(number: float, row: str = "LightGCN", metric: str = "R@10") -> str:
    """Return the values of a source with one number of the dataset Toy."""
    return f"values: {{Toy: {{{row}: {{label: L, metrics: {{{metric}: {number}}}}}}}}}\n"


def make_ledger(folder: Path, dataset: str = "Toy", **options: Any) -> Ledger:
    return build_ledger(read_frame(folder / "results", dataset), SETTINGS, **options)


def make_line(folder: Path) -> LedgerLine:
    """Build the ledger of a folder with one line."""
    (line,) = make_ledger(folder).lines
    return line


@pytest.mark.parametrize(
    ("published", "verdict", "ratio"),
    [(0.25, "reached", 1), (0.2, "reached", 5 / 4), (0.05, "above", 5), (0.5, "below by 50.0 %", 1 / 2)],
)
def test_verdicts_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: float, verdict: str, ratio: float
) -> None:
    # 10 of 40 users have a hit, so the mean is 1/4 and its interval is about 1/4 +- 1.96 sqrt(3/16/40) = .12 to .38.
    add_run(tmp_path / "results", build_ranks(10, 1))
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(published))
    line = make_line(tmp_path)
    assert line.ours is not None
    assert (line.ours.mean, line.ours.row, line.ours.n_seeds, line.ours.policy) == (1 / 4, "LightGCN", 1, "seen")
    assert line.ours.low == pytest.approx(0.12, abs=1 / N_USERS)
    assert line.ours.high == pytest.approx(0.38, abs=1 / N_USERS)
    assert line.verdict == verdict
    assert line.ratio == pytest.approx(ratio)
    assert line.notes == ()


def test_seeds_are_averaged_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1))
    add_run(tmp_path / "results", build_ranks(20, 1), seed=2025)
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.375))
    line = make_line(tmp_path)
    assert line.ours is not None
    assert (line.ours.mean, line.ours.n_seeds, line.verdict) == (3 / 8, 2, "reached")


@pytest.mark.parametrize(
    ("mask", "family", "mean"),
    [
        ("seen", "collaborative", 1),
        ("seen as zero", "collaborative", 1),
        ("train", "collaborative", 1 / 2),
        ("none", "collaborative", 0),
        ("by family", "collaborative", 1 / 2),
        ("by family", "llm", 0),
    ],
)
def test_numbers_have_the_mask_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: str, family: Any, mean: float
) -> None:
    ranks = build_ranks(N_USERS // 2, 1)
    ranks[N_USERS // 2 :] = 10  # the second half leaves the first ten where less is masked
    add_run(tmp_path / "results", ranks, family=family, train=5, none=15)
    write_sources(tmp_path, monkeypatch, a=SOURCE.replace("mask: seen", f"mask: {mask}") + name_values(0.5))
    line = make_line(tmp_path)
    assert line.ours is not None
    assert line.ours.mean == mean
    assert line.notes == (
        ("the source sets scores of seen items to 0, here they are masked",) if mask == "seen as zero" else ()
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("split: leave-one-out", "split: random", "split random, here leave-one-out"),
        ("candidates: all", "candidates: sampled", "sampled candidates, here all items"),
        ("selection: validation", "selection: test", "selected on the test part"),
    ],
)
def test_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1))
    write_sources(tmp_path, monkeypatch, a=SOURCE.replace(old, new) + name_values(0.25))
    line = make_line(tmp_path)
    assert line.verdict == f"not comparable: {reason}"
    assert line.ours is not None
    assert line.ratio is None


def test_other_data_are_not_comparable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1))
    table2 = TABLE2.replace("Other", "Toy")
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.25), table2=table2)
    assert make_line(tmp_path).verdict == "reached"
    assert "32 interactions of training and test (here 32)" in make_ledger(tmp_path).notes[-1]
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.25), table2=table2.replace("users: 8", "users: 7"))
    reason = "other data (7 users and 9 items, here 8 and 9)"
    assert make_line(tmp_path).verdict == f"not comparable: {reason}"


def test_rows_that_were_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1), model="Pop")
    add_run(tmp_path / "results", None, model="VBPR", family="multimodal")
    for row in ("LightGCN", "VBPR"):
        write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.25, row))
        line = make_line(tmp_path)
        assert (line.verdict, line.ours, line.ratio, line.published) == ("not run", None, None, 1 / 4)


def test_rows_without_published_numbers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("Pop", "LightGCN", "ItemKNN"):
        add_run(tmp_path / "results", build_ranks(10, 1), model=model)
    add_run(tmp_path / "results", None, model="VBPR", family="multimodal")
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.25))
    assert make_ledger(tmp_path).notes[-1] == "No source has numbers of the rows ItemKNN, Pop."


def test_a_row_with_two_language_models_has_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for backbone, n in (("Llama-2-7b-hf", 20), ("tiny", 10)):
        add_run(tmp_path / "results", build_ranks(n, 1), model="HeLLM", family="llm", backbone=backbone)
    source = SOURCE + "language_model: LLaMA-2-7B\n" + name_values(0.5, "HeLLM")
    write_sources(tmp_path, monkeypatch, a=source.replace("selection: validation", "selection: not stated"))
    lines = {line.ours.row: line for line in make_ledger(tmp_path).lines if line.ours is not None}
    assert {name: line.ratio for name, line in lines.items()} == {"HeLLM@Llama-2-7b-hf": 1, "HeLLM@tiny": 1 / 2}
    assert lines["HeLLM@Llama-2-7b-hf"].notes == ("selection not stated",)
    different = "differs: language model tiny (source: LLaMA-2-7B)"
    assert lines["HeLLM@tiny"].notes == ("selection not stated", different)


def test_features_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCE + "features: {text: BERT-base, image: CLIP}\n"
    run: dict[str, Any] = {"model": "HeLLMPre", "family": "multimodal", "identity": toy_identity("a" * 64)}
    add_run(tmp_path / "results", build_ranks(10, 1), **run)
    write_sources(tmp_path, monkeypatch, a=source + name_values(0.25, "HeLLMPre"))
    expected = "differs: text by MiniLM (source: BERT-base), no image (source: CLIP)"
    assert make_line(tmp_path).notes == (expected,)
    # An LLM row reads them through the embeddings of the pretrained model.
    read = {"sha256": "b" * 64, "run_sha256": None, "features": {"text": "a" * 64}, "code": None}
    identity = toy_identity(embeddings={"HeLLMPre": read})
    add_run(tmp_path / "results", build_ranks(10, 1), model="HeLLM", family="llm", backbone="tiny", identity=identity)
    write_sources(tmp_path, monkeypatch, a=source + name_values(0.25, "HeLLM"))
    assert make_line(tmp_path).notes == (expected,)
    add_run(tmp_path / "results", build_ranks(10, 1))  # LightGCN reads no features
    write_sources(tmp_path, monkeypatch, a=source + name_values(0.25))
    assert make_line(tmp_path).notes == ()
    add_run(tmp_path / "results", build_ranks(10, 1), identity=None)
    assert make_line(tmp_path).notes == ("differs: features unknown",)


def test_the_main_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1))
    metrics = "{R@10: 0.1, N@20: 0.2, R@20: 0.3}"
    values = f"values: {{Toy: {{LightGCN: {{label: L, metrics: {metrics}}}}}}}\n"
    other = values.replace("N@20: 0.2, ", "")
    write_sources(tmp_path, monkeypatch, a=SOURCE + values, b=SOURCE.replace("kind: paper", "kind: board") + other)

    def list_main(**options: Any) -> list[tuple[str, str]]:
        lines = make_ledger(tmp_path, **options).lines
        return [(line.reference.source.name, line.metric) for line in lines if line.main]

    assert len(make_ledger(tmp_path).lines) == 5
    assert list_main() == [("a", "N@20"), ("b", "R@20")]
    assert list_main(metric="R@10") == [("a", "R@10"), ("b", "R@10")]


def test_the_sources_of_the_paper_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1))
    kinds = {"a": "other paper", "b": "board", "c": "paper", "d": "released log"}
    sources = {k: SOURCE.replace("kind: paper", f"kind: {kind}") + name_values(0.5) for k, kind in kinds.items()}
    write_sources(tmp_path, monkeypatch, **sources)
    assert [line.reference.source.name for line in make_ledger(tmp_path).lines] == ["c", "d", "b", "a"]


def test_a_dataset_without_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", build_ranks(10, 1), dataset="Elsewhere")
    write_sources(tmp_path, monkeypatch, a=SOURCE + name_values(0.25))
    assert not has_references(read_frame(tmp_path / "results", "Elsewhere"))
    ledger = make_ledger(tmp_path, "Elsewhere")
    assert (ledger.lines, ledger.notes) == ((), ("No source has numbers of Elsewhere.",))


def test_the_paper_names_the_dataset(tmp_path: Path) -> None:
    # 22,363 users are in the paper's Beauty, 8 in the toy data.
    add_run(tmp_path / "results", build_ranks(10, 1), dataset="Mine", paper="Beauty")
    frame = read_frame(tmp_path / "results", "Mine")
    assert has_references(frame)
    verdicts = {line.verdict for line in build_ledger(frame, SETTINGS).lines}
    assert all("other data (22,363 users and 12,101 items, here 8 and 9)" in verdict for verdict in verdicts)
