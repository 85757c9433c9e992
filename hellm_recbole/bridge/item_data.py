"""Features and texts of items for our models in RecBole, in the order of RecBole's item ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.dataset import CACHE
from hellm_recbole.data.feature_files import FEATURES, check_tokens, list_features, read_coverage, read_features
from hellm_recbole.data.features import TEXT, encode_texts
from hellm_recbole.data.importers.sources import KINDS
from hellm_recbole.data.item_texts import read_item_texts
from hellm_recbole.data.known_datasets import list_datasets
from hellm_recbole.data.manifest import MANIFEST, read_manifest
from hellm_recbole.data.prepare import make_request, read_dataset_settings, read_feature_settings
from hellm_recbole.data.tsv import read_table
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.types import FloatArray, TokenArray, TrainData


def add_item_data(data: TrainData, config: Any, item_tokens: TokenArray, spec: ModelSpec, settings: Any) -> TrainData:
    """Add the features and texts of items that a model reads.

    Features are read from `<modality>_feat.npy` and its token file in the dataset's folder. If there is no such file
    and this project knows the dataset, its item texts are encoded instead: the RecBole wheel contains MovieLens-100K
    with titles and genres. Texts are those that `benchmarks/prepare.py` has noted, or those of a known dataset.

    Args:
        data: training data without features and texts.
        config: RecBole's configuration.
        item_tokens: [I + 1] token of each item id; entry 0 is "".
        spec: entry of the model in the registry.
        settings: settings of the model.

    Raises:
        DataError: a file is malformed or lacks an item.
    """
    folder, items = Path(config["data_path"]), [str(token) for token in item_tokens[1:]]
    name = str(config["dataset"])
    is_prepared = (folder / MANIFEST).is_file()
    is_known = not is_prepared and name in list_datasets() and (folder / f"{name}.item").is_file()
    features: dict[str, FloatArray] = {}
    covered: dict[str, npt.NDArray[np.bool_]] = {}
    for modality in spec.choose_features(settings, dict.fromkeys(list_features(folder) or [TEXT] * is_known)):
        path = folder / f"{modality}{FEATURES}"
        if path.is_file():
            matrix = read_features(path)
            check_tokens(path, matrix.tokens, items, allowed=set(matrix.tokens))  # RecBole may have filtered out items
            features[modality] = _add_padding(matrix.select_items(items).values)
            covered[modality] = read_coverage(folder, modality, item_tokens)
        else:
            cache = Path(config["checkpoint_dir"]) / "encodings"
            texts = list(_read_known_texts(folder, name, items))
            values = encode_texts(items, texts, read_feature_settings({}), cache, progress=False)[0].values
            features[modality] = _add_padding(values)
    texts_of_items: tuple[str, ...] = ()
    if spec.gets_texts(settings) and is_prepared:
        texts_of_items = _read_prepared_texts(folder, items)
    elif spec.gets_texts(settings) and is_known:
        texts_of_items = ("", *_read_known_texts(folder, name, items))
    cache_folder = folder / CACHE if is_prepared else None
    return replace(data, features=features, covered=covered, item_text=texts_of_items, cache=cache_folder)


def _read_known_texts(folder: Path, name: str, items: list[str]) -> list[str]:
    """Read the texts of the items of a dataset that this project knows, from RecBole's files."""
    settings = read_dataset_settings(name, None, {})
    raw = KINDS["recbole"].read(folder, make_request(name, settings, progress=False))
    return list(read_item_texts(raw.items, items, settings.text, folder))


def _read_prepared_texts(folder: Path, items: list[str]) -> tuple[str, ...]:
    """Read the [I + 1] texts of the items of a prepared dataset; empty if it has none."""
    manifest = read_manifest(folder)
    path = folder / f"{manifest.name}.item"
    if not manifest.text or not path.is_file():
        return ()
    return ("", *read_item_texts(read_table(path, typed=True).frame, items, manifest.text, folder))


def _add_padding(values: FloatArray) -> FloatArray:
    """Add row 0 of zeros to features: [I, D_m] -> [I + 1, D_m]."""
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values])
