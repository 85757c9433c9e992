"""Options that say how rows are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.benchmarks import report
from hellm_recbole.benchmarks.options.comparison import read_comparison
from hellm_recbole.config.comparison import Comparison
from hellm_recbole.errors import HellmError
from tests.toy_records import add_run


def test_no_option_is_no_comparison() -> None:
    assert read_comparison(None, None, None) is None
    assert read_comparison(None, "holm", None) == Comparison()
    assert read_comparison(" SASRec ", None, "t, wilcoxon,t") == Comparison("SASRec", ("t", "wilcoxon"), "holm")
    assert read_comparison(None, "bh", None) == Comparison(correction="bh")


@pytest.mark.parametrize(
    ("against", "tests", "message"),
    [
        ("  ", None, "--against names no row"),
        (None, "u", "--test 'u' is unknown; it can be bootstrap, randomisation, wilcoxon, t"),
        (None, ",", "--test names nothing"),
    ],
)
def test_wrong_values_are_refused(against: str | None, tests: str | None, message: str) -> None:
    with pytest.raises(HellmError, match=message):
        read_comparison(against, None, tests)


def test_the_report_has_the_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, [1] * 30 + [50] * 10)
    add_run(tmp_path, [1] * 10 + [50] * 30, model="VBPR", family="multimodal")
    options = ["--dataset", "Toy", "--output", str(tmp_path)]
    assert report.main([*options, "--against", "VBPR", "--test", "wilcoxon", "--correction", "none"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "better or worse than VBPR at p < 0.05: two-sided Wilcoxon" in shown
    assert "against VBPR" in (tmp_path / "Toy" / "report.html").read_text()
    assert "R@10_effect_size" in (tmp_path / "Toy" / "table.csv").read_text()
    assert report.main([*options, "--correction", "bonferroni"]) == 2
    assert report.main([*options, "--against", "SASRec"]) == 2
    assert "no finished row of this name; it has LightGCN, VBPR" in capsys.readouterr().err
