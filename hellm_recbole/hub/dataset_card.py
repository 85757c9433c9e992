"""The card of a prepared dataset on the hub: front matter, how to use it, and its data card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hellm_recbole.data.diagnostics.card import CARD, CHECK_HEADING, write_card
from hellm_recbole.data.manifest import Manifest, find_changed_files, read_manifest
from hellm_recbole.errors import DataError
from hellm_recbole.hub.licences import DataTerms, check_licence, find_data_terms
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.system.files import write_text

_FENCE = "---"
_UNKNOWN = "unknown"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGEST_SIZE = "10M<n<100M"


def refuse_redistribution(folder: Path, licence: str | None) -> str:
    """Refuse to push data that may not be passed on, or whose licence is not named; return their licence.

    Args:
        folder: folder of the prepared dataset.
        licence: licence that the user names.

    Raises:
        DataError: the terms of the data do not allow it, or no licence is known.
    """
    manifest = read_manifest(folder)
    terms = find_data_terms(manifest.name, manifest.kind)
    if terms is not None and not terms.redistribute:
        raise DataError(
            f"{folder} is not pushed, for its terms do not allow to pass the data on ({terms.terms}); push runs on it "
            "instead, whoever loads them prepares the data from their source"
        )
    chosen = _choose_licence(terms, licence)
    if chosen is None:
        raise DataError(
            f"{folder} is your own data, and no licence is known; name the one that you give it with --licence ID, "
            "such as cc-by-4.0, or cc-by-nc-4.0"
        )
    return chosen


def _choose_licence(terms: DataTerms | None, given: str | None) -> str | None:
    """Return the licence that the user names, else that of known data, else None.

    Raises:
        SettingsError: the given one cannot be the id of a licence.
    """
    if given is not None:
        return check_licence(given)
    return None if terms is None else terms.licence


def format_dataset_card(folder: Path, licence: str | None, repository: str | None = None) -> str:
    """Format the card of a prepared dataset: front matter for the hub, its terms, its use, and its data card.

    Args:
        folder: folder of the dataset.
        licence: licence that the user names; None takes that of known data, else "unknown".
        repository: id of its repository on the hub, if it is pushed.

    Raises:
        DataError: the dataset is not prepared, or its data card cannot be read.
        SettingsError: the licence cannot be the id of one.
    """
    manifest = read_manifest(folder)
    terms = find_data_terms(manifest.name, manifest.kind)
    chosen = _choose_licence(terms, licence) or _UNKNOWN
    sections = [
        f"{_FENCE}\n{_write_front_matter(manifest, chosen)}\n{_FENCE}",
        _read_data_card(folder).rstrip(),
        "## Terms",
        f"Licence: {chosen}." + ("" if terms is None else f" The data: {terms.terms}."),
        *_describe_use(manifest, repository),
    ]
    return "\n\n".join(sections) + "\n"


def write_dataset_card(folder: Path, licence: str | None, *, fresh: bool = False) -> Path:
    """Write the card with front matter into the folder of a prepared dataset, and return its path.

    Args:
        folder: folder of the dataset.
        licence: see `format_dataset_card`.
        fresh: whether to replace a file that this project has not written.

    Raises:
        DataError: the folder has a README.md of the user's own, or its files have changed since they were prepared.
        HellmError: see `format_dataset_card`; or the file cannot be written.
    """
    refuse_changed_files(folder, read_manifest(folder))
    path = folder / CARD
    if path.is_file() and CHECK_HEADING.encode() not in path.read_bytes():
        if not fresh:
            raise DataError(
                f"{path} is not a card that this project has written; move it elsewhere, or replace it with --fresh"
            )
        write_card(folder)
    write_text(folder / CARD, format_dataset_card(folder, licence))
    return folder / CARD


def refuse_changed_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a dataset with a file that has changed since it was prepared.

    Raises:
        DataError: there is such a file.
    """
    if changed := find_changed_files(folder, manifest):
        raise DataError(
            f"{folder / changed[0]} has changed since it was prepared; prepare the dataset again with --fresh"
        )


def _read_data_card(folder: Path) -> str:
    """Read the data card of a dataset without front matter; it is made again if it is missing.

    Raises:
        DataError: it cannot be read.
    """
    path = folder / CARD
    try:
        if not path.is_file():
            write_card(folder)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and it is made again") from error
    if text.startswith(f"{_FENCE}\n"):  # an earlier card with front matter
        text = text.partition(f"\n{_FENCE}\n")[2].lstrip()
        text = text.partition("\n## Terms\n")[0] + "\n"
    return text


def _write_front_matter(manifest: Manifest, licence: str) -> str:
    """Write the metadata of the hub as YAML."""
    from huggingface_hub import DatasetCardData

    further: dict[str, Any] = {"viewer": False}  # the hub's viewer does not read atomic files
    data = DatasetCardData(
        pretty_name=manifest.name,
        license=licence,
        size_categories=choose_size(manifest.counts.after.interactions),
        tags=["recommender-systems", "recommendation", "recbole", "hellm-recbole"],
        **further,
    )
    return str(data.to_yaml()).strip()


def choose_size(n: int) -> str:
    """Return the hub's category of a size.

    >>> choose_size(999), choose_size(198502), choose_size(10**9)
    ('n<1K', '100K<n<1M', '10M<n<100M')
    """
    return next((name for most, name in _SIZES if n < most), _LARGEST_SIZE)


def _describe_use(manifest: Manifest, repository: str | None) -> list[str]:
    """Describe how a pushed dataset is loaded."""
    if repository is None:
        return []
    name = manifest.name
    return [
        "## Use",
        f"```sh\nhf download {repository} --repo-type dataset --local-dir dataset/{name}\n```",
        f"Then `hellm-recbole run --dataset {escape_markdown(name)} --models SASRec`, or `hellm_recbole.load_dataset("
        f'"{name}")` in Python. `{name}.inter` and `{name}.item` are atomic files of RecBole; features are NumPy '
        "arrays with the ids of their items beside them. `SHA256SUMS` has the checksums.",
    ]
