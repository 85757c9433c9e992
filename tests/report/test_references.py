"""References: what the files of published numbers say, and which faults of a file are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.errors import SettingsError
from hellm_recbole.report import references
from hellm_recbole.report.references import read_optima, read_references, read_statistics, select_references
from hellm_recbole.report.settings import read_report_settings

SOURCE = """
title: A table
citation: Author, 2020
url: https://example.org
kind: paper
split: leave-one-out
candidates: all
mask: by family
selection: validation
seeds: 3
note: none
values:
  Toy:
    LightGCN: {label: LGCN, metrics: {R@10: 0.5, N@10: 0.25}, deviation: {R@10: 0.125}}
"""


def write_source(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Write one source into a folder of its own, from which references are then read."""
    path = folder / "references" / "a.yaml"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.setattr(references, "find_properties", lambda: folder)
    return path


def test_a_source_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path, monkeypatch, SOURCE)
    (reference,) = read_references()
    assert (reference.dataset, reference.row, reference.label) == ("Toy", "LightGCN", "LGCN")
    assert reference.metrics == {"R@10": 1 / 2, "N@10": 1 / 4}
    assert reference.deviation == {"R@10": 1 / 8}
    assert not reference.read_off
    source = reference.source
    assert (source.name, source.seeds, source.language_model, source.features) == ("a", 3, None, {})
    assert (source.choose_policy("collaborative"), source.choose_policy("llm")) == ("train", "none")


@pytest.mark.parametrize(
    ("mask", "policy"), [("seen", "seen"), ("train", "train"), ("none", "none"), ("seen as zero", "seen")]
)
def test_a_source_has_one_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: str, policy: str) -> None:
    write_source(tmp_path, monkeypatch, SOURCE.replace("by family", mask))
    (reference,) = read_references()
    assert {reference.source.choose_policy(family) for family in ("collaborative", "llm")} == {policy}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("title: A table", "titel: A table", "key title is missing"),
        ("note: none", "note: none\nextra: 1", "key extra is unknown"),
        ("seeds: 3", "seeds: many", "key seeds"),
        ("mask: by family", "mask: some", "key mask is 'some', not one of seen, train"),
        ("kind: paper", "kind: [paper]", "key kind"),
        ("R@10: 0.5", "P@10: 0.5", r"values\.Toy\.LightGCN\.metrics\.P@10 is neither R@K nor N@K"),
        ("R@10: 0.5", "R@10: 5.0", r"values\.Toy\.LightGCN\.metrics\.R@10 = 5 must be between 0 and 1"),
        ("R@10: 0.125", "R@20: 0.125", r"values\.Toy\.LightGCN must have metrics, and deviations of these"),
        ("label: LGCN, ", "", r"key values\.Toy\.LightGCN\.label is missing"),
        ("N@10: 0.25", "N@10: .nan", r"key values\.Toy\.LightGCN\.metrics\.N@10"),
        ("note: none", "note: 2020-01-01", "a value is not text"),
        (SOURCE[SOURCE.index("values") :], "", "key values is missing"),
    ],
)
def test_faults_name_file_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, fault: str
) -> None:
    path = write_source(tmp_path, monkeypatch, SOURCE.replace(old, new, 1))
    with pytest.raises(SettingsError, match=fault) as error:
        read_references()
    assert str(path) in str(error.value)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no source 'table9' .* choose one of bsarec-log, ce-sce-llmrec, .*table3"):
        select_references("table9")


def test_references_are_selected() -> None:
    table3 = select_references("table3", "Beauty")
    assert [reference.row for reference in table3] == [
        "HeLLMPre-without-U2U",
        "HeLLMPre-without-I2I",
        "HeLLMPre-without-CL",
        "HeLLM-without-prefix",
        "HeLLM-without-graph-ids",
        "HeLLM-without-sequence-ids",
        "HeLLMPre",
        "HeLLM",
    ]
    assert {r.row for r in table3 if "-" in r.row} <= set(list_all_variants())
    assert table3[-1].metrics == {"R@20": 0.1021, "N@20": 0.0465}
    assert {reference.dataset for reference in select_references("mmrec")} == {"Sports", "Baby", "FoodRec", "Elec"}
    assert select_references("figure3") == ()
    assert len(select_references()) == len(read_references()) > 100


def test_sources_agree_where_they_have_the_same_numbers() -> None:
    for dataset in ("Sports", "Beauty", "Toys"):
        of = {
            (experiment, r.row): r.metrics
            for experiment in ("table1", "table3", "hellm-log", "hellmpre-log")
            for r in select_references(experiment, dataset)
        }
        table3 = of["table3", "HeLLM"]
        assert table3 == of["hellm-log", "HeLLM"] == {k: of["table1", "HeLLM"][k] for k in table3}
        table3 = of["table3", "HeLLMPre"]
        assert table3 == {k: of["hellmpre-log", "HeLLMPre"][k] for k in table3}


def test_every_stored_number_is_plausible() -> None:
    for reference in read_references():
        metrics = reference.metrics
        for k in ("10", "20"):
            if f"R@{k}" in metrics and f"N@{k}" in metrics:
                assert metrics[f"N@{k}"] < metrics[f"R@{k}"]
        if {"R@10", "R@20"} <= metrics.keys():
            assert metrics["R@10"] < metrics["R@20"]
        assert all(0 < sd < metrics[name] / 10 for name, sd in reference.deviation.items())
        assert reference.source.url.startswith("https://")
        assert read_report_settings().sort_metric in metrics or "N@10" in metrics


def test_statistics_leave_out_validation() -> None:
    statistics = read_statistics()
    interactions = {"Sports": 296_337, "Beauty": 198_502, "Toys": 167_597}  # of the public 5-core files
    assert {name: s["interactions"] + s["users"] for name, s in statistics.items()} == interactions
    for numbers in statistics.values():
        filled = numbers["interactions"] / (numbers["users"] * numbers["items"])
        assert numbers["sparsity_percent"] == pytest.approx(100 * (1 - filled), abs=0.001)


def test_best_values_of_the_figures() -> None:
    found = {(o.dataset, o.setting): o.best for o in read_optima()}
    assert (found["Toys", "temperature"], found["Beauty", "n_neighbors"], found["Sports", "l2_weight"]) == (
        0.3,
        10,
        1e-3,
    )
    outside = {(o.dataset, o.setting) for o in read_optima() if o.grid and o.best not in o.grid}
    assert outside == {("Toys", "user_contrast_weight"), ("Toys", "item_contrast_weight")}
