"""Prepare a dataset as prepare.py was asked, and check, export or shuffle a prepared one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hellm_recbole.benchmarks.options.command_line import EMPTY_LIST
from hellm_recbole.benchmarks.options.prepare import PrepareOptions
from hellm_recbole.benchmarks.options.values import parse_dataset
from hellm_recbole.benchmarks.tasks.encoding_place import choose_place
from hellm_recbole.config.limits import LARGEST, LARGEST_SEED
from hellm_recbole.data.dataset import load_dataset, read_source_times
from hellm_recbole.data.dataset_settings import DatasetSettings
from hellm_recbole.data.diagnostics.card import format_card
from hellm_recbole.data.diagnostics.similar_items import find_similar_items
from hellm_recbole.data.download.raw_files import RAW, fetch_raw, find_raw_source, list_fetched_kinds, locate_raw
from hellm_recbole.data.encoding_blocks import FoundEncoder
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.export_split import write_split
from hellm_recbole.data.feature_files import list_features
from hellm_recbole.data.features import TEXT, FeatureSettings, parse_encoder
from hellm_recbole.data.further_encodings import add_to_prepared
from hellm_recbole.data.importers.amazon.vintages import VINTAGES
from hellm_recbole.data.importers.archive import unpack_source
from hellm_recbole.data.importers.sources import TABLE
from hellm_recbole.data.importers.tabular import FIELDS
from hellm_recbole.data.known_datasets import list_kinds, resolve_name
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared, prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.data.ties import shuffle_ties
from hellm_recbole.errors import SettingsError
from hellm_recbole.hub.dataset_card import write_dataset_card
from hellm_recbole.plugins.splits import split_as_named
from hellm_recbole.system.files import check_name

SOURCE_OPTIONS = ("kind", "source", "raw", "no_download", "image_dir", "fresh")
DATASET_KEYS = ("k_core", "text", "category", "columns", "pictures")
# Options that only a causal language model as text encoder reads
LANGUAGE_MODEL_KEYS = ("encoder_layer", "encoder_tokens", "encoder_dtype", "encoder_weights", "encoder_seed")
TEXT_KEYS = ("encoder", "pooling", *LANGUAGE_MODEL_KEYS)
FEATURE_KEYS = (*TEXT_KEYS, "image_encoder", "fill", "feature_dtype", "encode_device", "encode_actors")


def execute(options: PrepareOptions) -> int:
    """Prepare, check, export or shuffle the dataset, and return the exit code.

    Raises:
        HellmError: an option is invalid or would have no effect, or the data cannot be read or written.
    """
    _refuse_contradictions(options)
    options = replace(options, name=_find_name(options))
    folder = options.output / options.name
    if options.check:
        print(format_card(folder))
        if options.neighbors is not None:
            print(f"\n{find_similar_items(folder, options.neighbors)}")
    elif options.card:
        print(f"wrote {write_dataset_card(folder, options.licence, fresh=options.fresh)}")
    elif options.to is not None:
        _export(options, folder, options.to)
        print(f"exported {folder} to {options.to}")
    elif options.shuffle_ties is not None:
        print(f"prepared {shuffle_ties(folder, options.output, options.shuffle_ties)}")
    else:
        _print_prepared(_prepare(options))
    return 0


def _export(options: PrepareOptions, folder: Path, to: Path) -> None:
    """Write a prepared dataset in the format of another project."""
    times = read_source_times(folder)
    if options.export == "mmrec":
        write_mmrec(load_dataset(folder, modalities=None), to, times)
        return
    dataset = load_dataset(folder, modalities=())
    write_split(dataset, split_as_named(dataset, options.split, folder)[1], to, times)


def _find_name(options: PrepareOptions) -> str:
    """Return the name under which the dataset is known, or the given name.

    Data of a kind that the known dataset does not have, such as MMRec's `sports`, are the user's own and keep their
    name.

    Raises:
        SettingsError: the name cannot be the name of a folder.
    """
    folders = (options.output,)
    known = resolve_name(check_name(options.name, "dataset"), folders)
    if options.kind is not None and options.kind not in list_kinds(known):
        return options.name
    return parse_dataset(options.name, folders)


def _refuse_contradictions(options: PrepareOptions) -> None:
    """Refuse options that contradict each other, and numbers out of range.

    Raises:
        SettingsError: there is one.
    """
    seed, n_shown = options.shuffle_ties, options.neighbors
    actions = options.check + options.card + (options.export is not None) + (seed is not None)
    if actions > 1:
        raise SettingsError("--check, --card, --shuffle-ties and --export exclude each other; use only one of them")
    if options.licence is not None and not options.card:
        raise SettingsError("--licence can only be used with --card")
    if n_shown is not None and not (options.check and 0 < n_shown <= LARGEST):
        raise SettingsError(f"--neighbors can only be used with --check, and must be from 1 to {LARGEST}")
    if (options.export is None) != (options.to is None):
        raise SettingsError("--export and --to must be used together")
    if options.split is not None and options.export != "split":
        raise SettingsError("--split can only be used with --export split")
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise SettingsError(f"--shuffle-ties {seed} must be at least 0 and at most {LARGEST_SEED}")
    if actions:
        keys = (*SOURCE_OPTIONS, *DATASET_KEYS, *FEATURE_KEYS, "ray")
        refused = [key for key in keys if not (key == "fresh" and options.card)]
        _refuse_options(options, refused, "can only be used to prepare a dataset")


def _prepare(options: PrepareOptions) -> Prepared:
    """Read the settings and prepare the dataset.

    Raises:
        SettingsError: an option is invalid or would have no effect.
    """
    encoding = read_feature_settings({**_read_given(options, FEATURE_KEYS), **_read_encoders(options)})
    _refuse_unread_options(options, encoding)
    if _adds_encodings_only(options):
        folder = options.output / options.name
        with choose_place(options.ray, encoding) as where:
            added = add_to_prepared(folder, encoding, _find_text_encoder, progress=True, where=where)
        return Prepared(folder, fresh=False, speed=added)
    _refuse_missing_kind(options)
    settings = read_dataset_settings(options.name, options.kind, _read_given(options, DATASET_KEYS))
    if options.image_dir is not None:
        if options.pictures is False:
            raise SettingsError("--image-dir and --no-pictures contradict each other; use only one of them")
        settings = settings.model_copy(update={"pictures": True})
    _refuse_unread_settings(options, settings)
    with (
        choose_place(options.ray, encoding) as where,
        unpack_source(_find_source_files(options, settings)) as source,
        _unpack_pictures(options) as image_dir,
    ):
        if not (settings.text or settings.pictures or list_features(source.parent if source.is_file() else source)):
            _refuse_options(options, ["fill"], "can only be used with --text, --pictures or feature files")
        return prepare(
            options.name,
            source,
            settings.model_copy(update={"image_dir": image_dir}),
            encoding,
            options.output,
            fresh=options.fresh,
            progress=True,
            find=_find_text_encoder,
            where=where,
        )


def _refuse_missing_kind(options: PrepareOptions) -> None:
    """Refuse to prepare the user's own data again if the kind of their source is not named.

    Raises:
        SettingsError: the dataset is prepared, it is not a known one, and no kind is given.
    """
    folder = options.output / options.name
    if options.kind is None and not list_kinds(options.name) and is_prepared(folder):
        kind = read_manifest(folder).kind
        source = "" if options.source is not None else " and its files with --source PATH"
        raise SettingsError(
            f"{folder} is prepared already, and it is not a known dataset; to prepare it again, name its kind with "
            f"--from {kind}{source}"
        )


@contextmanager
def _unpack_pictures(options: PrepareOptions) -> Iterator[str | None]:
    """Yield the folder of own pictures, unpacked if it is an archive; None if there is none.

    Raises:
        DataError: the archive is broken.
    """
    if options.image_dir is None:
        yield None
        return
    with unpack_source(options.image_dir) as folder:
        yield str(folder)


def _refuse_unread_settings(options: PrepareOptions, settings: DatasetSettings) -> None:
    """Refuse options that this kind of source or the chosen features do not read.

    Raises:
        SettingsError: such an option was given.
    """
    if settings.kind != TABLE:
        _refuse_options(options, ["columns"], f"can only be used with --from {TABLE}")
    if settings.kind not in VINTAGES:
        _refuse_options(options, ["category"], f"can only be used with --from {', '.join(VINTAGES)}")
    if not settings.text:
        _refuse_options(options, TEXT_KEYS, "can only be used with text columns, and this dataset has none (--text)")
    if not settings.pictures:
        _refuse_options(options, ["image_encoder"], "can only be used with --pictures or --image-dir")
    if not settings.text and not settings.pictures:
        unread = ["feature_dtype", "encode_device", "encode_actors", "ray"]
        _refuse_options(options, unread, "can only be used with --text or --pictures")
    if settings.kind == TABLE:
        _refuse_shared_columns(settings.columns)


def _read_encoders(options: PrepareOptions) -> dict[str, Any]:
    """Read the text encoders of the command line, as the settings `encoder` and `further_encoders`.

    Raises:
        SettingsError: an encoder is malformed, or a modality has two.
    """
    encoders: dict[str, str] = {}
    for given in options.encoder or []:
        try:
            modality, encoder = parse_encoder(given)
        except ValueError as error:
            raise SettingsError(f"--encoder {given!r} {error}") from error
        if modality in encoders:
            raise SettingsError(
                f"--encoder gives the modality {modality} twice ({encoders[modality]} and {encoder}); give each "
                "encoder a modality of its own, such as text_llm=NAME"
            )
        encoders[modality] = encoder
    further = [f"{modality}={encoder}" for modality, encoder in encoders.items() if modality != TEXT]
    return {
        **({"encoder": encoders[TEXT]} if TEXT in encoders else {}),
        **({"further_encoders": further} if further else {}),
    }


def _adds_encodings_only(options: PrepareOptions) -> bool:
    """Return whether the command only adds further encodings to a prepared dataset, for which no source is needed."""
    given = [parse_encoder(text)[0] for text in options.encoder or []]
    others = ("kind", "source", "raw", "fresh", "image_dir", "image_encoder", *DATASET_KEYS)
    return (
        bool(given)
        and TEXT not in given
        and all(getattr(options, key) in (None, False) for key in others)
        and is_prepared(options.output / options.name)
    )


def _find_text_encoder(modality: str, encoder: str, settings: FeatureSettings) -> FoundEncoder:
    """Find a text encoder; see `find_text_encoder`. Its module loads torch, which only encoding needs."""
    from hellm_recbole.llm.text_encoder import find_text_encoder

    return find_text_encoder(modality, encoder, settings)


def _refuse_unread_options(options: PrepareOptions, encoding: FeatureSettings) -> None:
    """Refuse options for causal language models if no text encoder is one, and a seed that nothing draws from.

    Raises:
        SettingsError: such an option was given.
        DataError: a text encoder cannot be found.
    """
    if options.ray is None:
        _refuse_options(options, ["encode_actors"], "can only be used with --ray")
    if encoding.encoder_weights != "random":
        _refuse_options(options, ["encoder_seed"], "can only be used with --encoder-weights random")
    if all(getattr(options, key) is None for key in LANGUAGE_MODEL_KEYS):
        return
    from hellm_recbole.llm.text_encoder import PACKAGED_MODEL, find_language_model  # see `_find_text_encoder`

    encoders = {encoding.encoder, *encoding.list_further_encoders().values()}
    if not any(find_language_model(encoder) for encoder in encoders):
        reason = f"can only be used with a causal language model as --encoder, such as {PACKAGED_MODEL}"
        _refuse_options(options, LANGUAGE_MODEL_KEYS, reason)


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


def _refuse_options(options: PrepareOptions, keys: Sequence[str], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: options of the command line.
        keys: names of the options to refuse.
        reason: end of the error message.

    Raises:
        SettingsError: one of the options was given.
    """
    for key in keys:
        if getattr(options, key) not in (None, False):
            option = "from" if key == "kind" else key.replace("_", "-")
            raise SettingsError(f"--{option} {reason}; leave it out")


def _read_given(options: PrepareOptions, keys: Sequence[str]) -> dict[str, Any]:
    """Return the settings that were given on the command line, without encoders of texts.

    `--text` without columns is an empty list.
    """
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None and key != "encoder"}
    if given.get("text") == [EMPTY_LIST]:
        given["text"] = []
    return given


def _find_source_files(options: PrepareOptions, settings: DatasetSettings) -> Path:
    """Return the folder or archive of the source files. Raw files that are missing are downloaded if possible.

    Raises:
        SettingsError: `--raw` is used with another kind of source or together with `--source`.
    """
    raw = find_raw_source(settings.kind, options.name)
    if options.raw is not None and (options.source is not None or raw is None):
        raise SettingsError(f"--raw can only be used with {', '.join(list_fetched_kinds())} and without --source")
    if options.source is not None:
        return Path(options.source)
    folder = Path(options.raw) if options.raw is not None else options.output / RAW / settings.kind
    located = None if raw is None else locate_raw(raw, options.name, settings.category, folder)
    if raw is None or (options.no_download and located is None):
        return find_source(options.name, settings.kind, settings.category, settings.origin, options.raw)
    path, files = fetch_raw(settings.kind, options.name, settings.category, folder, progress=True)
    for file in files:
        print(f"{file.path}: {file.n_bytes:,} bytes, SHA-256 {file.sha256}")
    return path


def _print_prepared(prepared: Prepared) -> None:
    """Print the warnings, the encoding speed and the folder of a prepared dataset."""
    if not prepared.fresh and not prepared.speed:
        print(f"{prepared.folder} is already prepared; replace it with --fresh")
        return
    for modality, speed in prepared.speed.items():
        if speed.n_encoded:
            rate = speed.n_encoded / speed.seconds
            print(f"{modality}: encoded {speed.n_encoded:,} in {speed.seconds:.1f} s, {rate:,.0f} per second")
    if not prepared.fresh:
        names = ", ".join(prepared.speed)
        print(f"added {names} to {prepared.folder}; models read it if their setting modalities names it, such as")
        print(f"--set HeLLMPre.modalities=[text,{names.replace(' ', '')}]")
        return
    for warning in prepared.warnings:
        print(warning)
    models = ",".join(_suggest_models(prepared.folder))
    command = f"hellm-recbole run --models {models} --dataset {prepared.folder.name}"
    print(f"prepared {prepared.folder}; train on it with {command}")


def _suggest_models(folder: Path) -> list[str]:
    """Suggest models that fit a prepared dataset: of sequences if it has an order, of features if it has some."""
    manifest = read_manifest(folder)
    with (folder / f"{manifest.name}.inter").open(encoding="utf-8") as stream:
        is_split = any(column.partition(":")[0] == "split" for column in stream.readline().rstrip("\n").split("\t"))
    models = ["Pop", "ItemKNN", "LightGCN"]
    if manifest.time_known or not is_split:
        models.append("SASRec")
    if manifest.modalities:
        models.append("HeLLMPre")
    return [*models, "SASRec-text"] if TEXT in manifest.modalities and "SASRec" in models else models
