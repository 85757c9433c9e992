"""Tables as Markdown, CSV and LaTeX: escapes, columns and exact numbers."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.report.files import write_reports
from hellm_recbole.report.rendering import render_latex, render_markdown
from hellm_recbole.report.terminal import render_terminal
from tests.report.toy_tables import build_ranks, by_model, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run, toy_identity


def test_csv_is_plain_and_exact(tmp_path: Path) -> None:
    write_reports(write_toy_runs(tmp_path), "Toy", "unified")
    rows = read_csv(tmp_path / "Toy" / "table.csv")
    cells = by_model(make_table(tmp_path))
    for model in ("LightGCN", "VBPR", "SAS_Rec"):
        for name, cell in cells[model].cells.items():
            assert float(rows[model][name]) == cell.mean
            assert float(rows[model][f"{name}_low"]) == cell.low
            assert float(rows[model][f"{name}_high"]) == cell.high
            assert float(rows[model][f"{name}_p"]) == cell.p
    assert float(rows["LightGCN"]["R@10_sd"]) == cells["LightGCN"].cells["R@10"].sd
    assert rows["SAS_Rec"]["R@10_sd"] == ""
    assert rows["LightGCN"]["seeds"] == "2024 2025"
    assert rows["LightGCN"]["trainable_parameters"] == "123456"
    assert rows["LightGCN"]["split_hash"] == "0123456789abcdef" * 4


def test_latex_escapes_and_keeps_its_columns(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    add_run(tmp_path, None, model="Odd_Model", reason=r"50% of {a} & b_c # $x ~ ^ \ < é →" + "\n two lines")
    text = render_latex(make_table(tmp_path))
    assert r"SAS\_Rec & 0.0000" in text
    assert (
        r"Odd\_Model & \multicolumn{8}{l}{failed: 50\% of \{a\} \& b\_c \# \$x \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textless{} e ? two lines} \\"
    ) in text
    assert r"\textbf{0.7500}$^{*}$" in text
    assert r"\underline{0.3750} $\pm$ 0.1768" in text
    assert text.isascii()
    n_columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert n_columns == "lrrrrrrrr"
    for line in text.splitlines():
        if line.startswith(("Model", "LightGCN", "VBPR", "SAS")):
            assert line.replace(r"\&", "").count("&") == len(n_columns) - 1
    assert r"\label" not in text
    labelled = render_latex(make_table(tmp_path), "tab:toy-table").splitlines()
    place = labelled.index(r"\label{tab:toy-table}")  # a label before the caption would number the section
    assert labelled[place - 1].startswith(r"\caption{")
    assert [line for line in labelled if "label" not in line] == text.splitlines()
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_escapes(tmp_path: Path) -> None:
    add_run(tmp_path, None, model="Odd_Model", reason="a | b *c* <d>")
    assert r"| Odd\_Model | failed: a \| b \*c\* \<d\> |" in render_markdown(make_table(tmp_path))


def test_device_memory_has_a_column_where_there_is_any(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    assert "Device memory" not in render_markdown(make_table(tmp_path))
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", peak_memory_bytes={"host": 2**20, "device": 5 * 2**30})
    text = render_markdown(make_table(tmp_path))
    assert "Device memory" in text
    assert "5.0 GiB" in text
    assert "1.0 MiB" in text


def test_footnotes_are_in_every_output_format(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(30, 1), model="VBPR", identity=toy_identity("aaaaaaaaa", ["a_b"]))
    add_run(tmp_path, build_ranks(20, 1), model="BM3", identity=toy_identity("bbbbbbbbb", ["c"]))
    add_run(tmp_path, build_ranks(10, 1), model="Pop")
    table = make_table(tmp_path)
    rows = by_model(table)
    letters = {name: row.marks for name, row in rows.items()}
    assert sorted([*letters["VBPR"], *letters["BM3"]]) == ["a", "b"]
    assert letters["Pop"] == ()
    (letter,) = letters["VBPR"]
    assert f"VBPR <sup>{letter}</sup>" in render_markdown(table)
    assert rf"- {letter}: reads text features aaaaaaaa, MiniLM on a\_b; other" in render_markdown(table)
    assert f"VBPR$^{{{letter}}}$" in render_latex(table)
    assert rf"{letter}: reads text features aaaaaaaa, MiniLM on a\_b;" in render_latex(table)
    shown = " ".join(render_terminal(table, 80).split())
    assert f"VBPR ({letter})" in shown
    assert f"({letter}) reads text features aaaaaaaa, MiniLM on a_b;" in shown
    write_reports(tmp_path, "Toy", "unified")
    lines = read_csv(tmp_path / "Toy" / "table.csv")
    assert lines["VBPR"]["footnotes"].startswith("reads text features aaaaaaaa")
    assert lines["Pop"]["footnotes"] == ""


def test_a_failed_row_shows_its_reason_and_no_number(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    shown = write_reports(tmp_path, "Toy", "unified")
    assert "BM3: failed: loss is NaN at step 7" in shown
    line = next(line for line in (tmp_path / "Toy" / "table.md").read_text().splitlines() if "BM3" in line)
    assert [cell for cell in map(str.strip, line.split("|")) if cell] == ["BM3", "failed: loss is NaN at step 7"]
    row = read_csv(tmp_path / "Toy" / "table.csv")["BM3"]
    assert row["status"] == "failed"
    assert row["n_seeds"] == "0"
    assert {value for key, value in row.items() if "@" in key or "bytes" in key or "parameters" in key} == {""}
