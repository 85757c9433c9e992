"""Parts of the preparation of a dataset: the filter, the list of its inputs, and a hint about unused texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.dataset_settings import DatasetSettings
from hellm_recbole.data.features import TEXT, FeatureSettings
from hellm_recbole.data.importers.assemble import recognize_leave_one_out
from hellm_recbole.data.importers.tabular import PICTURE
from hellm_recbole.data.k_core import filter_k_core
from hellm_recbole.data.manifest import Inputs
from hellm_recbole.data.modalities import has_missing_rows
from hellm_recbole.data.own_pictures import digest_pictures
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import sha256_file


def filter_interactions(imported: AtomicData, k_core: int, name: str) -> AtomicData:
    """Return the k-core, without a given split that is leave-one-out.

    Raises:
        DataError: no interaction is left, or the filter would cut a given split.
    """
    data = filter_k_core(imported, k_core, name)
    if "split" in imported.inter and len(data.inter) < len(imported.inter):
        raise DataError(
            f"dataset {name} has its own split, but the {k_core}-core filter would drop "
            f"{len(imported.inter) - len(data.inter):,} of {len(imported.inter):,} interactions from it; keep them "
            "with --k-core 0"
        )
    return recognize_leave_one_out(data)


def list_inputs(
    source: Path,
    settings: DatasetSettings,
    encoding: FeatureSettings,
    imported: AtomicData,
    pictures: Mapping[str, Path],
) -> Inputs:
    """List everything that the prepared dataset depends on.

    Args:
        source: folder of the source files.
        settings: settings of the dataset.
        encoding: settings of the encoders.
        imported: what the importer has read.
        pictures: item -> file of its own picture; empty if no own pictures are encoded.
    """
    encodes = bool(settings.text or settings.pictures)
    entries: dict[str, Any] = {
        "kind": settings.kind,
        "k_core": settings.k_core,
        "text": settings.text,
        "columns": settings.columns,
        "encoder": encoding.encoder if settings.text else None,
        "pooling": encoding.pooling if settings.text else None,
        "image encoder": encoding.image_encoder if settings.pictures else None,
        "fill": encoding.fill if encodes or has_missing_rows(imported) else None,
        "feature_dtype": encoding.feature_dtype if encodes else None,
        "source": {str(path.relative_to(source)): sha256_file(path) for path in imported.files},
    }
    if pictures:
        entries["pictures_sha256"] = digest_pictures(pictures)
    return Inputs.model_validate(entries)


def report_unused_texts(data: AtomicData, settings: DatasetSettings) -> list[str]:
    """Return a sentence about item texts that no features are made from, or nothing.

    Nothing is reported for a kind that uses texts by default, because then the user has turned them off.
    """
    default_columns = load_yaml(find_properties() / "kinds.yaml")[settings.kind].get("text")
    if settings.text or default_columns or data.items is None or TEXT in data.features:
        return []
    picture = next((entry.partition("=")[2] for entry in settings.columns if entry.startswith(f"{PICTURE}=")), PICTURE)
    names = [str(name) for name in data.items if name != picture or not (data.image_files or data.image_urls)]
    columns = [name for name in names if data.item_types[name] == "token_seq" and (data.items[name] != "").any()]
    return [f"the items' texts are not used; --text {' '.join(columns)} makes features of them"] if columns else []


def report_unused_pictures(data: AtomicData, settings: DatasetSettings) -> list[str]:
    """Return a sentence about pictures in files that no features are made from, or nothing."""
    if settings.pictures or not (data.image_files or data.image_folder):
        return []
    return ["the items' pictures are not used; --pictures makes features of them"]
