"""Pictures in files of the user, encoded with a tiny vision model of random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedModel

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.errors import DataError
from tests.data.small_encoders import encode_one_by_one, make_vision_model

Prepare = Callable[..., Prepared]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("vit")
    return folder, make_vision_model("vit", folder)


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of a, b and c in three formats and endings; d has none, and z is no item."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("a.jpg", "b.PNG", "c.webp", "z.jpeg")):
        draw(folder / name, seed)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table whose items name pictures in a column; c and d name none."""
    folder = tmp_path / "source" / "Mine"
    folder.mkdir(parents=True)
    rows = [f"u{user},{item},{day}" for user in (1, 2, 3) for day, item in enumerate("abcd", 5)]
    (folder / "Mine.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "Mine_items.csv").write_text("item_id,title,image\na,Red,x.jpg\nb,Blue,sub/y.png\nc,Soap,\n")
    draw(folder / "x.jpg", 1)
    draw(folder / "sub" / "y.png", 2)
    return folder


def read_image_features(prepared: Prepared) -> dict[str, np.ndarray]:
    dataset = load_dataset(prepared.folder, modalities=None)
    return dict(zip(dataset.item_tokens.tolist(), dataset.features["image"], strict=True))


def test_a_folder_of_pictures_named_by_items_is_encoded(
    sequences: Path, pictures: Path, vision: tuple[Path, PreTrainedModel], prepare_toy: Prepare
) -> None:
    folder, model = vision
    prepared = prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures, encoder=str(folder))
    features = read_image_features(prepared)
    files = [pictures / name for name in ("a.jpg", "b.PNG", "c.webp")]
    expected = encode_one_by_one("vit", folder, model, files)
    np.testing.assert_allclose(np.stack([features[item] for item in "abc"]), expected, atol=1e-5)
    np.testing.assert_allclose(features["d"], expected.mean(axis=0), atol=1e-5)
    assert (prepared.folder / "image_feat.missing.txt").read_text() == "d\n"
    assert (prepared.folder / "image_failed.tsv").read_text() == "d\tno picture file\n"
    assert "photos: 1 picture of no item was left out (z.jpeg)" in prepared.warnings
    assert "1 of 4 items have no picture; image_failed.tsv says why" in prepared.warnings
    manifest = read_manifest(prepared.folder)
    assert manifest.inputs.pictures_sha256 is not None
    assert str(pictures) not in (prepared.folder / "dataset.json").read_text()  # no path of this machine
    assert prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures, encoder=str(folder)).fresh is False
    draw(pictures / "a.jpg", 9)
    with pytest.raises(DataError, match="was prepared with another pictures_sha256; replace it with --fresh"):
        prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures, encoder=str(folder))


def test_a_column_of_the_items_names_pictures(
    table: Path, vision: tuple[Path, PreTrainedModel], prepare_toy: Prepare
) -> None:
    folder, model = vision
    prepared = prepare_toy(table, "table", pictures=True, encoder=str(folder))
    features = read_image_features(prepared)
    expected = encode_one_by_one("vit", folder, model, [table / "x.jpg", table / "sub" / "y.png"])
    np.testing.assert_allclose(np.stack([features[item] for item in "ab"]), expected, atol=1e-5)
    assert (prepared.folder / "image_feat.missing.txt").read_text() == "c\nd\n"
    without = prepare_toy(table, "table", fresh=True)
    assert without.warnings[:2] == (
        "the items' texts are not used; --text title makes features of them",
        "the items' pictures are not used; --pictures makes features of them",
    )


def test_the_column_may_have_another_name(
    table: Path, vision: tuple[Path, PreTrainedModel], prepare_toy: Prepare
) -> None:
    items = table / "Mine_items.csv"
    items.write_text(items.read_text().replace("image", "photo"))
    prepared = prepare_toy(table, "table", pictures=True, encoder=str(vision[0]), columns=("image=photo",))
    assert (prepared.folder / "image_feat.missing.txt").read_text() == "c\nd\n"
    with pytest.raises(
        DataError, match=r"Mine_items\.csv: no column 'cover' of pictures \(it has item_id, title, photo"
    ):
        prepare_toy(table, "table", columns=("image=cover",), fresh=True)


def test_broken_pictures_are_named_and_their_items_have_none(
    sequences: Path, pictures: Path, vision: tuple[Path, PreTrainedModel], prepare_toy: Prepare
) -> None:
    (pictures / "b.PNG").write_bytes((pictures / "b.PNG").read_bytes()[:200])
    (pictures / "c.webp").write_bytes(b"")
    prepared = prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures, encoder=str(vision[0]))
    assert "2 pictures cannot be read: b.PNG: not a picture, c.webp: not a picture" in prepared.warnings
    assert (prepared.folder / "image_feat.missing.txt").read_text() == "b\nc\nd\n"
    (pictures / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"^no picture of Toy can be read \(a\.jpg: not a picture, .*; replace the"):
        prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures, encoder=str(vision[0]), fresh=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("absent", "photos is no folder of pictures; name an existing folder with --image-dir"),
        ("empty", "photos holds no picture (.jpg, .jpeg, .png"),
        ("two", "photos: item 'a' has two pictures, a.jpg and a.png; keep one of them"),
        (
            "none",
            "photos: no picture belongs to an item; name each file by an item's id, such as a.jpeg (found: z.jpeg)",
        ),
    ],
)
def test_wrong_folders_are_one_sentence(
    sequences: Path, pictures: Path, prepare_toy: Prepare, change: str, message: str
) -> None:
    if change == "two":
        draw(pictures / "a.png", 5)
    for path in list(pictures.iterdir()):
        if change in ("absent", "empty") or (change == "none" and path.stem in "abc"):
            path.unlink()
    if change == "absent":
        pictures.rmdir()
    with pytest.raises(DataError) as caught:
        prepare_toy(sequences, "sequences", pictures=True, image_dir=pictures)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jpg", r"picture .*/gone\.jpg of item 'a' does not exist; correct the column of pictures"),
        ("../x.jpg", r"Mine_items\.csv: picture '\.\./x\.jpg' of item 'a' is not inside"),
        ("/x.jpg", r"picture '/x\.jpg' of item 'a' is not inside"),
    ],
)
def test_a_column_that_names_no_file_is_refused(table: Path, prepare_toy: Prepare, name: str, message: str) -> None:
    items = table / "Mine_items.csv"
    items.write_text(items.read_text().replace("x.jpg", name))
    with pytest.raises(DataError, match=message):
        prepare_toy(table, "table", pictures=True)


def test_addresses_in_the_column_are_kept_for_the_download(table: Path, prepare_toy: Prepare) -> None:
    from hellm_recbole.data.importers.request import Request
    from hellm_recbole.data.importers.tabular import read_tables

    items = table / "Mine_items.csv"
    items.write_text(items.read_text().replace("x.jpg", "https://example.org/x.jpg"))
    data = read_tables(table, Request("Mine", "", {}, None, progress=False))
    assert (data.image_urls, list(data.image_files)) == ({"a": ("https://example.org/x.jpg",)}, ["b"])
