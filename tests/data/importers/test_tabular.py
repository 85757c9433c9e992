from __future__ import annotations

import gzip
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hellm_recbole.data.atomic import load_dataset, read_source_times
from hellm_recbole.data.prepare import Prepared
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


def make_frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["customer", "article", "day"])


def read_sequences(prepared: Prepared) -> dict[str, list[str]]:
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    history = split.make_test_history()
    return {
        str(dataset.user_tokens[user]): [str(dataset.item_tokens[item]) for item in history.get_items(user)]
        for user in range(1, dataset.n_users + 1)
    }


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


def test_parquet_keeps_ids_and_times_of_their_own_types(source: Path, prepare_toy: Prepare) -> None:
    typed = make_frame().assign(
        customer=[1.0, 1.0, 2.0, 1.0], article=[7, 8, 7, 9], day=lambda t: pd.to_datetime(t["day"])
    )
    typed.to_parquet(source / "shop.parquet")
    assert read_sequences(prepare_toy(source, "table", columns=COLUMNS)) == {"1": ["8", "7"], "2": ["7"]}


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


WITHOUT = "shop.csv has no column 'timestamp', so the order of its rows stands for time "
UNLESS = "; unless each user's rows are oldest first, "


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
    ("ids", "expected"),
    [
        (pa.array([2**53 + 1, 2**53, 2**60 + 1]), ["9007199254740993", "9007199254740992", "1152921504606846977"]),
        (pa.array([2**64 - 1, 1, 0], pa.uint64()), ["18446744073709551615", "1", "0"]),
        (pa.array([3.0, 10.0, 2.0**53 - 1]), ["3", "10", "9007199254740991"]),
        (pa.array([3.0, 4.5, 10.0]), ["3.0", "4.5", "10.0"]),
        (pa.array(["007", "7.0", "1E+05"]), ["007", "7.0", "1E+05"]),
        (pa.array(["007", "7.0", "1E+05"]).dictionary_encode(), ["007", "7.0", "1E+05"]),
        (pa.array([Decimal("10.00"), Decimal("0.10"), Decimal("3.00")]), ["10.00", "0.10", "3.00"]),
    ],
)
def test_ids_in_parquet_are_unchanged(source: Path, prepare_toy: Prepare, ids: pa.Array, expected: list[str]) -> None:
    pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": ids}), source / "shop.parquet")
    dataset = load_dataset(prepare_toy(source, "table").folder, modalities=None)
    assert dataset.item_tokens[1:].tolist() == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([2.0**53, 1.0, 2.0]), "column 'item_id' holds ids as floats of 9007199254740992 and more"),
        (pa.array([2.0**24, 1, 2], pa.float32()), "column 'item_id' holds ids as floats of 16777216 and more"),
        (pa.array([["a"], ["b"], ["c"]]), "column 'item_id' holds lists, not text or numbers"),
        (pa.array([b"a", b"b", b"c"]), "column 'item_id' holds bytes"),
        (pa.array([{"a": 1}] * 3), "column 'item_id' holds dicts"),
    ],
)
def test_parquet_columns_that_hold_no_ids(source: Path, prepare_toy: Prepare, ids: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": ids}), source / "shop.parquet")
    with pytest.raises(DataError, match=message):
        prepare_toy(source, "table")


def test_columns_that_are_not_read_may_hold_anything(source: Path, prepare_toy: Prepare) -> None:
    table = {"user_id": ["u"] * 3, "item_id": [1, 2, 3], "images": [{"large": "x"}] * 3, "raw": [b"x"] * 3}
    pq.write_table(pa.table({**table, "tags": [["a"]] * 3}), source / "shop.parquet")
    assert read_sequences(prepare_toy(source, "table")) == {"u": ["1", "2"]}


def test_a_missing_item_id_does_not_turn_the_others_into_floats(source: Path, prepare_toy: Prepare) -> None:
    pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": [2**60 + 1, 2**60, 3]}), source / "shop.parquet")
    items = pa.table({"item_id": [2**60 + 1, None, 3, None], "title": ["soap", "lost", "comb", "lost too"]})
    pq.write_table(items, source / "shop_items.parquet")
    prepared = prepare_toy(source, "table")
    assert (prepared.folder / "shop.item").read_text().split("\n")[1:-1] == [f"{2**60 + 1}\tsoap", "3\tcomb"]
    assert "shop_items.parquet: 2 rows without an item id left out" in prepared.warnings


def test_float_ids_of_items_with_one_missing_are_those_of_the_interactions(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu,10\nu,11\nu,12\n")
    pd.DataFrame({"item_id": [10, None, 12], "title": ["a", "b", "c"]}).to_parquet(source / "shop_items.parquet")
    folder = prepare_toy(source, "table").folder
    assert (folder / "shop.item").read_text() == "item_id:token\ttitle:token_seq\n10\ta\n12\tc\n"


def test_texts_of_parquet_lists_and_decimals(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu,10\nu,11\nu,12\n")
    items = {
        "item_id": [10, 11, 12],
        "categories": [["Beauty", "Soap"], [], None],
        "description": [['Line "two".', None, "x"], ["y"] * 1200, [""]],
        "deep": [[["a"], ["b", "c"]], [[]], [None]],
        "sizes": [[1, 2], [3], None],
        "price": [Decimal("10.00"), Decimal("0.50"), None],
    }
    pq.write_table(pa.table(items), source / "shop_items.parquet")
    rows = (prepare_toy(source, "table").folder / "shop.item").read_text().split("\n")
    assert rows[1] == "10\tBeauty, Soap\tLine two ., x\ta, b, c\t1, 2\t10.00"
    assert rows[2] == f"11\t\t{', '.join(['y'] * 1200)}\t\t3\t0.50"
    assert rows[3] == "12\t\t\t\t\t"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([{"Brand": "A"}] * 3, "dicts"),
        ([[{"large": "x"}]] * 3, "dicts"),
        ([b"x"] * 3, "bytes"),
        ([[b"x"]] * 3, "bytes"),
    ],
)
def test_item_columns_that_are_no_text_are_named(
    source: Path, prepare_toy: Prepare, values: list[object], kind: str
) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu,10\nu,11\nu,12\n")
    pq.write_table(pa.table({"item_id": [10, 11, 12], "details": values}), source / "shop_items.parquet")
    with pytest.raises(DataError, match=rf"shop_items\.parquet: column 'details' holds {kind}, not text or numbers; "):
        prepare_toy(source, "table")


@pytest.mark.parametrize("how", ["csv", "csv twice", "csv thrice", "__index_level_0__", "named"])
def test_the_index_of_a_pandas_table_is_no_attribute(source: Path, prepare_toy: Prepare, how: str) -> None:
    table, items = make_frame(), pd.DataFrame({"article": ["a", "b", "c"], "name": ["comb", "brush", "soap"]})
    for name, data in (("shop", table), ("shop_items", items)):
        path = source / f"{name}.csv"
        if how == "named":
            data.set_index(data.columns[0]).to_parquet(path.with_suffix(".parquet"))
        elif how == "__index_level_0__":
            data.index = pd.Index([9, 4, 7, 1][: len(data)])
            stored = pa.Table.from_pandas(data)
            assert how in stored.column_names
            pq.write_table(stored.replace_schema_metadata(), path.with_suffix(".parquet"))
        else:
            data.to_csv(path)
            for _ in range(["csv", "csv twice", "csv thrice"].index(how)):
                pd.read_csv(path).to_csv(path, index="thrice" in how)
    prepared = prepare_toy(source, "table", columns=COLUMNS)
    assert read_sequences(prepared) == {"u1": ["b", "a"], "u2": ["a"]}
    header = (prepared.folder / "shop.item").read_text().split("\n")[0]
    assert set(header.split("\t")) == {"item_id:token", "name:token_seq"}


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


def test_blanks_around_ids_are_removed_and_counted(source: Path, prepare_toy: Prepare) -> None:
    """Without times, rows of the user `u1 ` and rows of `u1` are in one order."""
    (source / "shop.csv").write_text("user_id,item_id\nu1 ,a\nu1, b\n u1,c\nu2,a \n")
    (source / "shop_items.csv").write_text("item_id,title\na ,comb\nb,brush\n")
    (source / "image_feat.tokens.txt").write_text("a\nb \nc\n")
    np.save(source / "image_feat.npy", np.eye(3))
    prepared = prepare_toy(source, "table")
    assert read_sequences(prepared) == {"u1": ["a", "b"], "u2": ["a"]}  # c is the test item
    for warning in (
        "shop.csv: blanks around 2 fields of user_id were removed, so that 'u1 ' is read as 'u1'",
        "shop.csv: blanks around 2 fields of item_id were removed, so that ' b' is read as 'b'",
        "shop_items.csv: blanks around 1 field of item_id were removed, so that 'a ' is read as 'a'",
    ):
        assert warning in prepared.warnings
        assert f"- {warning}\n" in (prepared.folder / "README.md").read_text()
    assert "a\tcomb" in (prepared.folder / "shop.item").read_text()
    assert load_dataset(prepared.folder, modalities=None).features["image"].tolist()[1:] == np.eye(3).tolist()


def test_ids_that_are_blank_or_become_one(source: Path, prepare_toy: Prepare) -> None:
    (source / "shop.csv").write_text("user_id,item_id\nu1,a\nu1,  \nu1,c\n")
    with pytest.raises(DataError, match="item_id is empty"):
        prepare_toy(source, "table")
    (source / "shop.csv").write_text("user_id,item_id\nu1,a\nu1,b\nu1,c\n")
    (source / "shop_items.csv").write_text("item_id,title\na,x\na ,y\n")
    with pytest.raises(DataError, match=r"shop_items\.csv: row 2: item 'a' occurs before"):
        prepare_toy(source, "table")
