"""The files of a repository of a prepared dataset, and their push: all prepared files, with a card of the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hellm_recbole.data.diagnostics.card import CARD
from hellm_recbole.data.manifest import MANIFEST, read_manifest
from hellm_recbole.errors import DataError, HubError
from hellm_recbole.experiments.machine_paths import find_machine_folder
from hellm_recbole.hub.client import Pushed, push_folder
from hellm_recbole.hub.dataset_card import format_dataset_card, refuse_changed_files, refuse_redistribution
from hellm_recbole.hub.pushing import Prepared, PushOptions, create_temporary_folder
from hellm_recbole.hub.repository import list_sizes
from hellm_recbole.system.files import SUMS, write_text


@contextmanager
def prepare_dataset(folder: Path, options: PushOptions) -> Iterator[Prepared]:
    """Yield a temporary folder with all files of the repository of a dataset, its card included.

    Args:
        folder: folder of the prepared dataset.
        options: licence and name for the card.

    Raises:
        DataError: its licence does not allow that or is not known, or a file has changed since it was prepared.
    """
    licence = refuse_redistribution(folder, options.licence)
    manifest = read_manifest(folder)
    refuse_changed_files(folder, manifest)
    with create_temporary_folder() as target:
        for name in (*manifest.files, MANIFEST, *([SUMS] if (folder / SUMS).is_file() else [])):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
        card = format_dataset_card(folder, licence, options.repository)
        for text, what in ((card, CARD), ((folder / MANIFEST).read_text(encoding="utf-8"), MANIFEST)):
            if found := find_machine_folder(text):
                raise DataError(f"{folder / what} names {found}, a folder of this machine; nothing was pushed")
        write_text(target / CARD, card)
        yield Prepared(target, card, list_sizes(target))


def push_prepared_dataset(prepared: Prepared, folder: Path, options: PushOptions) -> Pushed:
    """Upload a dataset.

    Args:
        prepared: its files, from `prepare_dataset`.
        folder: folder of the prepared dataset.
        options: where it goes.

    Raises:
        HubError: see `client.push_folder`; or the repository holds something else.
    """
    name = read_manifest(folder).name

    def check(manifest: str | None, names: Sequence[str]) -> None:
        if names and not options.fresh and _read_name(manifest) != name:
            raise HubError(
                f"the dataset {options.repository} exists and holds something else than {name} ({names[0]}); push to "
                "another repository, or give --fresh to replace it (its history keeps it); nothing was pushed"
            )

    return push_folder(
        prepared.folder,
        options.repository,
        "dataset",
        message=f"{name}, prepared with hellm-recbole",
        private=options.private,
        replaced=("*.inter", "*.item", "*_feat.npy", "*_feat.tokens.txt"),
        check=check,
        manifest=MANIFEST,
    )


def _read_name(manifest: str | None) -> str | None:
    """Read the name of the dataset in a repository; None if it holds none."""
    try:
        return None if manifest is None else str(json.loads(manifest)["name"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
