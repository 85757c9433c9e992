"""Importers of all kinds of sources: each converts published files to RecBole's atomic tables.

`sequences`  user_sequences.txt (`user item item ...`, oldest first) and item_text.tsv (item_id and text columns)
`s3rec`      the same lines in NAME.txt (S3-Rec, E4SRec) or sequential_data.txt (P5); datamaps.json restores the ids
`table`      NAME.csv, .tsv or .parquet with named columns, and optionally NAME_items.* with texts
`splits`     interactions.tsv (user_id, item_id, split, optionally timestamp) and <modality>_feat.npy, row = item id
`lattice`    train.json, val.json, test.json (`{user: [item, ...]}`), here or in 5-core/; features as in `splits`
`hellm`      a dataset's folder of the HeLLM release: lists as in `lattice`, or NAME.txt as in `s3rec`; features as in
             `splits` or tensors in .pt files; u_id_mapping.csv and i_id_mapping.csv restore the ids, if they exist
`mmrec`      NAME.inter (userID, itemID, x_label 0/1/2, optionally timestamp), features as in `splits`;
             u_id_mapping.csv and i_id_mapping.csv restore the ids, if they exist
`movielens`  ratings.dat and movies.dat with `::` between the fields, as in ML-1M
`microlens`  NAME_pairs.csv or .tsv, NAME_titles.csv or NAME_title_en.csv, and NAME_covers/, as MicroLens is published
`recbole`    NAME.inter and optionally NAME.item, atomic files with typed headers
`amazon2014`, `amazon2018`, `amazon2023`  reviews and metadata of a category, as published

Each kind also reads `<modality>_feat.npy` with `<modality>_feat.tokens.txt` next to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.dataset import encode_parts
from hellm_recbole.data.importers.amazon.importer import read_amazon
from hellm_recbole.data.importers.amazon.vintages import VINTAGES
from hellm_recbole.data.importers.assemble import (
    ITEM_TEXT,
    add_times,
    assemble,
    clean_items,
    number_feature_rows,
    read_item_text,
)
from hellm_recbole.data.importers.hellm import read_hellm
from hellm_recbole.data.importers.microlens import PAIRS, TITLES, read_microlens
from hellm_recbole.data.importers.movielens import INNER_FOLDER, MOVIES, RATINGS, read_movielens
from hellm_recbole.data.importers.released import MMREC_MAPS, read_lattice, read_mmrec, read_s3rec, read_sequence_lines
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.tabular import ENDINGS, read_tables
from hellm_recbole.data.times import SOURCE_TIME, TIME, order_times, restore_times
from hellm_recbole.data.tsv import read_table
from hellm_recbole.errors import DataError

TABLE = "table"  # the only kind whose source may be a file
SEQUENCES, INTERACTIONS = "user_sequences.txt", "interactions.tsv"


@dataclass(frozen=True)
class Kind:
    """How a kind of source is recognized and read.

    Attributes:
        main_files: the source must hold one of these files; `{name}` and `{category}` stand for the dataset's values.
        files: description of all files that are read.
        read: importer; it takes the folder and the request.
    """

    main_files: tuple[str, ...]
    files: str
    read: Callable[[Path, Request], AtomicData]


def read_sequences(source: Path, request: Request) -> AtomicData:
    """Read kind `sequences`; the position in the sequence is the time."""
    path = source / SEQUENCES
    inter = read_sequence_lines(path)
    texts, text_types = read_item_text(source)
    return assemble(source, inter, {}, texts, text_types, time_known=False, rows=None, files=[path])


def read_splits(source: Path, request: Request) -> AtomicData:
    """Read kind `splits`; the split is the given one."""
    table = read_table(source / INTERACTIONS, typed=False)
    table.require(("user_id", "item_id", "split"), "it needs the header user_id, item_id, split")
    encode_parts(table)  # checks each field of `split` while its line number is known
    used = ["user_id", "item_id", "split"]
    inter, time_known, warnings = add_times(table, table.frame[used], used)
    texts, text_types = read_item_text(source)
    return assemble(
        source,
        inter,
        {},
        texts,
        text_types,
        time_known=time_known,
        rows=number_feature_rows,
        files=[table.path],
        warnings=warnings,
    )


def read_recbole(source: Path, request: Request) -> AtomicData:
    """Read kind `recbole` with all columns; a file that this project has written gets the times of its source back."""
    table = read_table(source / f"{request.name}.inter", typed=True)
    table.require(("user_id", "item_id"), "name its user and item columns user_id:token and item_id:token")
    if "split" in table.frame:
        encode_parts(table)
    for column, kind in table.types.items():
        if kind == "float":
            table.numbers(column)
    restored = replace(table, frame=restore_times(table.frame)) if table.types.get(SOURCE_TIME) == "float" else table
    inter, time_known, warnings = add_times(restored, restored.frame, ("user_id", "item_id", "split"))
    if SOURCE_TIME in inter and order_times(inter[TIME])[1]:
        raise DataError(
            f"{table.path}:1: column {SOURCE_TIME!r} would be overwritten: times that float32 cannot hold are stored "
            "under this name; rename the column"
        )
    files, items, types = [table.path], None, {}
    if (path := source / f"{request.name}.item").exists():
        item_table = read_table(path, typed=True)
        items, types = clean_items(item_table), dict(item_table.types)
        files.append(path)
    return assemble(
        source, inter, table.types, items, types, time_known=time_known, rows=None, files=files, warnings=warnings
    )


def find_amazon_files(kind: str, category: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the possible file names of a category's reviews and of its metadata, the published name first."""
    ending, core = ("jsonl", "") if kind == "amazon2023" else ("json", "_5")
    reviews = f"reviews_{category}{core}.{ending}" if kind == "amazon2014" else f"{category}{core}.{ending}"
    meta = f"meta_{category}.{ending}"
    return (f"{reviews}.gz", reviews), (f"{meta}.gz", meta)


def _read_amazon(kind: str, source: Path, request: Request) -> AtomicData:
    """Read the kinds `amazon...`; without metadata the items have no texts."""
    reviews, metadata = (
        next((source / name for name in names if (source / name).is_file()), None)
        for names in find_amazon_files(kind, request.category)
    )
    if reviews is None:
        wanted = find_amazon_files(kind, request.category)[0][0]
        raise DataError(f"{source} holds no {wanted}; download it with hellm-recbole prepare, or copy it there")
    return read_amazon(reviews, metadata, VINTAGES[kind], progress=request.progress)


def _make_amazon_kind(kind: str) -> Kind:
    """Return the description of an Amazon kind."""
    reviews, metadata = find_amazon_files(kind, "{category}")
    return Kind(reviews, f"{reviews[0]} and {metadata[0]}", partial(_read_amazon, kind))


KINDS: Mapping[str, Kind] = {
    "sequences": Kind((SEQUENCES,), f"{SEQUENCES} and {ITEM_TEXT}", read_sequences),
    "s3rec": Kind(("{name}.txt", "sequential_data.txt"), "{name}.txt or sequential_data.txt", read_s3rec),
    TABLE: Kind(
        tuple(f"{{name}}.{ending}" for ending in ENDINGS),
        "{name}.csv, .tsv or .parquet",
        read_tables,
    ),
    "splits": Kind((INTERACTIONS,), f"{INTERACTIONS} and its feature files", read_splits),
    "lattice": Kind(("train.json", "5-core/train.json"), "train.json, val.json and test.json", read_lattice),
    "hellm": Kind(
        ("{name}.txt", "5-core/train.json", "train.json"),
        "{name}.txt, or 5-core/ with train.json, val.json and test.json",
        read_hellm,
    ),
    "mmrec": Kind(("{name}.inter",), f"its .inter, feature files and {' and '.join(MMREC_MAPS)}", read_mmrec),
    "recbole": Kind(("{name}.inter",), "its .inter and .item files", read_recbole),
    "movielens": Kind((RATINGS, f"{INNER_FOLDER}/{RATINGS}"), f"{RATINGS} and {MOVIES}", read_movielens),
    "microlens": Kind(PAIRS, f"{PAIRS[0]} and {' or '.join(TITLES)}", read_microlens),
    **{kind: _make_amazon_kind(kind) for kind in VINTAGES},
}
