"""Prepare a dataset, check it, export it, or make a variant with ties in random order.

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

from hellm_recbole.config.limits import LARGEST, LARGEST_SEED
from hellm_recbole.data.dataset import load_dataset, read_source_times
from hellm_recbole.data.diagnostics.card import format_card
from hellm_recbole.data.diagnostics.similar_items import find_similar_items
from hellm_recbole.data.download.raw_files import fetch_raw, list_fetched_kinds
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.feature_files import list_features
from hellm_recbole.data.importers.archive import ENDINGS, unpack_source
from hellm_recbole.data.importers.sources import KINDS, TABLE
from hellm_recbole.data.importers.tabular import FIELDS
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.data.prepare import DatasetSettings, Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.data.ties import shuffle_ties
from hellm_recbole.errors import SettingsError
from hellm_recbole.system.console import run_main
from hellm_recbole.system.files import check_name

SOURCE_OPTIONS = ("kind", "source", "raw", "fresh")
DATASET_KEYS = ("k_core", "text", "category", "columns", "pictures")
FEATURE_KEYS = ("encoder", "pooling", "image_encoder", "fill", "feature_dtype", "encode_device")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_main(lambda: _run(_make_parser().parse_args(argv)))


def _make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="prepare.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help=f"name of the dataset; known datasets: {', '.join(list_datasets())}")
    parser.add_argument(
        "--output", type=Path, default=Path("dataset"), help="folder of the prepared datasets (default: %(default)s)"
    )

    source = parser.add_argument_group("source")
    source.add_argument(
        "--from", dest="kind", choices=tuple(KINDS), help="kind of source (default: that of the known dataset)"
    )
    source.add_argument(
        "--source",
        type=Path,
        help=f"folder of the source files, an archive of them ({', '.join(ENDINGS)}),\n"
        "or a table; for a known dataset the usual folders are searched",
    )
    source.add_argument(
        "--raw",
        type=Path,
        metavar="DIR",
        help="folder of raw files (amazon...); missing files are downloaded",
    )
    source.add_argument("--category", help="name of the Amazon category (amazon...)")
    source.add_argument(
        "--columns",
        nargs="+",
        metavar="FIELD=COL",
        help="columns of a table with the fields user, item, time and split (table)",
    )
    source.add_argument(
        "--k-core",
        type=int,
        help="smallest number of interactions of a user and of an item; 0 keeps all\n"
        "(default: 0 for sources with their own split, 5 for others)",
    )
    source.add_argument("--fresh", action="store_true", help="replace the dataset if it is already prepared")

    features = parser.add_argument_group("features")
    features.add_argument(
        "--text",
        nargs="*",
        metavar="COL",
        help="text columns to encode; a|b takes the first that is not empty;\n--text without columns takes no text",
    )
    features.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="download and encode the pictures of the items",
    )
    features.add_argument(
        "--encoder", help="text encoder: packaged:..., a sentence-transformers or Hugging Face id, or a folder"
    )
    features.add_argument(
        "--pooling", help="pooling of the token states: auto (as the encoder defines it), mean or cls"
    )
    features.add_argument("--image-encoder", help="image encoder: Hugging Face id or folder of a vision model")
    features.add_argument(
        "--fill",
        help="feature vector of an item without text, picture or features: mean (of the other items) or zero",
    )
    features.add_argument("--feature-dtype", help="data type of the stored features: float32 or float16")
    features.add_argument("--encode-device", metavar="DEVICE", help="device of the encoders: auto, cpu or cuda:N")

    prepared = parser.add_argument_group("options for a prepared dataset")
    one = prepared.add_mutually_exclusive_group()
    one.add_argument("--check", action="store_true", help="print the data card with its data warnings")
    one.add_argument(
        "--shuffle-ties",
        type=int,
        metavar="SEED",
        help="make the dataset NAME-tiesSEED, in which interactions at the same time\nare in random order",
    )
    one.add_argument("--export", choices=("mmrec",), help="write the dataset in the format of another project")
    prepared.add_argument(
        "--neighbors", type=int, metavar="N", help="with --check: print N items and their nearest neighbours"
    )
    prepared.add_argument("--to", type=Path, metavar="DIR", help="with --export: folder to write to")
    return parser


def _run(args: argparse.Namespace) -> int:
    """Prepare, check, export or shuffle the dataset, and return the exit code."""
    folder = args.output / check_name(args.name, "dataset")
    if args.neighbors is not None and not (args.check and 0 < args.neighbors <= LARGEST):
        raise SettingsError(f"--neighbors can only be used with --check, and must be from 1 to {LARGEST}")
    if (args.export is None) != (args.to is None):
        raise SettingsError("--export and --to must be used together")
    if args.shuffle_ties is not None and not 0 <= args.shuffle_ties <= LARGEST_SEED:
        raise SettingsError(f"--shuffle-ties {args.shuffle_ties} must be at least 0 and at most {LARGEST_SEED}")
    if args.check or args.export is not None or args.shuffle_ties is not None:
        _refuse_options(args, (*SOURCE_OPTIONS, *DATASET_KEYS, *FEATURE_KEYS), "can only be used to prepare a dataset")
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
        _print_prepared(_prepare(args))
    return 0


def _prepare(args: argparse.Namespace) -> Prepared:
    """Read the settings and prepare the dataset.

    Raises:
        SettingsError: an option is invalid or would have no effect.
    """
    settings = read_dataset_settings(args.name, args.kind, _read_given(args, DATASET_KEYS))
    encoding = read_feature_settings(_read_given(args, FEATURE_KEYS))
    if settings.kind != TABLE:
        _refuse_options(args, ["columns"], f"can only be used with --from {TABLE}")
    if settings.kind not in list_fetched_kinds():
        _refuse_options(args, ["category"], f"can only be used with --from {', '.join(list_fetched_kinds())}")
    if not settings.text:
        _refuse_options(
            args, ["encoder", "pooling"], "can only be used with text columns, and this dataset has none (--text)"
        )
    if not settings.pictures:
        _refuse_options(args, ["image_encoder"], "can only be used with --pictures")
    if not settings.text and not settings.pictures:
        _refuse_options(args, ["feature_dtype", "encode_device"], "can only be used with --text or --pictures")
    if settings.kind == TABLE:
        _refuse_shared_columns(settings.columns)
    with unpack_source(_find_source_files(args, settings)) as source:
        if not (settings.text or settings.pictures or list_features(source.parent if source.is_file() else source)):
            _refuse_options(args, ["fill"], "can only be used with --text, --pictures or feature files")
        return prepare(args.name, source, settings, encoding, args.output, fresh=args.fresh, progress=True)


def _refuse_shared_columns(columns: Sequence[str]) -> None:
    """Refuse a column that is used for two fields of a table.

    Args:
        columns: texts of the form FIELD=COLUMN; a field that is not named has its default column.

    Raises:
        SettingsError: a field is named twice, or two fields share a column.
    """
    given = dict(text.partition("=")[::2] for text in columns)
    required = {field: default for field, default in FIELDS.items() if field in ("user", "item")}
    columns_read = {**required, **given}
    if len(given) < len(columns):
        raise SettingsError("--columns names a field twice; name each field once")
    for field, column in given.items():
        other = next((name for name, read in columns_read.items() if read == column and name != field), None)
        if other is not None:
            raise SettingsError(
                f"--columns {field}={column}: {other} is read from that column as well; name another column"
            )


def _refuse_options(args: argparse.Namespace, keys: Sequence[str], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        args: parsed options.
        keys: names of the options to refuse.
        reason: end of the error message.

    Raises:
        SettingsError: one of the options was given.
    """
    for key in keys:
        if getattr(args, key) not in (None, False):
            option = "from" if key == "kind" else key.replace("_", "-")
            raise SettingsError(f"--{option} {reason}; leave it out")


def _read_given(args: argparse.Namespace, keys: Sequence[str]) -> dict[str, Any]:
    """Return the settings that were given on the command line."""
    return {key: getattr(args, key) for key in keys if getattr(args, key) is not None}


def _find_source_files(args: argparse.Namespace, settings: DatasetSettings) -> Path:
    """Return the folder or archive of the source files. Raw files that are missing are downloaded if possible.

    Raises:
        SettingsError: `--raw` is used with another kind of source or together with `--source`.
    """
    if args.raw is not None and (args.source is not None or settings.kind not in list_fetched_kinds()):
        raise SettingsError(f"--raw can only be used with {', '.join(list_fetched_kinds())} and without --source")
    if args.source is not None:
        return Path(args.source)
    if settings.kind not in list_fetched_kinds():
        return find_source(args.name, settings.kind, settings.category, settings.origin, None)
    folder = Path(args.raw) if args.raw is not None else args.output / ".raw" / settings.kind
    assert settings.category is not None
    for file in fetch_raw(settings.kind, settings.category, folder, progress=True):
        print(f"{file.path}: {file.n_bytes:,} bytes, SHA-256 {file.sha256}")
    return folder


def _print_prepared(prepared: Prepared) -> None:
    """Print the warnings, the encoding speed and the folder of a prepared dataset."""
    if not prepared.fresh:
        print(f"{prepared.folder} is already prepared; replace it with --fresh")
        return
    for modality, speed in prepared.speed.items():
        if speed.n_encoded:
            rate = speed.n_encoded / speed.seconds
            print(f"{modality}: encoded {speed.n_encoded:,} in {speed.seconds:.1f} s, {rate:,.0f} per second")
    for warning in prepared.warnings:
        print(warning)
    print(f"prepared {prepared.folder}")


if __name__ == "__main__":
    sys.exit(main())
