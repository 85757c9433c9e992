"""The HTML report: its content, that no text of a run is executed, and that it needs only run results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import report
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.sweeps import locate_search, write_search
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.settings import PAGE_FILE
from tests.toy_records import add_run, toy_search, toy_trial

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "<script>alert(1)</script>"
SEARCH = {
    "budget": "trials=2",
    "scheduler": "asha",
    "search": "random",
    "seed": 2024,
    "trials": 2,
    "valid_metric": "N@20",
    "valid": 0.2,
}


def write_page(results: Path, dataset: str = "Toy") -> str:
    """Write the report of a dataset and return the text of its page."""
    shown = write_reports(results, dataset, "unified", quick_page=True)
    assert "could not be written" not in shown
    return (results / dataset / PAGE_FILE).read_text(encoding="utf-8")


def fill(results: Path, dataset: str = "Toy") -> None:
    """Write runs of every kind: several seeds, a failure, tuned values, an LLM, a variant, a search and two studies."""
    rng = np.random.default_rng(3)
    for seed in (1, 2):
        add_run(results, rng.integers(1, 40, 60), dataset=dataset, seed=seed)
    add_run(results, rng.integers(1, 30, 60), dataset=dataset, model="SASRec", family="sequential", train_seconds=900.0)
    add_run(results, rng.integers(1, 90, 60), dataset=dataset, model="Pop")
    add_run(results, rng.integers(1, 25, 60), dataset=dataset, model="HeLLMPre", family="multimodal")
    add_run(results, rng.integers(1, 35, 60), dataset=dataset, model="HeLLMPre-without-CL", family="multimodal")
    add_run(results, rng.integers(1, 20, 60), dataset=dataset, model="LightGCN", search=SEARCH)
    add_run(results, rng.integers(1, 20, 60), dataset=dataset, model="HeLLM", family="llm", backbone="tiny")
    add_run(results, None, dataset=dataset, model="VBPR", family="multimodal")
    study = [toy_trial(n, 0.1 * n, values={"n_neighbors": 5 * n}) for n in (1, 2, 3)]
    pairs = [
        toy_trial(n, 0.05 * n, values={"user_contrast_weight": a, "item_contrast_weight": b})
        for n, (a, b) in enumerate([(0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9)], start=1)
    ]
    weights = {"user_contrast_weight": [0.1, 0.9], "item_contrast_weight": [0.1, 0.9]}
    for search in (
        toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2, status="pruned")], dataset=dataset),
        toy_search(study, dataset=dataset, row="HeLLMPre", name="study-neighbors", space={"n_neighbors": [5, 10, 15]}),
        toy_search(pairs, dataset=dataset, row="HeLLMPre", name="study-contrast", space=weights),
    ):
        write_search(locate_search(results, dataset, search.row, search.name), search)


def test_the_page_has_all_rows_and_figures(tmp_path: Path) -> None:
    fill(tmp_path)
    page = write_page(tmp_path)
    rows = re.findall(r'<tr data-family="\w+"[^>]*><th scope="row">([^<]*)</th>', page)
    assert set(rows) == {"LightGCN-tuned", "LightGCN", "Pop", "HeLLMPre", "VBPR", "SASRec", "HeLLM@tiny"}
    assert "loss is NaN at step 7" in page
    assert "Missing baselines: rows with a language model stand here without ItemKNN, Transitions, BSARec" in page
    assert "trials=2" in page
    assert "0123456789abcdef" * 4 in page
    assert "HeLLMPre-without-CL" in page
    assert re.findall(r"<figure><h3>([^<]*)</h3>", page) == [
        "Recall and NDCG over K", "Accuracy against cost", "Slices", "What the parts of HeLLMPre are worth",
        "HeLLMPre: user_contrast_weight and item_contrast_weight", "HeLLMPre: n_neighbors", "Search of LightGCN",
    ]  # fmt: skip
    drawn = re.findall(r'<svg viewBox[^>]* role="img".*?</svg>', page, re.S)
    assert len(drawn) == 3 * 2 + 4  # two panels each; ablation, studies and search have one drawing
    for svg in drawn:
        ET.fromstring(svg)


@pytest.mark.slow
def test_the_figures_are_written_as_files(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 30, 40])
    write_reports(tmp_path, "Toy", "unified", page=True)
    names = {"over-k", "cost", "slices"}
    folder = tmp_path / "Toy" / "figures"
    for ending in ("svg", "pdf", "png"):
        assert {path.stem for path in folder.glob(f"*.{ending}")} == names
    for path in folder.glob("*.svg"):
        ET.parse(path)


def test_a_row_has_the_same_key_in_the_table_and_in_all_figures(tmp_path: Path) -> None:
    add_run(tmp_path, None, model="BM3", family="multimodal")
    add_run(tmp_path, [1, 2, 30, 40], model="VBPR", family="multimodal")
    add_run(tmp_path, [1, 1, 1, 1], model="SASRec", family="sequential")
    page = write_page(tmp_path)
    keys = dict(re.findall(r'data-key="(row-\d)"><th scope="row">(\w+)', page))
    assert keys == {"row-0": "VBPR", "row-1": "SASRec"}
    assert re.search(r'data-text="BM3 [^"]*"><th', page)  # a failed row has no line, so no key
    figures = page.split("<figure>")[1:]
    assert len(figures) == 3
    for figure in figures:
        legend = re.findall(r'<button type="button" data-key="(row-\d)".*?<span>(\w+)</span>', figure)
        assert dict(legend) == keys
        assert sorted(re.findall(r'class="series" data-key="(row-\d)"', figure)) == ["row-0", "row-0", "row-1", "row-1"]
        assert re.findall(r'"legend-title">(\w+)<', figure) == ["Multimodal", "Sequential"]


def test_the_links_have_the_order_of_the_sections(tmp_path: Path) -> None:
    fill(tmp_path)
    page = write_page(tmp_path)
    assert re.findall(r'<h2 id="(\w+)"', page) == re.findall(r'<a href="#(\w+)"', page)
    assert "Holm-corrected over the" in page
    add_run(tmp_path, [1, 2, 30, 40], dataset="Beauty", paper="Beauty", identity=None)
    page = write_page(tmp_path, "Beauty")
    links = re.findall(r'<a href="#(\w+)"', page)
    assert re.findall(r'<h2 id="(\w+)"', page) == links == ["table", "figures", "paper", "ledger", "protocol"]
    assert "Holm-corrected" not in page
    assert '<td class="text wrap">not comparable: other data' in page
    assert '<td class="text wrap">selection not stated' in page
    assert re.search(r"td\.wrap \{[^}]*white-space: normal", page)


def test_the_page_makes_no_network_request(tmp_path: Path) -> None:
    fill(tmp_path)
    page = write_page(tmp_path)
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", page) == []
    assert not re.search(r"https?://|@import|url\((?!#)|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


def test_hostile_names_are_not_executed(tmp_path: Path) -> None:
    """Names and reasons with HTML appear as text.

    A folder name cannot contain `/`, so only the reason of the failed run has a real closing tag.
    """
    hostile = "<script>alert(1)<script>"
    fill(tmp_path, hostile)
    reason = f"{SCRIPT} </script><img src=x onerror=alert(1)> $x$ {{{{ 7 * 7 }}}}"
    add_run(tmp_path, None, dataset=hostile, model="<b>BPR", reason=reason)
    add_run(tmp_path, [1] * 60, dataset=hostile, model='"><svg onload=alert(1)>')
    page = write_page(tmp_path, hostile)
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page  # printed as it is, not evaluated as a template
    assert page.count("<script") == 2  # the two of the page itself: data of the pairs, and code
    assert "<img src=x" not in page
    assert "<svg onload" not in page
    assert "<b>BPR" not in page
    names = json.loads(re.search(r'id="pairs">(.*?)</script>', page, re.S).group(1))["names"]  # type: ignore[union-attr]
    assert '"><svg onload=alert(1)>' in names


def test_wins_and_losses_of_a_pair_by_hand(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 1, 50, 2])
    add_run(tmp_path, [1, 5, 3, 90], model="SASRec", family="sequential")
    page = write_page(tmp_path)
    (pair,) = json.loads(re.search(r'id="pairs">(.*?)</script>', page, re.S).group(1))["versus"][0]  # type: ignore[union-attr]
    assert (pair["wins"], pair["ties"], pair["losses"]) == (2, 1, 1)
    expected = np.mean([0.0, 1 - 1 / np.log2(6), -1 / 2, 1 / np.log2(3)])
    assert pair["mean"] == pytest.approx(expected)
    assert pair["low"] < pair["mean"] < pair["high"]


def test_pages_with_one_row_and_without_rows(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    assert "loss is NaN" in write_page(tmp_path)
    add_run(tmp_path, [1, 2, 3], seed=1)
    assert 'id="pair"' not in write_page(tmp_path)
    with pytest.raises(ResultError, match="no record of dataset Other"):
        write_page(tmp_path, "Other")


def test_mixed_protocols_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 3])
    add_run(tmp_path, [1, 2, 3], model="SASRec", mask_history="none")
    with pytest.raises(ResultError, match=r"mask_history differ \(seen and none\)"):
        write_page(tmp_path)


@pytest.mark.slow
def test_the_report_needs_no_model(tmp_path: Path) -> None:
    """Without the code of the models, tables and page are the same, byte for byte."""
    checkout = tmp_path / "checkout"
    for name in ("hellm_recbole", "benchmarks", "properties", "baselines"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(checkout / "baselines")
    shutil.rmtree(checkout / "hellm_recbole" / "llm")
    for path in (checkout / "hellm_recbole" / "models").glob("*.py"):
        if path.name not in ("__init__.py", "base.py"):  # base.py names the families and has no model
            path.unlink()
    results = tmp_path / "results"
    fill(results)
    assert report.main(["--output", str(results)]) == 0
    expected = {path.name: path.read_bytes() for path in (results / "Toy").iterdir() if path.is_file()}
    assert "report.html" in expected
    command = [sys.executable, "-W", "ignore", "-m", "hellm_recbole.benchmarks.report", "--output", str(results)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env={"PYTHONPATH": str(checkout)})
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (results / "Toy").iterdir() if path.is_file()} == expected


def test_variants_without_any_hit_do_not_stop_the_page(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 900], model="HeLLMPre", family="multimodal")
    add_run(tmp_path, [900, 900, 900], model="HeLLMPre-without-CL", family="multimodal")
    assert "-100.0 %" in write_page(tmp_path)
    add_run(tmp_path, [900, 900, 900], model="HeLLMPre", family="multimodal")
    assert "HeLLMPre-without-CL" in write_page(tmp_path)


def test_the_page_has_published_numbers_of_its_dataset(tmp_path: Path) -> None:
    fill(tmp_path)
    assert 'id="ledger"' not in write_page(tmp_path)
    add_run(tmp_path, [1, 2, 30, 40], dataset="Beauty", paper="Beauty", identity=None)
    page = write_page(tmp_path, "Beauty")
    section = page[page.index('<h2 id="ledger"') : page.index('<h2 id="protocol"')]
    row = next(line for line in section.splitlines() if ">table1<" in line and ">LightGCN<" in line)
    assert re.findall(r"<t[hd] [^>]*>([^<]*)", row)[:4] == ["LightGCN", "table1", "N@20", "0.0269"]
    # R@20 = 2/4, N@20 = (1 + 1 / log2(3)) / 4
    row += next(
        line for line in section.splitlines() if "other data (22,363 users and 12,101 items, here 8 and 9)" in line
    )
    assert f">{(1 + 1 / np.log2(3)) / 4:.4f}</td>" in row
    assert "<li>CoLLM and LLaRA are level: cannot be said; CoLLM, LLaRA were not run.</li>" in section
    assert not (tmp_path / "Beauty" / "ledger.md").exists()
    assert not re.search(r"https?://", page)
