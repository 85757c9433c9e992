"""Small sources of every kind, written for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data import encoders
from hellm_recbole.data.dataset_settings import DatasetSettings
from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.prepare import Prepared, prepare, read_feature_settings
from tests.data.small_encoders import CountingEncoder, make_settings

Prepare = Callable[..., Prepared]


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Three users, four items; d has no text, b has keywords only."""
    folder = tmp_path / "source" / "Toy"
    folder.mkdir(parents=True)
    (folder / "user_sequences.txt").write_text("u1 a b c\nu2 b c a\nu3 c a b d\n")
    (folder / "item_text.tsv").write_text(
        'item_id\ttitle\tkeywords\na\t12" "red"  comb\tcomb\nb\t\tgreen brush\nc\tblue soap\t\nz\tnever bought\tx\n'
    )
    return folder


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Two users, items 0, 1 and 3; row 2 of the feature file belongs to no item."""
    folder = tmp_path / "source" / "Clips"
    folder.mkdir(parents=True)
    rows = ["0\t3\ttrain", "0\t1\tvalid", "0\t0\ttest", "1\t0\ttrain", "1\t1\ttest"]
    (folder / "interactions.tsv").write_text("user_id\titem_id\tsplit\n" + "\n".join(rows) + "\n")
    np.save(folder / "image_feat.npy", np.arange(8, dtype=np.float16).reshape(4, 2))
    return folder


@pytest.fixture
def mmrec(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "baby"
    folder.mkdir(parents=True)
    rows = ["0\t0\t5.0\t11\t0", "0\t1\t3.0\t12\t1", "0\t2\t1.0\t13\t2", "1\t1\t5.0\t9\t0"]
    (folder / "baby.inter").write_text("userID\titemID\trating\ttimestamp\tx_label\n" + "\n".join(rows) + "\n")
    np.save(folder / "text_feat.npy", np.eye(3, dtype=np.float32))
    return folder


@pytest.fixture
def recbole(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "films"
    folder.mkdir(parents=True)
    (folder / "films.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "7\tx\t3\t30\n7\ty\t4\t10\n7\tz\t5\t20\n8\tx\t1\t5\n8\ty\t1\t6\n8\tz\t1\t6\n"
    )
    (folder / "films.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\nx\tHeat\tCrime\ny\tBabe\tComedy Drama\nz\tOdd\t\n"
    )
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


@pytest.fixture
def prepare_toy(root: Path) -> Prepare:
    """Prepare a dataset, by default without texts and without a filter."""

    def run(
        source: Path,
        kind: str,
        *,
        k_core: int = 0,
        text: tuple[str, ...] = (),
        fresh: bool = False,
        encoder: str = "none",
        name: str | None = None,
        category: str | None = None,
        columns: tuple[str, ...] = (),
        pictures: bool = False,
        fill: str = "mean",
        image_dir: Path | None = None,
    ) -> Prepared:
        settings = DatasetSettings(
            kind=kind,
            k_core=k_core,
            text=text,
            paper=None,
            origin=None,
            category=category,
            columns=columns,
            pictures=pictures,
            image_dir=None if image_dir is None else str(image_dir),
            split_sha256=None,
            split_sha256_without_users=None,
        )
        return prepare(
            name or source.name,
            source,
            settings,
            read_feature_settings({"encoder": encoder, "image_encoder": encoder, "encode_batch_size": 2, "fill": fill}),
            root,
            fresh=fresh,
            progress=False,
        )

    return run


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    fake = CountingEncoder()
    monkeypatch.setattr(encoders, "load_text_encoder", fake)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> FeatureSettings:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return make_settings(folder, encode_part=2)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without ../shared, and no HELLM_DATA."""
    folder = tmp_path / "here" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HELLM_DATA", raising=False)
    return folder
