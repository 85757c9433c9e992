"""Prepare a dataset, or print its data card.

python benchmarks/prepare.py Beauty --from sequences --source ../shared/datasets/Beauty
python benchmarks/prepare.py Beauty --check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.console import run_main
from hellm_recbole.data.card import data_card
from hellm_recbole.data.catalog import dataset_settings, feature_settings, find_source, known_datasets, prepare
from hellm_recbole.data.sources import KINDS


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command; see the module."""
    return run_main(lambda: _prepare(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help=f"of the dataset; known: {', '.join(known_datasets())}")
    parser.add_argument("--from", dest="kind", choices=tuple(KINDS), help="kind of source; a known dataset has its own")
    parser.add_argument(
        "--source", type=Path, help="folder of the source files; that of a known dataset is searched for"
    )
    parser.add_argument("--output", type=Path, default=Path("dataset"), help="folder of the prepared datasets")
    parser.add_argument("--encoder", help="packaged:..., a sentence-transformers or Hugging Face id, or a local folder")
    parser.add_argument("--k-core", type=int, help="drop users and items with fewer interactions; 0 keeps all")
    parser.add_argument(
        "--text", nargs="*", metavar="COL", help="text columns; a|b: the first not empty; none: no text"
    )
    parser.add_argument("--fresh", action="store_true", help="replace what was prepared before")
    parser.add_argument("--check", action="store_true", help="print the data card of the prepared dataset")
    return parser


def _prepare(args: argparse.Namespace) -> int:
    if args.check:
        print(data_card(args.output / args.name))
        return 0
    given = {"k_core": args.k_core, "text": args.text}
    settings = dataset_settings(args.name, args.kind, {key: value for key, value in given.items() if value is not None})
    encoding = feature_settings({} if args.encoder is None else {"encoder": args.encoder})
    source = args.source if args.source is not None else find_source(args.name, settings, None)
    prepared = prepare(args.name, source, settings, encoding, args.output, fresh=args.fresh, progress=True)
    if not prepared.fresh:
        print(f"{prepared.folder} is prepared already; --fresh replaces it")
        return 0
    if prepared.speed is not None and prepared.speed.n_texts:
        speed = prepared.speed
        print(
            f"encoded {speed.n_texts:,} texts in {speed.seconds:.1f} s, {speed.n_texts / speed.seconds:,.0f} a second"
        )
    print(f"prepared {prepared.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
