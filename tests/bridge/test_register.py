from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.lightgcn import LightGCN
from hellm_recbole.bridge import register
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.embeddings import export_embeddings
from hellm_recbole.errors import DataError, ModelError, SettingsError
from hellm_recbole.types import Histories
from tests.bridge import toy
from tests.toy_llm import tiny_llama

BASE = {"state": "error", "show_progress": False, "epochs": 1, "gpu_id": ""}
TIMES = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def build_adapter(name: str, root: Path, **values: Any) -> tuple[Any, Any, Any]:
    """Return RecBole's configuration, its whole toy dataset and the adapter built on the dataset."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model

    if not (root / "toy").exists():
        toy.write_atomic(root)
    config = Config(model=name, dataset="toy", config_dict={**BASE, **TIMES, "data_path": str(root), **values})
    dataset = create_dataset(config)
    dataset._change_feat_format()
    return config, dataset, get_model(name)(config, dataset)


def recover_sequences(model: Any, config: Any, dataset: Any) -> list[list[int]]:
    found: Histories = model.history(config, dataset)
    return [found.get_items(user).tolist() for user in range(1, toy.N_USERS + 1)]


def test_our_models_are_found_and_recboles_keep_their_names() -> None:
    from recbole.utils import get_model

    assert get_model("VBPR").__module__ == "recbole.model.general_recommender.vbpr"
    for name in ("LightGCN", "SASRec"):
        assert not hasattr(get_model(name), "spec")
        assert get_model(f"Hellm{name}").spec is register.load_registry()[name]
    assert importlib.util.find_spec("recbole.model.general_recommender.vbprx") is None


@pytest.mark.parametrize("name", [recbole_name for recbole_name, _ in register._map_recbole_names().values()])
def test_every_registered_model_is_a_recbole_model(name: str) -> None:
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.utils import get_model

    assert issubclass(get_model(name), AbstractRecommender)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("VBPR", {"emb_dim": 8}),
        ("HellmLightGCN", {"emb_dim": 8, "n_layers": 1}),
        ("HeLLMPre", {"emb_dim": 8, "n_neighbors": 3}),
        ("HellmSASRec", {"emb_dim": 8, "max_history": 5, "MAX_ITEM_LIST_LENGTH": 5, "n_blocks": 1}),
    ],
)
def test_run_recbole_runs_our_models(model: str, values: dict[str, Any], tmp_path: Path) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole

    result = run_recbole(model=model, dataset="ml-100k", config_dict={**BASE, **toy.FEW, **values}, saved=True)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    (checkpoint,) = (tmp_path / "saved").glob(f"{model}-*.pth")
    config, loaded, *_ = load_data_and_model(str(checkpoint))
    assert type(loaded).__name__ == config["model"] == model


def test_our_settings_are_defaults_of_recboles_configuration(tmp_path: Path) -> None:
    config, _, model = build_adapter("HellmLightGCN", tmp_path)
    ours = load_yaml(find_properties() / "model" / "LightGCN.yaml")
    assert model.model.settings.emb_dim == ours["emb_dim"]
    assert (config["train_batch_size"], config["learning_rate"]) == (ours["batch_size"], ours["learning_rate"])
    config, _, model = build_adapter("HellmLightGCN", tmp_path, emb_dim=8, train_batch_size=32)
    assert (model.model.settings.emb_dim, config["train_batch_size"]) == (8, 32)
    config, _, model = build_adapter("HellmSASRec", tmp_path)
    assert config["MAX_ITEM_LIST_LENGTH"] == model.max_seq_length == model.model.max_history == 50


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("HellmLightGCN", {"emb_dim": 0}, "RecBole's configuration: emb_dim = 0 must be >= 1"),
        ("HellmLightGCN", {"emb_dim": "x"}, "must be of type int"),
        ("HellmSASRec", {"max_history": 5}, "MAX_ITEM_LIST_LENGTH = 50 but SASRec reads max_history = 5"),
        ("HellmSASRec", {"train_neg_sample_args": {"distribution": "uniform"}}, "SASRec samples no negatives"),
    ],
)
def test_invalid_settings_are_reported(name: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        build_adapter(name, tmp_path, **values)


def test_general_models_get_the_training_interactions_in_time_order(tmp_path: Path) -> None:
    config, dataset, model = build_adapter("HellmLightGCN", tmp_path)
    dataset.inter_feat.shuffle()
    assert recover_sequences(model, config, dataset) == toy.sequences()


@pytest.mark.parametrize("length", [50, 3])
def test_sequential_models_recover_whole_sequences_from_prefixes(length: int, tmp_path: Path) -> None:
    config, dataset, model = build_adapter("HellmSASRec", tmp_path, MAX_ITEM_LIST_LENGTH=length)
    assert recover_sequences(model, config, dataset) == toy.sequences()
    train, *_ = dataset.split_by_ratio([1.0], group_by=None)
    assert recover_sequences(model, config, train) == toy.sequences()


def test_scores_equal_those_of_the_wrapped_model(tmp_path: Path) -> None:
    from recbole.data.interaction import Interaction

    _, _, model = build_adapter("HellmLightGCN", tmp_path, emb_dim=8)
    model.eval()
    encoded = model.model.encode()
    users = torch.arange(1, 6)
    expected = (encoded.users[users] @ encoded.items.T).detach()
    torch.testing.assert_close(model.full_sort_predict(Interaction({"user_id": users})), expected)
    pairs = Interaction({"user_id": users, "item_id": torch.tensor([3, 1, 4, 1, 5])})
    torch.testing.assert_close(model.predict(pairs), expected[torch.arange(5), torch.tensor([3, 1, 4, 1, 5])])
    with torch.no_grad():
        model.model.user.weight.mul_(2)
        model.model.item.weight.mul_(2)
    model.train()
    model.eval()
    torch.testing.assert_close(model.full_sort_predict(Interaction({"user_id": users})), 4 * expected)


def test_switching_to_training_starts_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs_started: list[int] = []
    monkeypatch.setattr(LightGCN, "start_epoch", lambda model: epochs_started.append(1), raising=False)
    _, _, model = build_adapter("HellmLightGCN", tmp_path, emb_dim=8)
    model.train()
    model.eval()
    assert epochs_started == [1]


def test_a_recbole_sequence_has_one_target(tmp_path: Path) -> None:
    """The loss of a batch is the plain cross-entropy of the item that follows each prefix."""
    _, dataset, model = build_adapter("HellmSASRec", tmp_path, emb_dim=8, dropout=0.0, MAX_ITEM_LIST_LENGTH=6)
    model.train()
    batch = dataset.inter_feat[torch.arange(20)]
    loss = model.calculate_loss(batch)
    scores = model.full_sort_predict(batch)[:, 1:]
    expected = torch.nn.functional.cross_entropy(scores, batch["item_id"] - 1)
    torch.testing.assert_close(loss.detach(), expected, atol=1e-5, rtol=1e-5)


def test_features_are_found_by_token(tmp_path: Path) -> None:
    folder = toy.write_atomic(tmp_path)
    n_items = max(item for row in toy.sequences() for item in row)
    order = np.random.default_rng(0).permutation(np.arange(1, n_items + 3))  # two items that RecBole does not know
    np.save(folder / "image_feat.npy", np.stack([order, -order], axis=1).astype(np.float64))
    (folder / "image_feat.tokens.txt").write_text("".join(f"i{item}\n" for item in order))
    _, _, model = build_adapter("VBPR", tmp_path, normalize_features=False)
    expected = torch.arange(n_items + 1, dtype=torch.float32)
    torch.testing.assert_close(model.model.features, torch.stack([expected, -expected], dim=1))


def test_malformed_or_missing_features_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="VBPR needs item features"):
        build_adapter("VBPR", tmp_path)
    np.save(tmp_path / "toy" / "image_feat.npy", np.ones((1, 2)))
    (tmp_path / "toy" / "image_feat.tokens.txt").write_text("i1\n")
    with pytest.raises(DataError, match="no row for"):
        build_adapter("VBPR", tmp_path)


def test_an_llm_model_in_recbole_reads_exported_embeddings(tmp_path: Path) -> None:
    from recbole.quick_start import run_recbole

    values = {
        **BASE,
        **toy.FEW,
        "llm": str(tiny_llama()),
        "prefix_hidden": 8,
        "max_history": 5,
        "MAX_ITEM_LIST_LENGTH": 5,
    }
    with pytest.raises(ModelError, match="item embeddings of HeLLMPre and SASRec are needed"):
        run_recbole(model="HeLLM", dataset="ml-100k", config_dict=values)
    with pytest.raises(SettingsError, match="must map each model to a folder"):
        run_recbole(model="HeLLM", dataset="ml-100k", config_dict={**values, "embeddings": "results"})
    tokens = np.array([str(number) for number in range(1, 1683)])
    rng = np.random.default_rng(0)
    folders = {}
    for name in ("HeLLMPre", "SASRec"):
        vectors = rng.normal(size=(len(tokens), 4)).astype(np.float32)
        export_embeddings(tmp_path / name, tokens[:1], vectors[:1], tokens, vectors)
        folders[name] = str(tmp_path / name)
    result = run_recbole(model="HeLLM", dataset="ml-100k", config_dict={**values, "embeddings": folders}, saved=False)
    assert 0 <= result["test_result"]["recall@10"] <= 1
