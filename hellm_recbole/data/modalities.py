"""Make the features of all items: fill those of the source, encode texts, and fetch and encode pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.download.images import fetch_pictures
from hellm_recbole.data.download.raw_files import read_download_settings
from hellm_recbole.data.encoding_blocks import HERE, Encoding, FoundEncoder
from hellm_recbole.data.encoding_cache import Speed
from hellm_recbole.data.feature_files import FEATURES, FeatureMatrix
from hellm_recbole.data.features import (
    IMAGE,
    TEXT,
    FeatureSettings,
    FindEncoder,
    encode_pictures,
    encode_texts,
    fill_features,
)
from hellm_recbole.data.item_texts import read_item_texts
from hellm_recbole.data.own_pictures import NO_FILE, check_own_pictures, list_some
from hellm_recbole.errors import DataError
from hellm_recbole.identity.parts import digest_texts

FAILED = "image_failed.tsv"  # items whose pictures could not be fetched, with the reason


@dataclass(frozen=True)
class MadeFeatures:
    """Features of all items of a dataset.

    Attributes:
        features: modality -> features of all items.
        speed: modality -> amount and duration of encoding.
        failed: item -> reason why it has no picture.
        warnings: sentences for the manifest.
    """

    features: dict[str, FeatureMatrix]
    speed: dict[str, Speed] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def refuse_second_features(
    source: Path, given: Collection[str], text: Sequence[str], pictures: bool, further: Collection[str] = ()
) -> None:
    """Refuse to encode a modality of which the source has features.

    Args:
        source: folder of the source files, for the message.
        given: modalities of the source.
        text: columns of the texts to encode; empty if none are.
        pictures: whether pictures are encoded.
        further: modalities of the further encodings of the texts.

    Raises:
        DataError: a modality would exist twice.
    """
    for requested, modality, option in (
        (text, TEXT, "--text without a value"),
        (pictures, IMAGE, "--no-pictures"),
        *((True, name, "the encoder another name") for name in further),
    ):
        if requested and modality in given:
            raise DataError(
                f"modality {modality!r} would exist twice, because the source {source} has features of it; "
                f"give {option}, or remove their file"
            )


def make_features(
    name: str,
    source: Path,
    data: AtomicData,
    text: Sequence[str],
    pictures: bool,
    encoding: FeatureSettings,
    cache: Path,
    *,
    find: FindEncoder,
    progress: bool,
    own_pictures: Mapping[str, Path] | None = None,
    where: Encoding = HERE,
) -> MadeFeatures:
    """Fill the features of the source, and encode texts and pictures.

    Args:
        name: name of the dataset, for messages.
        source: folder of the source files.
        data: filtered tables, with the features and addresses of pictures of the source.
        text: columns of the texts to encode; empty to encode none.
        pictures: whether to fetch and encode pictures.
        encoding: settings of the encoders.
        cache: folder for encodings and pictures.
        find: function that finds the text encoders.
        progress: whether to show progress bars.
        own_pictures: item -> file of its picture, in place of an address; None if there are no such files.
        where: where texts and pictures are encoded.

    Raises:
        DataError: texts, pictures or features are missing or faulty.
        MissingDependency: the encoder's package is not installed.
    """
    items = data.item_ids()
    made = MadeFeatures(
        {
            modality: fill_features(matrix, items, encoding, source / f"{modality}{FEATURES}")
            for modality, matrix in data.features.items()
        }
    )
    if text:
        texts = read_item_texts(data.items, items, text, source)
        encoders = {TEXT: encoding.encoder, **encoding.list_further_encoders()}
        found = {modality: find(modality, encoder, encoding) for modality, encoder in encoders.items()}
        for modality, encoder in found.items():
            made.features[modality], made.speed[modality] = encode_modality(
                modality, encoder, items, texts, encoding, cache, progress=progress, where=where
            )
    if pictures:
        files = _collect_pictures(name, source, data, own_pictures or {}, cache, made, progress=progress)
        encoded = encode_pictures(items, files, encoding, cache, progress=progress, where=where)
        made.features[IMAGE], made.speed[IMAGE] = encoded
    return made


def _collect_pictures(
    name: str,
    source: Path,
    data: AtomicData,
    own_pictures: Mapping[str, Path],
    cache: Path,
    made: MadeFeatures,
    *,
    progress: bool,
) -> dict[str, Path]:
    """Return item -> file of its picture: own files, and pictures that are fetched from the addresses of the source.

    Items without picture and the reasons are added to `made`. See `make_features` for the arguments.

    Raises:
        DataError: there is neither a file nor an address.
    """
    items = data.item_ids()
    own = {item: own_pictures[item] for item in items if item in own_pictures}
    urls = {item: data.image_urls[item] for item in items if item in data.image_urls and item not in own}
    if not own and not urls:
        raise DataError(
            f"{source} has no addresses of pictures for the items of {name}; prepare it without --pictures, or name "
            "a folder of their pictures with --image-dir"
        )
    files, broken = check_own_pictures(own)
    if broken:
        what = "1 picture cannot" if len(broken) == 1 else f"{len(broken):,} pictures cannot"
        made.warnings.append(f"{what} be read: {list_some(list(broken.values()))}")
        if not files and not urls:
            raise DataError(f"no picture of {name} can be read ({list_some(list(broken.values()))}); replace the files")
    fetched_failures: Mapping[str, str] = {}
    if urls:
        fetched = fetch_pictures(urls, cache / "pictures", read_download_settings(), progress=progress)
        files.update(fetched.files)
        fetched_failures = fetched.failed
    absent = NO_FILE if own else "no address"
    made.failed.update({item: absent for item in items if item not in own and item not in urls})
    made.failed.update(broken)
    made.failed.update(fetched_failures)
    made.warnings.append(f"{len(made.failed):,} of {len(items):,} items have no picture; {FAILED} says why")
    return files


def encode_modality(
    modality: str,
    found: FoundEncoder,
    items: Sequence[str],
    texts: Sequence[str],
    encoding: FeatureSettings,
    cache: Path,
    *,
    progress: bool,
    where: Encoding = HERE,
) -> tuple[FeatureMatrix, Speed]:
    """Encode the texts of items as one modality; the manifest of a further encoding states a digest of the texts.

    Args:
        modality: name of the modality.
        found: its encoder.
        items: [n] items.
        texts: [n] text of each item.
        encoding: settings of the encoders.
        cache: folder for encodings.
        progress: whether to show a progress bar.
        where: where texts are encoded.

    Raises:
        DataError: no item has a text, or the encoder cannot be loaded.
        MissingDependency: the encoder's package is not installed.
    """
    matrix, speed = encode_texts(items, texts, encoding, cache, progress=progress, found=found, where=where)
    if modality == TEXT:
        return matrix, speed
    return replace(matrix, about={**found.about, "text_sha256": digest_texts(texts), **matrix.about}), speed


def has_missing_rows(imported: AtomicData) -> bool:
    """Return whether a feature file has no row for some item."""
    items = set(imported.item_ids())
    return any(not items.issubset(matrix.tokens) for matrix in imported.features.values())
