"""Ablation tables as Markdown, CSV and text for the terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from hellm_recbole.report.ablation import Ablation
from hellm_recbole.report.ablation_rendering import (
    render_ablation_csv,
    render_ablation_latex,
    render_ablation_markdown,
    render_ablation_terminal,
)
from tests.report.test_ablation import build_ranks, make_ablation
from tests.toy_records import add_run


@pytest.fixture
def ablation(tmp_path: Path) -> Ablation:
    add_run(tmp_path, build_ranks(100), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(50), model="HeLLMPre-without-U2U", family="multimodal")
    return make_ablation(tmp_path)


def test_markdown_has_all_metrics_and_the_caption(ablation: Ablation) -> None:
    lines = render_ablation_markdown(ablation).splitlines()
    header = ["Row", "R@10", "N@10", "R@20", "N@20", "R@20 change in %", "p", "Seeds"]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == header
    cells = ["HeLLMPre-without-U2U", *["0.2500"] * 4, "-50.0%", "0.0001*", "1"]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == cells
    assert lines[-1].startswith("Toy, test part, mask policy seen. Change of R@20 in percent of the whole model's mean")
    assert lines[-1].endswith(r"Holm-corrected over a model's variants; \* below 0.05.")


def test_change_and_interval_are_in_percent_of_the_whole_model(ablation: Ablation) -> None:
    whole, variant = csv.DictReader(io.StringIO(render_ablation_csv(ablation)))
    change, low, high = (float(variant[f"R@20_change_percent{end}"]) for end in ("", "_low", "_high"))
    assert change == pytest.approx(-50.0)
    assert low < change < high < 0  # the interval contains the change, so both have the same unit
    assert (whole["R@20_change_percent"], whole["R@20_p"]) == ("", "")
    assert float(whole["R@20"]) == 0.5


def test_latex_has_caption_label_and_the_cells_of_markdown(ablation: Ablation) -> None:
    lines = render_ablation_latex(ablation, "tab:toy-ablation").splitlines()
    assert lines[5] == r"\label{tab:toy-ablation}"
    assert lines[4].startswith(r"\caption{Toy, test part, mask policy seen. Change of R@20 in percent")
    assert r"its 95\% interval in ablation.csv" in lines[4]
    assert lines[4].endswith("$^{*}$ p below 0.05.}")
    assert lines[6] == r"\begin{tabular}{lrrrrrrr}"
    assert lines[8] == r"Row & R@10 & N@10 & R@20 & N@20 & R@20 change & p & Seeds \\"
    assert lines[9:12] == [
        r"\midrule",
        r"HeLLMPre & 0.5000 & 0.5000 & 0.5000 & 0.5000 &  &  & 1 \\",
        r"HeLLMPre-without-U2U & 0.2500 & 0.2500 & 0.2500 & 0.2500 & -50.0\% & 0.0001$^{*}$ & 1 \\",
    ]
    assert lines[-1] == r"\end{table}"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_view_fits_and_cuts_no_number(ablation: Ablation, width: int) -> None:
    text = render_ablation_terminal(ablation, width)
    assert max(map(len, text.splitlines())) <= width
    assert "0.2500" in text
    assert "-50.0%" in text
    assert "0.0001*" in text
    assert "\u2026" not in text
    assert ("R@10" in text) == (width >= 80)
