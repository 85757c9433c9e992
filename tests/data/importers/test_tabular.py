from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.atomic import load_dataset, read_source_times
from hellm_recbole.data.catalog import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]
COLUMNS = ("user=customer", "item=article", "time=day")
ROWS = [("u1", "a", "2014-01-20"), ("u1", "b", "2014-01-19"), ("u2", "a", "2014-01-18"), ("u1", "c", "2014-01-21")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "shop"
    folder.mkdir(parents=True)
    return folder


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["customer", "article", "day"])


def sequences(prepared: Prepared) -> dict[str, list[str]]:
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    history = split.test_history()
    return {
        str(dataset.user_tokens[user]): [str(dataset.item_tokens[item]) for item in history.of(user)]
        for user in range(1, dataset.n_users + 1)
    }


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_ending_gives_the_same_sequences(source: Path, prepare_toy: Prepare, ending: str) -> None:
    path = source / f"shop.{ending}"
    if ending == "parquet":
        frame().to_parquet(path)
    else:
        frame().to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    prepared = prepare_toy(source, "table", columns=COLUMNS)
    assert sequences(prepared) == {"u1": ["b", "a"], "u2": ["a"]}  # c is the test item
    assert read_source_times(prepared.folder)[1] == "1390089600"  # midnight of 19 January 2014, UTC


def test_parquet_keeps_ids_and_times_of_their_own_types(source: Path, prepare_toy: Prepare) -> None:
    typed = frame().assign(customer=[1.0, 1.0, 2.0, 1.0], article=[7, 8, 7, 9], day=lambda t: pd.to_datetime(t["day"]))
    typed.to_parquet(source / "shop.parquet")
    assert sequences(prepare_toy(source, "table", columns=COLUMNS)) == {"1": ["8", "7"], "2": ["7"]}


def test_usual_names_need_no_columns_and_without_times_the_order_holds(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text('user_id,item_id\nu1,a\nu1,"b, c"\nu1,d\n')
    prepared = prepare_toy(source, "table")
    assert sequences(prepared) == {"u1": ["a", "b, c"]}
    assert not load_dataset(prepared.folder, modalities=None).time_known


def test_a_split_column_is_kept(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id,timestamp,split\nu1,a,1,test\nu1,b,2,train\nu1,c,3,valid\n")
    split = split_dataset(load_dataset(prepare_toy(source, "table").folder, modalities=None))
    assert (split.kind, split.item_tokens[split.test.item].tolist()) == ("given", ["a"])


def test_item_texts_beside_the_table(source: Path, prepare_toy: Prepare) -> None:
    frame().to_csv(source / "shop.csv", index=False)
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


def test_files_that_are_no_tables(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"shop\.parquet cannot be read as a table"):
        prepare_toy(source, "table")
    (source / "shop.parquet").unlink()
    whole = gzip.compress(b"user_id,item_id\n" + b"u,a\n" * 1000)
    (source / "shop.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shop\.csv\.gz cannot be read as a table"):
        prepare_toy(source, "table")


def test_a_table_of_another_name_is_named_itself(source: Path, prepare_toy: Prepare) -> None:
    frame().to_csv(source / "sold.2014.csv", index=False)
    (source / "sold.2014_items.csv").write_text("article,name\na,comb\n")
    with pytest.raises(DataError, match=r"holds no shop\.parquet, \.csv, .* or the file with --source"):
        prepare_toy(source, "table", columns=COLUMNS)
    prepared = prepare_toy(source / "sold.2014.csv", "table", columns=COLUMNS, name="shop")
    assert sequences(prepared) == {"u1": ["b", "a"], "u2": ["a"]}
    assert "a\tcomb" in (prepared.folder / "shop.item").read_text()


def test_an_item_with_two_rows(source: Path, prepare_toy: Prepare) -> None:
    frame().to_csv(source / "shop.csv", index=False)
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


def test_parquet_with_numbers_for_names_and_floats_that_are_no_ids(source: Path, prepare_toy: Prepare) -> None:
    table = pd.DataFrame(
        {0: [1.0, 1.0, 1.0], 1: [5, 6, 7], 2: [1e20, 2e20, 3e20], 3: [0.5, float("inf"), float("nan")]}
    )
    table.to_parquet(source / "shop.parquet")
    folder = prepare_toy(source, "table", columns=("user=0", "item=1", "time=2")).folder
    rows = [line.split("\t") for line in (folder / "shop.inter").read_text().splitlines()[1:]]
    assert [(user, item, rank, float(time)) for user, item, rank, time in rows] == [
        ("1", "5", "0", 1e20),
        ("1", "6", "1", 2e20),
        ("1", "7", "2", 3e20),
    ]


def test_dates_far_away(source: Path, prepare_toy: Prepare) -> None:
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
    assert sequences(prepared) == {"u1": ["c", "b"]}  # a is the test item


WITHOUT = "shop.csv has no column 'timestamp', so the order of its rows stands for time "
UNLESS = "; unless each user's rows are oldest first, "


@pytest.mark.parametrize(
    ("content", "columns", "said"),
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
def test_a_table_without_times_says_so_in_the_terminal_and_on_the_card(
    source: Path, prepare_toy: Prepare, content: str, columns: tuple[str, ...], said: str
) -> None:
    (source / "shop.csv").write_text(content)
    prepared = prepare_toy(source, "table", columns=columns)
    assert prepared.warnings[0] == WITHOUT + said
    assert f"- {WITHOUT}{said}\n" in (prepared.folder / "README.md").read_text()


def test_a_table_with_times_says_nothing_of_them(source: Path, prepare_toy: Prepare) -> None:
    frame().to_csv(source / "shop.csv", index=False)
    assert not any("timestamp" in warning for warning in prepare_toy(source, "table", columns=COLUMNS).warnings)


def test_the_named_column_is_the_items_where_a_usual_name_stands_too(source: Path, prepare_toy: Prepare) -> None:
    frame().to_csv(source / "shop.csv", index=False)
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
    frame().to_csv(source / "shop.csv", index=False)
    with pytest.raises(DataError, match=rf"--columns: '{entries[1]}' names a field or a column for the second time"):
        prepare_toy(source, "table", columns=entries)
