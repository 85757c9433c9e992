"""prepare.py: pictures of the user's own, and the models that are suggested after a dataset was prepared."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hellm_recbole.benchmarks.prepare import main
from tests.data.small_encoders import make_vision_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    rows = [f"u{user},{item},{day}" for user in (1, 2, 3) for day, item in enumerate("abc")]
    (folder / "Mine.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "MicroLens-50k_pairs.csv").write_text(
        "user,item,timestamp\n"
        + "\n".join(f"{user},{item},{user + item}" for user in (1, 2) for item in (7, 8, 9))
        + "\n"
    )
    (folder / "MicroLens-50k_covers").mkdir()
    for item in (7, 8):
        Image.new("RGB", (9, 9), (item * 20, 0, 0)).save(folder / "MicroLens-50k_covers" / f"{item}.jpg")
    return folder


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vision")
    make_vision_model("vit", folder)
    return str(folder)


def command(tmp_path: Path, source: Path, name: str, kind: str, *more: str) -> list[str]:
    output = ("--output", str(tmp_path / "dataset"), "--k-core", "0")
    return [name, "--from", kind, "--source", str(source), *output, *more]


def test_a_folder_and_an_archive_of_pictures(
    tmp_path: Path, source: Path, vision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number, item in enumerate("ab"):
            path = tmp_path / "photos" / f"{item}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (9, 9), (0, 60 * number, 9)).save(path)
            archive.write(path, f"photos/{path.name}")
    matrices = []
    for pictures in ("photos", "photos.zip"):
        more = ("--image-dir", str(tmp_path / pictures), "--image-encoder", vision, "--fresh")
        assert main(command(tmp_path, source, "Mine", "table", *more)) == 0
        assert "1 of 3 items have no picture" in capsys.readouterr().out
        matrices.append(np.load(tmp_path / "dataset" / "Mine" / "image_feat.npy"))
    np.testing.assert_array_equal(*matrices)


def test_the_covers_of_microlens(tmp_path: Path, source: Path, vision: str) -> None:
    more = ("--pictures", "--image-encoder", vision, "--text")
    assert main(command(tmp_path, source, "MicroLens-50k", "microlens", *more)) == 0
    folder = tmp_path / "dataset" / "MicroLens-50k"
    assert np.load(folder / "image_feat.npy").shape == (3, 8)
    assert (folder / "image_feat.missing.txt").read_text() == "9\n"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--image-dir", "nowhere"), "nowhere is no folder of pictures; name an existing folder with --image-dir"),
        (("--image-dir", "x", "--no-pictures"), "--image-dir and --no-pictures contradict each other"),
        (("--image-encoder", "x"), "--image-encoder can only be used with --pictures or --image-dir; leave it out"),
        (("--pictures",), "has no addresses of pictures for the items of Mine; prepare it without --pictures, or name"),
    ],
)
def test_wrong_pictures_are_one_sentence(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str
) -> None:
    assert main(command(tmp_path, source, "Mine", "table", *more)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "dataset" / "Mine").exists()


def test_a_folder_of_pictures_is_only_for_preparing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Mine", "--check", "--image-dir", "x"]) == 2
    assert capsys.readouterr().err == "error: --image-dir can only be used to prepare a dataset; leave it out\n"


@pytest.mark.parametrize(
    ("given_split", "feature", "models"),
    [
        (False, None, "Pop,ItemKNN,LightGCN,SASRec"),
        (False, "image", "Pop,ItemKNN,LightGCN,SASRec,HeLLMPre"),
        (False, "text", "Pop,ItemKNN,LightGCN,SASRec,HeLLMPre,SASRec-text"),
        (True, "text", "Pop,ItemKNN,LightGCN,HeLLMPre"),
    ],
)
def test_the_suggested_models_fit_the_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given_split: bool, feature: str | None, models: str
) -> None:
    parts = ("train", "valid", "test")
    rows = [f"u{user}\ti{item}" + f"\t{parts[item]}" * given_split for user in range(3) for item in (0, 1, 2)]
    header = "user_id\titem_id" + "\tsplit" * given_split
    (tmp_path / "Mine.tsv").write_text("\n".join([header, *rows]) + "\n")
    if feature is not None:
        np.save(tmp_path / f"{feature}_feat.npy", np.eye(3, dtype=np.float32))
        (tmp_path / f"{feature}_feat.tokens.txt").write_text("i0\ni1\ni2\n")
    options = ["--from", "table", "--source", str(tmp_path), "--output", str(tmp_path / "dataset"), "--k-core", "0"]
    assert main(["Mine", *options]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"train on it with hellm-recbole run --models {models} --dataset Mine")


def test_own_data_that_are_prepared_already_need_their_kind(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, source, "Mine", "table")) == 0
    output = ("--output", str(tmp_path / "dataset"))
    for more, end in ((("--source", str(source)), ""), ((), " and its files with --source PATH")):
        capsys.readouterr()
        assert main(["Mine", "--image-dir", str(source), *more, *output]) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path / 'dataset' / 'Mine'} is prepared already, and it is not a known dataset; to prepare it "
            f"again, name its kind with --from table{end}\n"
        )
