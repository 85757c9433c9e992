"""Prepare a dataset: read its source, filter it, make its features, and write it with its manifest and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.properties_files import locate_file, read_file
from hellm_recbole.config.settings import build_settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.atomic import write_dataset
from hellm_recbole.data.columns import release_memory
from hellm_recbole.data.dataset_settings import DatasetSettings
from hellm_recbole.data.diagnostics.card import write_card
from hellm_recbole.data.diagnostics.warnings import examine
from hellm_recbole.data.download.raw_files import RAW, fetch_raw
from hellm_recbole.data.encoding_blocks import HERE, Encoding
from hellm_recbole.data.encoding_cache import Speed
from hellm_recbole.data.features import DEVICE_OPTION, FeatureSettings, FindEncoder, find_sentence_encoder
from hellm_recbole.data.further_encodings import ENCODINGS, add_encodings, check_same_encoding
from hellm_recbole.data.importers.amazon.vintages import VINTAGES
from hellm_recbole.data.importers.archive import unpack_source
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.sources import KINDS, TABLE
from hellm_recbole.data.k_core import report_dropped
from hellm_recbole.data.known_datasets import (
    OTHER_KINDS,
    OTHER_NAMES,
    list_datasets,
    list_kinds,
    list_other_names,
    make_unknown_error,
)
from hellm_recbole.data.manifest import MANIFEST, SCHEMA, FilterCounts, Inputs, Manifest, write_manifest
from hellm_recbole.data.modalities import FAILED, make_features, refuse_second_features
from hellm_recbole.data.own_pictures import OwnPictures, find_own_pictures
from hellm_recbole.data.preparation_parts import (
    filter_interactions,
    list_inputs,
    report_unused_pictures,
    report_unused_texts,
)
from hellm_recbole.data.replacement import check_replaceable, check_same_inputs, is_prepared
from hellm_recbole.data.source_folders import Source, choose_source
from hellm_recbole.data.split_check import compare_split, describe_comparison
from hellm_recbole.data.stored_split import store_columns, store_split
from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.system.files import (
    check_name,
    create_scratch_folder,
    ensure_folder,
    remove_leftovers,
    replace_folder,
)
from hellm_recbole.system.locks import FolderLock

EVERY_KIND = "every"  # section of kinds.yaml with settings of all kinds


@dataclass(frozen=True)
class Prepared:
    """Result of preparing a dataset.

    Attributes:
        folder: folder of the dataset.
        fresh: whether the dataset was prepared now; False: it existed before.
        speed: modality -> amount and duration of encoding. If `fresh` is False, these modalities were added to it.
        warnings: sentences about dropped data and data warnings.
    """

    folder: Path
    fresh: bool
    speed: Mapping[str, Speed]
    warnings: tuple[str, ...] = ()


def read_dataset_settings(name: str, kind: str | None, overrides: Mapping[str, Any]) -> DatasetSettings:
    """Read the settings of a dataset from the settings of its kind, its own settings file and the command line.

    Args:
        name: name of the dataset.
        kind: kind of source; None: the usual kind of a known dataset.
        overrides: settings of the command line, which replace the others.

    Raises:
        SettingsError: a value is missing or wrong.
        DataError: the dataset is unknown and no kind is given, or a known dataset has no such kind.
    """
    kinds = find_properties() / "kinds.yaml"
    own: dict[str, Any] = {}
    path = kinds
    if name in list_datasets():
        path, own = locate_file("dataset", name), read_file("dataset", name)
        other_kinds = own.pop(OTHER_KINDS, None) or {}
        own.pop(OTHER_NAMES, None)
        if kind is not None and kind != own["kind"]:
            if kind not in other_kinds:
                raise DataError(
                    f"{path}: dataset {name} is of kind {' or '.join([own['kind'], *other_kinds])}, not {kind}; give "
                    "your data another name"
                )
            own = {**other_kinds[kind], "kind": kind, "paper": own.get("paper")}
    elif kind is None:
        raise make_unknown_error(name, [])
    chosen_kind, sections = str(own.get("kind", kind)), load_yaml(kinds)
    layer = {"kind": chosen_kind, **sections[EVERY_KIND], **sections[chosen_kind]}
    resolved = Resolved(layer, dict.fromkeys(layer, str(kinds)))
    resolved = resolved.override(own, str(path)).override(overrides, "the command line")
    settings = build_settings(DatasetSettings, resolved)
    for entry in settings.text:
        if not all(column.strip() for column in entry.split("|")):
            raise SettingsError(
                f"--text {entry!r} contains an empty column name; name columns of the items' table, or give --text "
                "without a value to use no texts"
            )
    if settings.kind in VINTAGES and settings.category is None:
        raise DataError(
            f"dataset {name} needs the name of an Amazon category; give it with --category, such as All_Beauty"
        )
    if settings.category is not None:
        check_name(settings.category, "--category")
    return settings


def read_feature_settings(overrides: Mapping[str, Any]) -> FeatureSettings:
    """Read the settings of the encoders; `overrides` are those of the command line.

    Raises:
        SettingsError: a value is missing or wrong.
    """
    path = find_properties() / "features.yaml"
    layer = load_yaml(path)
    resolved = Resolved(layer, dict.fromkeys(layer, str(path)))
    settings = build_settings(FeatureSettings, resolved.override(overrides, "the command line"))
    for option, encoder in (("--encoder", settings.encoder), ("--image-encoder", settings.image_encoder)):
        if not encoder.strip():
            raise SettingsError(f"{option} {encoder!r} is empty; give a Hugging Face id or a folder")
    return settings


def prepare_if_known(
    name: str,
    *,
    data_path: Path | None,
    dataset_root: Path,
    find: FindEncoder = find_sentence_encoder,
    may_download: bool = False,
) -> Prepared:
    """Return a prepared dataset; prepare a known dataset if that has not been done.

    Args:
        name: name of the dataset.
        data_path: folder that is searched first for the source; the source is in it or in its subfolder `name`.
        dataset_root: folder of the prepared datasets.
        find: function that finds the text encoders.
        may_download: whether to download the raw files if no source is found. What is downloaded is printed before.

    Raises:
        DataError: the dataset is unknown, its source is not found, or its files are faulty.
        SettingsError: the name cannot be used as a file name.
        MissingDependency: the package with the source or with the encoder is not installed.
        OutputError: `dataset_root` cannot be written to.
    """
    source = find_known_source(name, data_path=data_path, dataset_root=dataset_root, may_download=may_download)
    if source is None:
        return Prepared(dataset_root / name, fresh=False, speed={})
    if source.kind != (usual := list_kinds(name)[0]):
        print(f"{name}: no source of kind {usual} was found, so it is prepared from raw files of kind {source.kind}")
    settings = read_dataset_settings(name, source.kind, {})
    encoding = read_feature_settings({})
    path = source.path
    if path is None:
        path, _ = fetch_raw(source.kind, name, settings.category, dataset_root / RAW / source.kind, progress=True)
    with unpack_source(path) as folder:
        return prepare(name, folder, settings, encoding, dataset_root, fresh=False, progress=True, find=find)


def find_known_source(
    name: str, *, data_path: Path | None, dataset_root: Path, may_download: bool = False
) -> Source | None:
    """Find the source of a known dataset; None if the dataset is prepared. Nothing is read.

    Args:
        name: name of the dataset.
        data_path: folder that is searched first for the source; the source is in it or in its subfolder `name`.
        dataset_root: folder of the prepared datasets.
        may_download: whether raw files that can be downloaded are a source as well.

    Raises:
        DataError: the dataset is unknown, or its source is not found.
        SettingsError: the name cannot be used as a file name.
        MissingDependency: the package with the source is not installed.
    """
    check_name(name, "dataset")
    if is_prepared(dataset_root / name):
        return None
    if name not in list_datasets():
        raise make_unknown_error(name, [path.parent.name for path in dataset_root.glob(f"[!.]*/{MANIFEST}")])
    settings = read_dataset_settings(name, None, {})

    def read_category(kind: str) -> str | None:
        return read_dataset_settings(name, kind, {}).category

    return choose_source(
        name, settings.kind, settings.origin, read_category, data_path, dataset_root / RAW, may_download=may_download
    )


def make_request(name: str, settings: DatasetSettings, *, table: str | None = None, progress: bool) -> Request:
    """Make the request to the importer of a dataset.

    Args:
        name: name of the dataset.
        settings: settings of the dataset.
        table: file name of the table if the source is a single table, else None.
        progress: whether to show progress bars.

    Raises:
        DataError: an entry of `columns` is not `field=column`, or two entries have the same field or column.
    """
    columns: dict[str, str] = {}
    for entry in settings.columns:
        field, sign, column = entry.partition("=")
        if not (field and sign and column):
            raise DataError(f"--columns: {entry!r} is not FIELD=COLUMN; write an entry such as user=customer_id")
        if field in columns or column in columns.values():
            raise DataError(
                f"--columns: {entry!r} repeats a field or a column of another entry; give each field its own column"
            )
        columns[field] = column
    return Request(name, settings.category or "", columns, table, progress, tuple(list_other_names(name)))


def prepare(
    name: str,
    source: Path,
    settings: DatasetSettings,
    encoding: FeatureSettings,
    dataset_root: Path,
    *,
    fresh: bool,
    progress: bool,
    find: FindEncoder = find_sentence_encoder,
    where: Encoding = HERE,
) -> Prepared:
    """Prepare a dataset and write it to `dataset_root/name`.

    The folder is written completely or not at all, even if the process is killed.

    Args:
        name: name of the dataset.
        source: folder of the source files, or the file of a table.
        settings: settings of the dataset.
        encoding: settings of the encoders of texts and pictures.
        dataset_root: folder of the prepared datasets.
        fresh: whether to replace a dataset that was prepared before. If not, further encodings are added to it.
        progress: whether to show progress bars.
        find: function that finds the text encoders.
        where: where texts and pictures are encoded.

    Raises:
        DataError: the source is faulty, or the folder of the dataset contains other files.
        SettingsError: the name cannot be used as a file name.
        MissingDependency: the encoder's package is not installed.
        OutputError: `dataset_root` cannot be written to.
    """
    check_name(name, "dataset")
    folder = dataset_root / name
    if folder.exists() and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise DataError(f"the source {source} is inside the output folder {folder}; choose another one with --output")
    table = source.name if source.is_file() and settings.kind == TABLE else None
    if table is not None:
        source = source.parent
    if source.is_file():
        raise DataError(f"{source} is a file, but a source of kind {settings.kind} must be a folder or an archive")
    if not source.is_dir():
        raise DataError(f"source folder {source} does not exist; name an existing folder with --source")
    if where is HERE and (settings.text or settings.pictures):
        from hellm_recbole.system.runtime import choose_device  # loads torch, which only encoders need

        choose_device(encoding.encode_device, DEVICE_OPTION)  # fails before the source is read
    with FolderLock(folder, f"dataset {name}"):
        remove_leftovers(dataset_root)
        check_replaceable(folder, fresh)
        return _prepare(
            name, source, settings, encoding, dataset_root, table, find, where, fresh=fresh, progress=progress
        )


def _prepare(
    name: str,
    source: Path,
    settings: DatasetSettings,
    encoding: FeatureSettings,
    dataset_root: Path,
    table: str | None,
    find: FindEncoder,
    where: Encoding,
    *,
    fresh: bool,
    progress: bool,
) -> Prepared:
    """Prepare a dataset; see `prepare`. `table` is the file name of a source that is a single table, else None."""
    folder = dataset_root / name
    imported = KINDS[settings.kind].read(source, make_request(name, settings, table=table, progress=progress))
    own = OwnPictures({})
    if settings.pictures:
        own = find_own_pictures(imported, None if settings.image_dir is None else Path(settings.image_dir))
    if settings.image_dir is not None:
        imported = replace(imported, image_urls={})  # own pictures take the place of those of the source
    inputs = list_inputs(source, settings, encoding, imported, own.files)
    if not fresh and is_prepared(folder):
        check_same_inputs(folder, inputs)
        check_same_encoding(folder, encoding)
        added = add_encodings(folder, encoding, find, progress=progress, where=where)
        return Prepared(folder, fresh=False, speed=added)
    data = filter_interactions(imported, settings.k_core, name)
    wanted = (settings.text, settings.pictures)
    refuse_second_features(source, imported.features, *wanted, encoding.list_further_encoders())
    cache = ensure_folder(dataset_root) / ENCODINGS
    made = make_features(
        name, source, data, *wanted, encoding, cache, find=find, progress=progress, own_pictures=own.files, where=where
    )
    before, after = imported.counts(), data.counts()
    sentences = [*data.warnings, *own.notes, *made.warnings]
    counts = FilterCounts(before=before, after=after)
    manifest = _make_manifest(name, settings, imported.time_known, sentences, inputs, counts)
    dropped_items = sorted(set(imported.item_ids()) - set(data.item_ids()))
    unused = [*report_unused_texts(data, settings), *report_unused_pictures(data, settings)]
    with create_scratch_folder(folder.parent, folder.name) as temporary:
        if made.failed:
            lines = "".join(f"{item}\t{reason}\n" for item, reason in made.failed.items())
            (temporary / FAILED).write_text(lines, encoding="utf-8")
        write_dataset(temporary, data, made.features, manifest, dropped_items)
        speed = made.speed
        del imported, data, made  # the tables are not needed any more, and large
        findings = _examine(temporary, settings)
        replace_folder(temporary, folder)
    warnings = (*report_dropped(settings.k_core, before, after), *sentences, *unused, *findings)
    return Prepared(folder, fresh=True, speed=speed, warnings=warnings)


def _make_manifest(
    name: str,
    settings: DatasetSettings,
    time_known: bool,
    sentences: Sequence[str],
    inputs: Inputs,
    counts: FilterCounts,
) -> Manifest:
    """Make the manifest of a dataset, without the entries about its files."""
    return Manifest(
        schema=SCHEMA,
        name=name,
        kind=settings.kind,
        k_core=settings.k_core,
        text=settings.text,
        paper=settings.paper,
        origin=settings.origin,
        category=settings.category,
        columns=settings.columns,
        pictures=settings.pictures,
        time_known=time_known,
        warnings=tuple(sentences),
        inputs=inputs,
        counts=counts,
        modalities={},
        files={},
    )


def _examine(folder: Path, settings: DatasetSettings) -> list[str]:
    """Write the columnar copy of a dataset, compare its split with the stored one, and write its card.

    Args:
        folder: folder of the written dataset; no other process may read it yet.
        settings: settings of the dataset, with the hashes of the stored split.

    Returns:
        Sentences about the comparison and the data warnings.
    """
    store_columns(folder)
    release_memory()
    examination = examine(folder)
    store_split(folder, examination.split)
    comparison = compare_split(examination.split, settings.split_sha256, settings.split_sha256_without_users)
    if comparison is not None:
        compared = examination.manifest.model_copy(update={"split_comparison": comparison})
        write_manifest(folder, compared)
        examination = replace(examination, manifest=compared)
    diagnostics = write_card(folder, examination)
    return [*([] if comparison is None else [describe_comparison(comparison)]), *diagnostics]
