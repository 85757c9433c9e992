from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.data.prepare import Prepared
from tests.data.importers.small import write_lattice

Prepare = Callable[..., Prepared]
WITHOUT = "shop.csv has no column 'timestamp', so the order of its rows stands for time "
UNLESS = "; unless each user's rows are oldest first, "


@pytest.mark.parametrize("kind", ["sequences", "lattice"])
def test_lists_in_time_order_by_definition_need_no_warning(
    sequences: Path, tmp_path: Path, prepare_toy: Prepare, kind: str
) -> None:
    source = {"sequences": sequences, "lattice": tmp_path / "source" / "Clothing"}[kind]
    if kind == "lattice":
        write_lattice(source)
    assert not any("stands for time" in warning for warning in prepare_toy(source, kind).warnings)


def test_mmrec_and_recbole_without_times_warn_and_advise(mmrec: Path, recbole: Path, prepare_toy: Prepare) -> None:
    for path in (mmrec / "baby.inter", recbole / "films.inter"):
        path.write_text(path.read_text().replace("timestamp", "reviewTime"))
    said = "has no column 'timestamp', so the order of its rows stands for time"
    unless = "; unless each user's rows are oldest first, name the column of times"
    given, own = prepare_toy(mmrec, "mmrec"), prepare_toy(recbole, "recbole")
    assert given.warnings[0] == (
        f"baby.inter {said} in each part, and models read histories in it{unless} timestamp (columns: reviewTime "
        "(looks like times), rating)"
    )
    assert own.warnings[0] == (
        f"films.inter {said} and each user's last row is for test{unless} timestamp:float (columns: reviewTime (looks "
        "like times), rating)"
    )
    assert f"- {own.warnings[0]}\n" in (own.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "columns", "warning"),
    [
        (
            "user_id,item_id,rating,date\nu,a,5,20 Jan\nu,b,5,19 Jan\nu,c,3,18 Jan\n",
            (),
            f"and each user's last row is for test{UNLESS}name the column of times with --columns time=COLUMN "
            "(columns: date (looks like times), rating)",
        ),
        (
            "customer,article,rating,seen\nu,a,5,1700000000000\nu,b,5,1600000000000\nu,c,3,1500000000000\n",
            ("user=customer", "item=article"),
            f"and each user's last row is for test{UNLESS}name the column of times with --columns time=COLUMN "
            "(columns: seen (looks like times), rating)",
        ),
        (
            "user_id,item_id,price\nu,a,5\nu,b,5\nu,c,3\n",
            (),
            f"and each user's last row is for test{UNLESS}name the column of times with --columns time=COLUMN "
            "(columns: price)",
        ),
        (
            "user_id,item_id\nu,a\nu,b\nu,c\n",
            (),
            f"and each user's last row is for test{UNLESS}sort them or add a column 'timestamp'",
        ),
        (
            "user_id,item_id,split\nu,a,test\nu,b,train\nu,c,valid\n",
            (),
            f"in each part, and models read histories in it{UNLESS}sort them or add a column 'timestamp'",
        ),
    ],
)
def test_a_table_without_times_gives_a_warning_in_the_terminal_and_on_the_card(
    source: Path, prepare_toy: Prepare, content: str, columns: tuple[str, ...], warning: str
) -> None:
    (source / "shop.csv").write_text(content)
    prepared = prepare_toy(source, "table", columns=columns)
    assert prepared.warnings[0] == WITHOUT + warning
    assert f"- {WITHOUT}{warning}\n" in (prepared.folder / "README.md").read_text()
