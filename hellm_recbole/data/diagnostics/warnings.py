"""Find the data warnings of a prepared dataset: run all checks, and sort their findings by severity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.diagnostics.findings import SEVERITIES, Finding
from hellm_recbole.data.diagnostics.item_data import check_features, check_texts
from hellm_recbole.data.diagnostics.parts import (
    check_cold_items,
    check_future_interactions,
    check_given_parts,
    check_repeats,
    check_short_users,
    measure_popularity,
)
from hellm_recbole.data.diagnostics.similarity import check_similarity
from hellm_recbole.data.diagnostics.time_order import (
    check_id_order,
    check_row_order,
    check_ties,
    check_time_precision,
)
from hellm_recbole.data.feature_files import list_features
from hellm_recbole.data.manifest import Manifest, find_changed_files, read_manifest
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import DataError


@dataclass(frozen=True)
class Examination:
    """A prepared dataset and the findings about it.

    Attributes:
        manifest: manifest of the dataset.
        dataset: the dataset, with all features that fit its items.
        split: split of the dataset.
        findings: errors first, then warnings, then notes.
    """

    manifest: Manifest
    dataset: Dataset
    split: Split
    findings: tuple[Finding, ...]


def diagnose(folder: Path) -> list[Finding]:
    """Find data warnings about a prepared dataset: errors first, then warnings, then notes.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    return list(examine(folder).findings)


def examine(folder: Path) -> Examination:
    """Run the diagnostics of `diagnose`, and return the dataset and its split as well as the findings.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty; faulty features are a finding.
    """
    manifest = read_manifest(folder)
    dataset, findings = _load_usable_features(folder)
    split = split_dataset(dataset)
    findings += [
        *_check_files(folder, manifest),
        *check_time_precision(folder, manifest, dataset),
        *check_ties(dataset, split),
        *check_id_order(dataset, split),
        *check_row_order(dataset),
        *check_repeats(dataset, split),
        *(check_given_parts(dataset, split) if split.kind == "given" else check_future_interactions(dataset)),
        *check_cold_items(split),
        *check_short_users(split),
        *measure_popularity(split),
        *check_texts(split),
    ]
    for modality, matrix in dataset.features.items():
        findings += check_features(modality, matrix[1:], dataset.covered[modality][1:], manifest, split)
        findings += check_similarity(modality, matrix, split)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Examination(manifest, dataset, split, tuple(findings))


def _load_usable_features(folder: Path) -> tuple[Dataset, list[Finding]]:
    """Load the dataset with the features that fit its items, and report a finding for each other modality."""
    try:
        return load_dataset(folder, modalities=None, verify=False), []
    except DataError:
        dataset = load_dataset(
            folder, modalities=(), verify=False
        )  # raises the error again if the features are not its cause
    features, covered, findings = {}, {}, []
    for modality in list_features(folder):
        try:
            loaded = load_dataset(folder, modalities=(modality,), verify=False)
            features[modality], covered[modality] = loaded.features[modality], loaded.covered[modality]
        except DataError as error:
            effect = "No model can be run with this modality; fix its files or prepare the dataset again with --fresh."
            findings.append(Finding("features do not fit", "error", f"{modality}: {error}", effect))
    return replace(dataset, features=features, covered=covered), findings


def _check_files(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Report files that changed after they were prepared."""
    for name in find_changed_files(folder, manifest):
        yield Finding(
            "file changed",
            "error",
            f"{name} has changed since it was prepared",
            "Results would not be of the data that the manifest describes, and nobody else could prepare it; prepare "
            "the dataset again with --fresh.",
        )
