from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image

from hellm_recbole.benchmarks.prepare import main
from tests.data.small_encoders import make_vision_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table with texts and pictures of four items."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "Mine.csv").write_text(
        "user,item,time\n" + "".join(f"u{u},{i},{t}\n" for u in "12" for t, i in enumerate("abcd"))
    )
    (folder / "Mine_items.csv").write_text(
        "item,title\na,red comb\nb,a brush for long hair\nc,soap\nd,blue soap in a box\n"
    )
    for number, item in enumerate("abcd"):
        Image.new("RGB", (40 + number, 33), (60 * number, 9, 9)).save(folder / f"{item}.png")
    return folder


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--encode-actors", "2"], "--encode-actors can only be used with --ray; leave it out"),
        (["--encode-actors", "0", "--ray"], "encode_actors"),
        (
            ["--ray", "--encode-device", "cuda:1"],
            "--encode-device cuda:1: on a Ray cluster the device must be auto, cpu",
        ),
        (["--ray", "--text"], "--ray can only be used with --text or --pictures; leave it out"),
        (["--ray", "--check"], "--ray can only be used to prepare a dataset; leave it out"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    start = ["Mine", "--output", str(tmp_path / "dataset")]
    made = [] if "--check" in options else ["--from", "table", "--source", str(source)]
    text = [] if {"--text", "--check"} & {*options} else ["--text", "title"]
    assert main([*start, *made, *text, *options]) == 2
    assert sentence in capsys.readouterr().err


def test_an_address_without_a_cluster_is_refused_before_anything_is_read(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    output = tmp_path / "dataset"
    command = ["Mine", "--from", "table", "--source", str(source), "--text", "title", "--output", str(output)]
    assert main([*command, "--ray", address]) == 2
    assert f"no Ray cluster answers at '{address}'" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.slow
def test_texts_and_pictures_are_the_same_bytes_with_ray(tmp_path: Path, source: Path) -> None:
    make_vision_model("clip", tmp_path / "vision")
    for output, more in (("here", []), ("ray", ["--ray", "--encode-actors", "1"])):
        command = ["Mine", "--from", "table", "--source", str(source), "--text", "title", "--image-dir", str(source)]
        command += [
            "--image-encoder",
            str(tmp_path / "vision"),
            "--k-core",
            "0",
            "--columns",
            "user=user",
            "item=item",
            "time=time",
            "--encode-device",
            "cpu",
        ]
        assert (
            main([*command, "--encoder", "text_2=packaged:all-MiniLM-L6-v2", "--output", str(tmp_path / output), *more])
            == 0
        )
    here, ray = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "here" / "Mine", tmp_path / "ray" / "Mine")
    )
    assert {"text_feat.npy", "text_2_feat.npy", "image_feat.npy", "SHA256SUMS", "dataset.json"} <= here.keys()
    assert ray == here
