from __future__ import annotations

import csv
import io
from fractions import Fraction
from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.report.sampled_table import (
    SampledTable,
    build_sampled_table,
    refuse_large_cutoffs,
    render_sampled_csv,
    render_sampled_markdown,
)
from tests.report.toy_extras import CANDIDATES, add_sampled, add_toy_run


@pytest.fixture
def table(tmp_path: Path) -> SampledTable:
    """Two rows that sampled ranking orders in the other way, one of them with two seeds."""
    for seed, hits in ((1, 6), (2, 8)):
        folder = add_toy_run(tmp_path, [2] * 3 + [900] * 7, model="Pop", seed=seed)
        add_sampled(folder, [1] * hits + [51] * (10 - hits))
    folder = add_toy_run(tmp_path, [1] * 5 + [900] * 5, model="SASRec", family="sequential", seed=1)
    add_sampled(folder, [1] * 4 + [2] * 2 + [51] * 4, n_changed=3)
    add_toy_run(tmp_path, [1] * 10, model="BPR", seed=1)
    return build_sampled_table(tmp_path, "Toy", CANDIDATES)


def test_values_are_those_of_the_ranks(table: SampledTable) -> None:
    pop, sasrec = table.rows
    assert (pop.model, pop.seeds, sasrec.model, sasrec.seeds) == ("Pop", (1, 2), "SASRec", (1,))
    assert table.metrics == ("R@1", "N@1", "R@2", "N@2")
    assert pop.sampled["R@1"].value == pytest.approx(float(Fraction(7, 10)))
    assert pop.sampled["R@1"].sd == pytest.approx(0.02**0.5)
    assert pop.full["R@1"].value == 0.0
    assert pop.full["R@2"].value == pytest.approx(float(Fraction(3, 10)))
    assert sasrec.sampled["R@2"].value == pytest.approx(float(Fraction(6, 10)))
    assert sasrec.full["N@2"].value == pytest.approx(0.5)
    assert sasrec.full["N@2"].sd is None


def test_the_caption_says_what_the_values_are(table: SampledTable) -> None:
    text = render_sampled_markdown(table)
    assert "SAMPLED ranking, an extra beside the full one" in text
    assert "each target among 50 items that its user has not seen, drawn uniformly, without replacement" in text
    assert "with seed 2024, the same for every row (digest abababababab); K = 1, 2" in text
    assert "not comparable with full ranking and may order models differently (Krichene and Rendle, 2020)" in text
    assert "By N@2, 1 of 1 pairs of rows are in another order than there." in text
    assert "SASRec, seed 1: 3 of 10." in text
    header = [name.strip() for name in text.partition("\n")[0].split("|")]
    assert header[1:6] == ["Group", "Model", "Seeds", "R@1", "full R@1"]
    assert "0.7000 \u00b1 0.1414" in text


def test_the_csv_has_both_rankings_and_the_draw(table: SampledTable) -> None:
    first, second = csv.DictReader(io.StringIO(render_sampled_csv(table)))
    assert (first["candidates"], first["number"], first["draw_seed"]) == ("uniform", "50", "2024")
    assert first["negatives_sha256"] == "ab" * 32
    assert float(first["sampled_R@1"]) == pytest.approx(0.7)
    assert float(first["full_R@2"]) == pytest.approx(0.3)
    assert second["sampled_R@1_sd"] == ""
    assert second["seeds"] == "1"


def test_other_candidates_have_a_table_of_their_own(tmp_path: Path) -> None:
    folder, others = add_toy_run(tmp_path, [3] * 10, model="Pop"), Candidates("popularity", 20, 7)
    add_sampled(folder, [1] * 10)
    add_sampled(folder, [2] * 10, others)
    assert build_sampled_table(tmp_path, "Toy", CANDIDATES).rows[0].sampled["R@1"].value == 1.0
    table = build_sampled_table(tmp_path, "Toy", others, [2])
    assert table.metrics == ("R@2", "N@2")
    assert "20 items that its user has not seen, drawn in proportion to their training interactions" in table.notes[0]
    assert "seed 7" in table.notes[0]
    assert not any("pairs of rows" in note for note in table.notes)
    with pytest.raises(ResultError, match="has ranks among 10 uniform candidates with seed 2024; make them with"):
        build_sampled_table(tmp_path, "Toy", Candidates("uniform", 10, 2024))


def test_different_items_share_no_table(tmp_path: Path) -> None:
    for model, digest in (("Pop", "a"), ("BPR", "b")):
        add_sampled(add_toy_run(tmp_path, [3] * 10, model=model), [1] * 10, negatives_sha256=digest * 64)
    with pytest.raises(ResultError, match="were ranked among different sampled items"):
        build_sampled_table(tmp_path, "Toy", CANDIDATES)


def test_a_cutoff_at_which_every_target_is_a_hit_is_refused() -> None:
    refuse_large_cutoffs([5, 50], CANDIDATES)
    with pytest.raises(SettingsError, match="K = 51 makes every target a hit among 50 candidates"):
        refuse_large_cutoffs([5, 51], CANDIDATES)
