"""The options of prepare.py. Nothing here imports pandas, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.shared import NoDownload, Version
from hellm_recbole.benchmarks.options.values import parse_integer, parse_path
from hellm_recbole.config.properties_files import list_names
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.importers.archive import ENDINGS

KINDS = tuple(name for name in load_yaml(find_properties() / "kinds.yaml") if name != "every")
DATASETS = list_names("dataset")
SOURCE, FEATURES, PREPARED = "Source", "Features", "Options for a prepared dataset"


def parse_kind(text: str) -> str:
    """Parse the name of a kind of source.

    Raises:
        typer.BadParameter: there is no such kind.
    """
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KINDS)}")
    return text


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What prepare.py was asked for. The help of an option says what its field holds; None means not given."""

    name: Annotated[str, typer.Argument(help=f"name of the dataset; known: {', '.join(DATASETS)}")]
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            parser=parse_kind,
            metavar="KIND",
            help=f"kind of source: {', '.join(KINDS)} (default: that of the known dataset)",
            rich_help_panel=SOURCE,
        ),
    ] = None
    source: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help=f"folder of the source files, an archive of them ({', '.join(ENDINGS)}), or a table; for a known "
            "dataset the usual folders are searched",
            rich_help_panel=SOURCE,
        ),
    ] = None
    raw: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="DIR",
            help="folder of raw files (amazon..., and known datasets); missing files are downloaded",
            rich_help_panel=SOURCE,
        ),
    ] = None
    no_download: NoDownload = False
    category: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name of the Amazon category (amazon...)", rich_help_panel=SOURCE),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COL ...",
            help="columns of a table with the fields user, item, time, split and image (table)",
            rich_help_panel=SOURCE,
        ),
    ] = None
    k_core: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="K",
            help="smallest number of interactions of a user and of an item; 0 keeps all (default: 0 for sources with "
            "their own split, 5 for others)",
            rich_help_panel=SOURCE,
        ),
    ] = None
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="replace the dataset if it is already prepared; with --card, a README.md of your own",
            rich_help_panel=SOURCE,
        ),
    ] = False
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[COL ...]",
            help="text columns to encode; a|b takes the first that is not empty; --text without columns takes no text",
            rich_help_panel=FEATURES,
        ),
    ] = None
    pictures: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="encode the pictures of the items; those that the source has only addresses of are downloaded",
            rich_help_panel=FEATURES,
        ),
    ] = None
    image_dir: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="folder or archive of own pictures to encode; the name of a file without its ending is the id of the "
            "item (a table may have a column image with file names instead, with --pictures)",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[text_X=]NAME",
            help="text encoder: packaged:..., a sentence-transformers or Hugging Face id, a folder or a GGUF file; a "
            "causal language model gives the mean of its token states after one block. text_X=NAME, which may be "
            "repeated, makes the further modality text_X, also in a prepared dataset; models read it only if their "
            "setting modalities names it. Example: --encoder text_llm=packaged:gemma-3-270m-q4",
            rich_help_panel=FEATURES,
        ),
    ] = None
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="pooling of the token states: auto (as the encoder defines it), mean or cls",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder_layer: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="causal language model as text encoder: number of the block (default: the middle one)",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder_tokens: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="causal language model as text encoder: maximum number of tokens of a text",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="causal language model as text encoder: number type, float32 or bfloat16",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="causal language model as text encoder: pretrained weights, or random ones of the same shape",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encoder_seed: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="SEED",
            help="random seed of --encoder-weights random",
            rich_help_panel=FEATURES,
        ),
    ] = None
    image_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="image encoder: Hugging Face id or folder of a vision model",
            rich_help_panel=FEATURES,
        ),
    ] = None
    fill: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="feature vector of an item without text, picture or features: mean (of the other items) or zero",
            rich_help_panel=FEATURES,
        ),
    ] = None
    feature_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="data type of the stored features: float32 or float16",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encode_device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="device of the encoders: auto, cpu or cuda:N", rich_help_panel=FEATURES),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="encode texts and pictures with actors of Ray, on this machine or on the Ray cluster at ADDRESS (auto "
            "or ray://HOST:PORT)",
            rich_help_panel=FEATURES,
        ),
    ] = None
    encode_actors: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="with --ray: number of actors, each with an encoder of its own (default: as many as the cluster has "
            "CPUs or GPUs for)",
            rich_help_panel=FEATURES,
        ),
    ] = None
    check: Annotated[
        bool,
        typer.Option("--check", help="print the data card with its data warnings", rich_help_panel=PREPARED),
    ] = False
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="write the data card again with the front matter of a dataset card of the Hugging Face hub",
            rich_help_panel=PREPARED,
        ),
    ] = False
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="with --card: licence that you give your own data, as the hub writes it",
            rich_help_panel=PREPARED,
        ),
    ] = None
    neighbors: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="N",
            help="with --check: print N items and their nearest neighbours",
            rich_help_panel=PREPARED,
        ),
    ] = None
    shuffle_ties: Annotated[
        int | None,
        typer.Option(
            parser=parse_integer,
            metavar="SEED",
            help="make the dataset NAME-tiesSEED, in which interactions at the same time are in random order",
            rich_help_panel=PREPARED,
        ),
    ] = None
    export: Annotated[
        Literal["mmrec", "split"] | None,
        typer.Option(
            help="write the dataset for other projects: mmrec in MMRec's format, split as train, validation and test, "
            "each as TSV and Parquet (LensKit, WarpRec)",
            rich_help_panel=PREPARED,
        ),
    ] = None
    to: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path, metavar="DIR", help="with --export: folder to write to", rich_help_panel=PREPARED
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="with --export split: time-line, ratio or cold-items, perhaps with values, or the split of an "
            "installed package (default: leave-one-out, or the split of the dataset itself)",
            rich_help_panel=PREPARED,
        ),
    ] = None
    output: Annotated[Path, typer.Option(parser=parse_path, metavar="DIR", help="folder of the prepared datasets")] = (
        Path("dataset")
    )
    version: Version = False
