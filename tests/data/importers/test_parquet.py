from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.errors import DataError
from tests.data.importers.small import COLUMNS, make_frame, read_sequences

Prepare = Callable[..., Prepared]


def test_parquet_keeps_ids_and_times_of_their_own_types(source: Path, prepare_toy: Prepare) -> None:
    typed = make_frame().assign(
        customer=[1.0, 1.0, 2.0, 1.0], article=[7, 8, 7, 9], day=lambda t: pd.to_datetime(t["day"])
    )
    typed.to_parquet(source / "shop.parquet")
    assert read_sequences(prepare_toy(source, "table", columns=COLUMNS)) == {"1": ["8", "7"], "2": ["7"]}


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
