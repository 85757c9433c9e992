"""Prepare a dataset, check it, export it, or make a variant of it.

python benchmarks/prepare.py Beauty --from sequences --source ../shared/datasets/Beauty
python benchmarks/prepare.py Beauty --from amazon2014 --pictures
python benchmarks/prepare.py Mine --from table --source folder --columns user=customer time=day item=article
python benchmarks/prepare.py Beauty --check --neighbors 10
python benchmarks/prepare.py ml-100k --shuffle-ties 1
python benchmarks/prepare.py Beauty --export mmrec --to folder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hellm_recbole.config.layers import LARGEST, LARGEST_SEED
from hellm_recbole.data.atomic import list_features, load_dataset, read_source_times
from hellm_recbole.data.diagnostics.card import format_card
from hellm_recbole.data.diagnostics.similar_items import find_similar_items
from hellm_recbole.data.download.raw_files import fetch_raw, list_fetched_kinds
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.importers.archive import ENDINGS, unpack_source
from hellm_recbole.data.importers.sources import KINDS, TABLE
from hellm_recbole.data.importers.tabular import FIELDS
from hellm_recbole.data.prepare import (
    DatasetSettings,
    Prepared,
    find_source,
    list_datasets,
    prepare,
    read_dataset_settings,
    read_feature_settings,
)
from hellm_recbole.data.ties import shuffle_ties
from hellm_recbole.errors import SettingsError
from hellm_recbole.system.console import run_main
from hellm_recbole.system.files import check_name

SOURCE_OPTIONS = ("kind", "source", "raw", "fresh")
DATASET_KEYS = ("k_core", "text", "category", "columns", "pictures")
FEATURE_KEYS = ("encoder", "pooling", "image_encoder", "fill", "feature_dtype", "encode_device")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command; see the module."""
    return run_main(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help=f"of the dataset; known: {', '.join(list_datasets())}")
    parser.add_argument("--output", type=Path, default=Path("dataset"), help="folder of the prepared datasets")

    source = parser.add_argument_group("source")
    source.add_argument("--from", dest="kind", choices=tuple(KINDS), help="kind of source; a known dataset has its own")
    source.add_argument(
        "--source",
        type=Path,
        help=f"folder of the source files, an archive of them ({', '.join(ENDINGS)}),\n"
        "or a table; that of a known dataset is searched for",
    )
    source.add_argument(
        "--raw",
        type=Path,
        metavar="DIR",
        help="folder of raw files (amazon...); what it lacks is fetched",
    )
    source.add_argument("--category", help="Amazon's name of the category (amazon...)")
    source.add_argument(
        "--columns", nargs="+", metavar="FIELD=COL", help="columns of a table: user, item, time, split (table)"
    )
    source.add_argument(
        "--k-core",
        type=int,
        help="drop users and items with fewer interactions; 0 keeps all, and is what kinds with a split of their own\n"
        "start from; the others start from 5",
    )
    source.add_argument("--fresh", action="store_true", help="replace what was prepared before")

    features = parser.add_argument_group("features")
    features.add_argument(
        "--text", nargs="*", metavar="COL", help="text columns; a|b: the first not empty; none: no text"
    )
    features.add_argument(
        "--pictures", action=argparse.BooleanOptionalAction, default=None, help="fetch the items' pictures, encode them"
    )
    features.add_argument("--encoder", help="packaged:..., a sentence-transformers or Hugging Face id, or a folder")
    features.add_argument("--pooling", help="of token states: auto (the encoder's own), mean or cls")
    features.add_argument("--image-encoder", help="Hugging Face id or folder of a vision model")
    features.add_argument(
        "--fill", help="row of an item without text, picture or features: mean (of the others) or zero"
    )
    features.add_argument("--feature-dtype", help="on disk: float32 or float16")
    features.add_argument("--encode-device", metavar="DEVICE", help="auto, cpu or cuda:N")

    ready = parser.add_argument_group("with a prepared dataset")
    one = ready.add_mutually_exclusive_group()
    one.add_argument("--check", action="store_true", help="print what it holds and what is odd about it")
    one.add_argument("--shuffle-ties", type=int, metavar="SEED", help="make NAME-tiesSEED, its ties in random order")
    one.add_argument("--export", choices=("mmrec",), help="write it in another project's format")
    ready.add_argument("--neighbors", type=int, metavar="N", help="with --check: N items and what is nearest to them")
    ready.add_argument("--to", type=Path, metavar="DIR", help="folder of the export")
    return parser


def _run(args: argparse.Namespace) -> int:
    folder = args.output / check_name(args.name, "dataset")
    if args.neighbors is not None and not (args.check and 0 < args.neighbors <= LARGEST):
        raise SettingsError(f"--neighbors goes with --check and is at least 1 and at most {LARGEST}")
    if (args.export is None) != (args.to is None):
        raise SettingsError("--export and --to go together")
    if args.shuffle_ties is not None and not 0 <= args.shuffle_ties <= LARGEST_SEED:
        raise SettingsError(f"--shuffle-ties {args.shuffle_ties} must be at least 0 and at most {LARGEST_SEED}")
    if args.check or args.export is not None or args.shuffle_ties is not None:
        _refuse(args, (*SOURCE_OPTIONS, *DATASET_KEYS, *FEATURE_KEYS), "prepares a dataset; this one is ready")
    if args.check:
        print(format_card(folder))
        if args.neighbors is not None:
            print(f"\n{find_similar_items(folder, args.neighbors)}")
    elif args.export is not None:
        write_mmrec(load_dataset(folder, modalities=None), args.to, read_source_times(folder))
        print(f"exported {folder} to {args.to}")
    elif args.shuffle_ties is not None:
        print(f"prepared {shuffle_ties(folder, args.output, args.shuffle_ties)}")
    else:
        _tell(_prepare(args))
    return 0


def _prepare(args: argparse.Namespace) -> Prepared:
    settings = read_dataset_settings(args.name, args.kind, _given(args, DATASET_KEYS))
    encoding = read_feature_settings(_given(args, FEATURE_KEYS))
    if settings.kind != TABLE:
        _refuse(args, ["columns"], f"goes with --from {TABLE}")
    if settings.kind not in list_fetched_kinds():
        _refuse(args, ["category"], f"goes with --from {', '.join(list_fetched_kinds())}")
    if not settings.text:
        _refuse(args, ["encoder", "pooling"], "goes with texts, of which this dataset takes none (--text)")
    if not settings.pictures:
        _refuse(args, ["image_encoder"], "goes with --pictures")
    if not settings.text and not settings.pictures:
        _refuse(args, ["feature_dtype", "encode_device"], "goes with --text or --pictures")
    if settings.kind == TABLE:
        _refuse_shared_columns(settings.columns)
    with unpack_source(_source(args, settings)) as source:
        if not (settings.text or settings.pictures or list_features(source.parent if source.is_file() else source)):
            _refuse(args, ["fill"], "goes with --text, --pictures or feature files")
        return prepare(args.name, source, settings, encoding, args.output, fresh=args.fresh, progress=True)


def _refuse_shared_columns(columns: Sequence[str]) -> None:
    """Refuse a column that two fields of a table are read from.

    Args:
        columns: FIELD=COLUMN each; fields that are not named have their usual column.

    Raises:
        SettingsError: it names the fields and the column.
    """
    given = dict(text.partition("=")[::2] for text in columns)
    required = {field: usual for field, usual in FIELDS.items() if field in ("user", "item")}
    read = {**required, **given}
    if len(given) < len(columns):
        raise SettingsError("--columns names a field twice; name each once")
    for field, column in given.items():
        other = next((name for name, taken in read.items() if taken == column and name != field), None)
        if other is not None:
            raise SettingsError(f"--columns {field}={column}: {other} is read from that column as well; name another")


def _refuse(args: argparse.Namespace, keys: Sequence[str], why: str) -> None:
    """Options that would change nothing are a mistake.

    Raises:
        SettingsError: one of them was given.
    """
    for key in keys:
        if getattr(args, key) not in (None, False):
            option = "from" if key == "kind" else key.replace("_", "-")
            raise SettingsError(f"--{option} {why}; leave it out")


def _given(args: argparse.Namespace, keys: Sequence[str]) -> dict[str, Any]:
    """The settings that the command line names."""
    return {key: getattr(args, key) for key in keys if getattr(args, key) is not None}


def _source(args: argparse.Namespace, settings: DatasetSettings) -> Path:
    """The folder or archive of the source; raw files are fetched where they can be."""
    if args.raw is not None and (args.source is not None or settings.kind not in list_fetched_kinds()):
        raise SettingsError(f"--raw goes with {', '.join(list_fetched_kinds())} and without --source")
    if args.source is not None:
        return Path(args.source)
    if settings.kind not in list_fetched_kinds():
        return find_source(args.name, settings, None)
    folder = Path(args.raw) if args.raw is not None else args.output / ".raw" / settings.kind
    assert settings.category is not None
    for file in fetch_raw(settings.kind, settings.category, folder, progress=True):
        print(f"{file.path}: {file.n_bytes:,} bytes, SHA-256 {file.sha256}")
    return folder


def _tell(prepared: Prepared) -> None:
    if not prepared.fresh:
        print(f"{prepared.folder} is prepared already; --fresh replaces it")
        return
    for modality, speed in prepared.speed.items():
        if speed.n_encoded:
            rate = speed.n_encoded / speed.seconds
            print(f"{modality}: encoded {speed.n_encoded:,} in {speed.seconds:.1f} s, {rate:,.0f} a second")
    for warning in prepared.warnings:
        print(warning)
    print(f"prepared {prepared.folder}")


if __name__ == "__main__":
    sys.exit(main())
