from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.dataset import load_dataset, read_source_times
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError
from tests.data.importers.small import COLUMNS, make_frame, read_sequences

Prepare = Callable[..., Prepared]


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_ending_gives_the_same_sequences(source: Path, prepare_toy: Prepare, ending: str) -> None:
    path = source / f"shop.{ending}"
    if ending == "parquet":
        make_frame().to_parquet(path)
    else:
        make_frame().to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    prepared = prepare_toy(source, "table", columns=COLUMNS)
    assert read_sequences(prepared) == {"u1": ["b", "a"], "u2": ["a"]}  # c is the test item
    assert read_source_times(prepared.folder)[1] == "1390089600"  # midnight of 19 January 2014, UTC


def test_default_column_names_and_a_table_without_times(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text('user_id,item_id\nu1,a\nu1,"b, c"\nu1,d\n')
    prepared = prepare_toy(source, "table")
    assert read_sequences(prepared) == {"u1": ["a", "b, c"]}
    assert not load_dataset(prepared.folder, modalities=None).time_known


def test_a_split_column_is_kept(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id,timestamp,split\nu1,a,1,test\nu1,b,2,train\nu1,c,3,valid\n")
    split = split_dataset(load_dataset(prepare_toy(source, "table").folder, modalities=None))
    assert (split.kind, split.item_tokens[split.test.item].tolist()) == ("given", ["a"])


def test_item_texts_next_to_the_table(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    (source / "shop_items.csv").write_text('article,name\na,"12"" comb"\nb,\nc,soap\n')
    folder = prepare_toy(source, "table", columns=COLUMNS).folder
    assert (folder / "shop.item").read_text() == "item_id:token\tname:token_seq\na\t12 comb\nb\t\nc\tsoap\n"


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("user_id,item\nu,a\n", (), "no column 'item_id' among user_id, item; name it with --columns item=COLUMN"),
        ("user_id,item_id\nu,a\n", ("time=when",), "no column 'when' among user_id, item_id"),
        ("user_id,item_id\nu,a\n", ("what=x",), "--columns: unknown field 'what'; there are user, item, time, split"),
        ("user_id,item_id\nu,a\n", ("user",), "--columns: 'user' is not FIELD=COLUMN"),
        ("user_id,item_id\nu,a\n,b\n", (), "shop.csv: row 2: user_id is empty"),
        (
            "user_id,item_id,timestamp\nu,a,1\nu,b,soon\n",
            (),
            "row 2: time 'soon' is neither a finite number",
        ),
        ("user_id,item_id,timestamp\nu,a,1\nu,b,inf\n", (), "row 2: time 'inf' is neither"),
        ("user_id,item_id,split\nu,a,dev\n", (), "split is 'dev', not one of train, valid, test"),
        ("user_id,item_id\nu,a\nu,b,c,d\n", (), "shop.csv cannot be read as a table: "),
        ("", (), "shop.csv cannot be read as a table: "),
        ('user_id,item_id\nu,"a\tb"\n', (), "item_id 'a\\tb' holds a quote, a tab or another control character"),
    ],
)
def test_faulty_tables(
    source: Path, prepare_toy: Prepare, content: str, columns: tuple[str, ...], message: str
) -> None:
    (source / "shop.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        prepare_toy(source, "table", columns=columns)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_refused(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"shop\.parquet cannot be read as a table"):
        prepare_toy(source, "table")
    (source / "shop.parquet").unlink()
    whole = gzip.compress(b"user_id,item_id\n" + b"u,a\n" * 1000)
    (source / "shop.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shop\.csv\.gz cannot be read as a table"):
        prepare_toy(source, "table")


def test_a_table_of_another_name_is_given_by_its_path(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "sold.2014.csv", index=False)
    (source / "sold.2014_items.csv").write_text("article,name\na,comb\n")
    with pytest.raises(DataError, match=r"holds no shop\.parquet, \.csv, .* or name the file with --source"):
        prepare_toy(source, "table", columns=COLUMNS)
    prepared = prepare_toy(source / "sold.2014.csv", "table", columns=COLUMNS, name="shop")
    assert read_sequences(prepared) == {"u1": ["b", "a"], "u2": ["a"]}
    assert "a\tcomb" in (prepared.folder / "shop.item").read_text()


def test_an_item_with_two_rows(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    (source / "shop_items.csv").write_text("article,name\na,x\nb,y\na,z\n")
    with pytest.raises(DataError, match=r"shop_items\.csv: row 3: item 'a' occurs before"):
        prepare_toy(source, "table", columns=COLUMNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id\nu1,a,4.0\n", r"shop\.csv cannot be read as a table: .* saw 3"),
        ("user_id,item_id,item_id\nu1,a,b\n", r"shop\.csv: column 'item_id' occurs twice; keep one"),
        ("user_id,item_id\n", r"shop\.csv: no row after the header"),
    ],
)
def test_faulty_rows_and_headers(source: Path, prepare_toy: Prepare, content: str, message: str) -> None:
    (source / "shop.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        prepare_toy(source, "table")


def test_quotes_in_tsv_are_characters(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.tsv").write_text("user_id\titem_id\nu1\ta\nu1\tb\nu1\tc\n")
    (source / "shop_items.tsv").write_text('item_id\ttitle\na\t"Best\nb\tplain\nc\t12" brush\n')
    rows = (prepare_toy(source, "table").folder / "shop.item").read_text().splitlines()
    assert rows[1:] == ["a\tBest", "b\tplain", "c\t12 brush"]


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="pandas 2 has no dates before 1677 and after 2262")
def test_dates_of_the_first_and_last_years(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text(
        "user_id,item_id,timestamp\nu1,a,0001-01-01\nu1,b,2014-01-20T00:00:00.002\nu1,c,9999-12-31\n"
    )
    times = read_source_times(prepare_toy(source, "table").folder)
    assert times == ["-62135596800", "1390176000.002", "253402214400"]


def test_dates_keep_nanoseconds_and_what_is_before_1970(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text(
        "user_id,item_id,timestamp\nu1,a,2014-01-20T00:00:00.000000002\nu1,b,2014-01-20T00:00:00.000000001\n"
        "u1,c,1969-12-31T23:59:58.5\n"
    )
    prepared = prepare_toy(source, "table")
    assert read_source_times(prepared.folder) == ["1390176000.000000002", "1390176000.000000001", "-1.5"]
    assert read_sequences(prepared) == {"u1": ["c", "b"]}  # a is the test item


def test_a_table_with_times_gives_no_warning(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    assert not any("timestamp" in warning for warning in prepare_toy(source, "table", columns=COLUMNS).warnings)


def test_the_named_item_column_wins_over_the_default_one(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    (source / "shop_items.csv").write_text("item_id,article,name\n1,a,comb\n2,b,brush\n")
    folder = prepare_toy(source, "table", columns=COLUMNS).folder
    assert (folder / "shop.item").read_text().splitlines() == ["item_id:token\tname:token_seq", "a\tcomb", "b\tbrush"]


def test_a_column_name_that_no_header_can_hold(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu1,a\nu1,b\nu1,c\n")
    (source / "shop_items.csv").write_text("item_id,a:b\na,x\n")
    with pytest.raises(DataError, match=r"column name 'a:b' is empty or holds a colon"):
        prepare_toy(source, "table")


@pytest.mark.parametrize("entries", [("user=a", "user=b"), ("user=a", "item=a")])
def test_a_field_or_column_named_twice(source: Path, prepare_toy: Prepare, entries: tuple[str, str]) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    with pytest.raises(DataError, match=rf"--columns: '{entries[1]}' repeats a field or a column of another entry"):
        prepare_toy(source, "table", columns=entries)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_an_id_is_the_text_in_the_file(source: Path, prepare_toy: Prepare, ending: str) -> None:
    users, items = (
        ["007", "7", "7.0"],
        ["0108775015", "108775015", "1E+05", "100000", "1e5", "9007199254740993", "3.0"],
    )
    items += ["10.00", "9007199254740992", "NA", "None", "1\u20282", "3\u20294", "5\x856"]
    rows = [(user, item, str(time)) for user in users for time, item in enumerate(items)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    table.to_csv(source / f"shop.{ending}", sep="\t" if ending == "tsv" else ",", index=False)
    dataset = load_dataset(prepare_toy(source, "table").folder, modalities=None)
    assert dataset.user_tokens[1:].tolist() == users
    assert dataset.item_tokens[1:].tolist() == items


@pytest.mark.parametrize(
    ("table", "items"),
    [
        ("sold.txt", "sold_items.csv"),
        ("sold.CSV", "sold_items.tsv"),
        ("sold.csv.bz2", "sold_items.parquet"),
        ("sold.2014.csv.xz", "sold.2014_items.csv.gz"),
        ("sold.txt", "sold_items.txt"),
        ("sold.csv", "sold_items.parquet"),
    ],
)
def test_item_tables_next_to_a_source_with_another_ending(
    source: Path, prepare_toy: Prepare, table: str, items: str
) -> None:
    make_frame().to_csv(source / table, index=False)
    described = pd.DataFrame({"article": ["a", "b"], "name": ["comb", "brush"]})
    if items.endswith("parquet"):
        described.to_parquet(source / items)
    else:
        described.to_csv(source / items, index=False, sep="\t" if ".tsv" in items else ",")
    folder = prepare_toy(source / table, "table", columns=COLUMNS, name="shop").folder
    assert (folder / "shop.item").read_text() == "item_id:token\tname:token_seq\na\tcomb\nb\tbrush\n"


def test_a_warning_names_the_unused_texts(source: Path, prepare_toy: Prepare) -> None:
    make_frame().to_csv(source / "shop.csv", index=False)
    (source / "shop_items.csv").write_text("article,name,brand,empty\na,comb,x,\n")
    warning = "the items' texts are not used; --text name brand makes features of them"
    assert warning in prepare_toy(source, "table", columns=COLUMNS).warnings
    (source / "shop_items.csv").write_text("article,name\na,\n")
    prepared = prepare_toy(source, "table", columns=COLUMNS, fresh=True)
    assert not any("--text" in warning for warning in prepared.warnings)
