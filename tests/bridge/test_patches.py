from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import hellm_recbole
from hellm_recbole.bridge import entry_patches, finder, install
from hellm_recbole.bridge.requirement import require_recbole
from hellm_recbole.errors import MissingDependency
from tests.bridge import toy

BASE = {"state": "error", "show_progress": False, "epochs": 1}


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, hellm_recbole; print(*[m for m in ('recbole', 'torch', 'numpy', 'pandas') if m in sys.modules])"
    assert run_python(code).split() == []


def test_a_second_install_does_nothing() -> None:
    install()
    assert sum(isinstance(found, finder.BridgeFinder) for found in sys.meta_path) == 1


@pytest.mark.slow
def test_recbole_is_patched_even_if_imported_first() -> None:
    code = """
import recbole.quick_start, recbole.config.configurator as c, recbole.quick_start.quick_start as q
before = c.Config.compatibility_settings
import hellm_recbole
print(c.Config.compatibility_settings is not before, recbole.quick_start.load_data_and_model is q.load_data_and_model,
      q.load_data_and_model.__module__)
"""
    assert run_python(code).split() == ["True", "True", "hellm_recbole.bridge.patches"]


def test_every_patched_module_exists_in_recbole() -> None:
    """A renamed module would silently stay without its patches."""
    for name in entry_patches.PATCHES:
        module = __import__(name, fromlist=["_"])
        assert vars(module)[entry_patches._PATCHED] is True


def test_other_packages_are_not_changed() -> None:
    from recbole.config import Config

    Config(model="LightGCN", dataset="none", config_dict=dict(BASE))
    assert [name for name in ("float", "int", "object", "float_", "unicode_") if name in vars(np)] == []
    assert torch.load.__module__ == "torch.serialization"
    assert not hasattr(sp.dok_matrix, "_update")


def test_adjacency_of_lightgcn_equals_the_formula() -> None:
    import recbole.model.general_recommender.lightgcn as module

    model = module.LightGCN.__new__(module.LightGCN)
    torch.nn.Module.__init__(model)
    model.n_users, model.n_items = 3, 4  # ids from 0, and one of each kind without an interaction
    model.interaction_matrix = sp.coo_matrix(([1.0] * 3, ([1, 1, 2], [1, 3, 3])), shape=(3, 4), dtype=np.float32)
    found = model.get_norm_adj_mat().to_dense()
    expected = torch.zeros(7, 7)
    # 1 / sqrt(degree of user * degree of item)
    for user, item, value in ((1, 1, 2**-0.5), (1, 3, 1 / 2), (2, 3, 2**-0.5)):
        expected[user, 3 + item] = expected[3 + item, user] = value
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_missing_fields_are_filled(tmp_path: Path) -> None:
    from recbole.config import Config
    from recbole.data.dataset import Dataset

    folder = tmp_path / "data" / "holes"
    folder.mkdir(parents=True)
    (folder / "holes.inter").write_text("user_id:token\titem_id:token\na\tx\na\ty\nb\ty\nb\tz\n")
    (folder / "holes.item").write_text(
        "item_id:token\tkind:token\tprice:float\ttags:token_seq\tsizes:float_seq\n"
        "x\tbook\t2\tred blue\t1 2\n"
        "y\t\t\t\t\n"
    )
    columns = {"inter": ["user_id", "item_id"], "item": ["item_id", "kind", "price", "tags", "sizes"]}
    values = {**BASE, "data_path": str(tmp_path / "data"), "load_col": columns, "filter_inter_by_user_or_item": False}
    config = Config(model="BPR", dataset="holes", config_dict=values)
    dataset = Dataset(config)
    dataset._change_feat_format()
    row = dict(dataset.item_feat.interaction)  # rows: [PAD], x, y, z; z is not in the file, y has empty fields
    assert row["item_id"].tolist() == [0, 1, 2, 3]
    assert row["kind"].tolist() == [0, 1, 0, 0]
    assert row["price"].tolist() == [2.0, 2.0, 2.0, 2.0]
    assert (row["tags"] != 0).sum(dim=1).tolist() == [0, 2, 0, 0]
    assert row["sizes"].sum(dim=1).tolist() == [0.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize("model", ["Pop", "LightGCN", "SASRec"])
def test_recbole_runs_saves_and_loads(model: str, tmp_path: Path) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole

    values = {
        **BASE,
        **toy.FEW,
        "embedding_size": 8,
        "hidden_size": 8,
        "inner_size": 8,
        "n_heads": 1,
        "n_layers": 1,
        "MAX_ITEM_LIST_LENGTH": 5,
    }
    if model == "SASRec":
        values["train_neg_sample_args"] = None
    result = run_recbole(model=model, dataset="ml-100k", config_dict=values, saved=True)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    (checkpoint,) = (tmp_path / "saved").glob(f"{model}-*.pth")
    config, loaded, *_ = load_data_and_model(str(checkpoint))
    assert (type(loaded).__name__, config["model"]) == (model, model)


def test_a_missing_or_unsupported_recbole_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    require_recbole()
    monkeypatch.setattr(importlib.metadata, "version", raise_not_found)
    with pytest.raises(MissingDependency, match=r"hellm-recbole install-recbole"):
        require_recbole()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.1")
    with pytest.raises(MissingDependency, match=r"RecBole 1\.1\.1 is installed, but only 1\.2\.x is supported"):
        require_recbole()
    finder._supports_installed_recbole.cache_clear()
    with pytest.warns(UserWarning, match=r"RecBole 1\.1\.1 is installed"):
        assert finder.BridgeFinder().find_spec("recbole.config.configurator", None) is None
    finder._supports_installed_recbole.cache_clear()
    assert hellm_recbole.__version__


def test_importing_all_of_recboles_models_leaves_anomaly_detection_off() -> None:
    importlib.import_module("recbole.model.sequential_recommender.sine")
    assert not torch.is_anomaly_enabled()
