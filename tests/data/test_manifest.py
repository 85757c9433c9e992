from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.manifest import read_manifest, write_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import check_seal

Prepare = Callable[..., Prepared]


def test_faulty_manifests(sequences: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    path = folder / "dataset.json"
    content = path.read_text()
    with pytest.raises(DataError, match="holds no prepared dataset"):
        load_dataset(tmp_path / "nowhere", modalities=None)
    path.write_text(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_dataset(folder, modalities=None)
    path.write_text(json.dumps({**json.loads(content), "schema": 99}))
    with pytest.raises(DataError, match="not a manifest of version 1"):
        load_dataset(folder, modalities=None)
    path.write_text(content)
    (folder / "Toy.item").unlink()
    with pytest.raises(DataError, match=r"Toy\.item is missing"):
        load_dataset(folder, modalities=None)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.update(k_core=5),
        lambda manifest: manifest.update(paper="Beauty"),
        lambda manifest: manifest["counts"]["before"].update(users=4),
        lambda manifest: manifest.update(sha256=None),
        lambda manifest: manifest.update(one_key_more=1),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(
    sequences: Path, prepare_toy: Prepare, edit: Callable[[dict[str, Any]], None]
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    path, before = folder / "dataset.json", split_dataset(load_dataset(folder, modalities=None))
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest, sort_keys=True))  # the same content in another layout
    read_manifest(folder)
    edit(manifest)
    path.write_text(json.dumps(manifest))
    for read in (lambda: load_dataset(folder, modalities=None), lambda: prepare_toy(sequences, "sequences")):
        with pytest.raises(DataError, match=r"dataset\.json has changed since it was prepared .* again with --fresh"):
            read()
    prepare_toy(sequences, "sequences", fresh=True)
    assert split_dataset(load_dataset(folder, modalities=None)).sha256 == before.sha256


def test_a_manifest_of_an_earlier_version_has_no_checksum(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    manifest = json.loads((folder / "dataset.json").read_text())
    del manifest["sha256"]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    assert load_dataset(folder, modalities=None).k_core == 0
    assert not prepare_toy(sequences, "sequences").fresh


def edit(folder: Path, **entries: object) -> None:
    """Change entries of a manifest and remove its checksum, as in an earlier version."""
    content = json.loads((folder / "dataset.json").read_text())
    content.pop("sha256", None)
    (folder / "dataset.json").write_text(json.dumps({**content, **entries}))


def test_a_manifest_is_written_as_it_was_read(recbole: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    folder = prepare_toy(recbole, "recbole").folder
    for change in ({}, {"modalities": {"image": {"rows": 3, "of_day": [1, {"a": None}]}}}):
        edit(folder, **change)
        manifest = read_manifest(folder)
        write_manifest(tmp_path, manifest)
        assert check_seal(json.loads((tmp_path / "dataset.json").read_text())) == json.loads(
            (folder / "dataset.json").read_text()
        )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kcore": 5}, "key kcore is unknown"),
        ({"inputs": {"sources": {}}}, "key inputs.sources is unknown"),
        ({"warnings": ["a", 1]}, "key warnings[1] is 1, it must be of type str"),
        ({"k_core": True}, "key k_core is True, it must be of type int"),
        ({"modalities": {"image": {"coverage": float("inf")}}}, "key modalities.image.coverage is not a finite number"),
    ],
)
def test_a_faulty_entry_is_named(
    sequences: Path, prepare_toy: Prepare, entries: dict[str, object], message: str
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    edit(folder, **entries)
    with pytest.raises(DataError) as caught:
        read_manifest(folder)
    assert str(caught.value) == f"{folder}/dataset.json: {message}; prepare the dataset again with --fresh"


def test_a_manifest_cannot_be_changed(sequences: Path, prepare_toy: Prepare) -> None:
    manifest = read_manifest(prepare_toy(sequences, "sequences").folder)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.k_core = 5
