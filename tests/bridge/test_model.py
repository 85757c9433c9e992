"""Our models through RecBole's entry points: run, save, load, search, and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, HellmError, ModelError
from tests.bridge import toy
from tests.bridge.door import QUIET, rank_by_recbole
from tests.toy import write_prepared
from tests.toy_llm import tiny_llama

SMALL: dict[str, Any] = {"data_path": "dataset", "epochs": 2, "batch_size": 64, "emb_dim": 8}


def llm_values() -> dict[str, Any]:
    return {**SMALL, "llm": str(tiny_llama()), "HeLLM.prefix_hidden": 8, "HeLLM.warmup_epochs": 1}


def add_texts(dataset: Dataset) -> Dataset:
    return replace(dataset, item_text=("", *(f"customer {number}" for number in range(dataset.n_items))))


@pytest.mark.parametrize("model", ["VBPR", "HellmSASRec", "HellmPop", "HellmGRU4Rec", "HeLLM-without-any-prefix"])
def test_a_saved_model_is_loaded_with_the_same_scores(model: str, workplace: Path) -> None:
    from recbole.quick_start import load_data_and_model
    from recbole.utils import get_trainer

    values = llm_values() if model.startswith("HeLLM") else SMALL
    ranks, result = rank_by_recbole("toy", model, values)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    (checkpoint,) = workplace.glob(f"saved/{model}-*.pth")
    config, loaded, _, _, _, test = load_data_and_model(str(checkpoint))
    assert type(loaded).__name__ == config["model"] == model
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, loaded)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]
    assert trainer.ranks.rank.tolist() == list(ranks.values())


@pytest.mark.parametrize("model", ["HellmLightGCN", "HeLLM"])
def test_recboles_search_can_call_our_models(model: str, workplace: Path) -> None:
    from recbole.quick_start.quick_start import objective_function

    values = {**QUIET, **(llm_values() if model == "HeLLM" else SMALL), "model": model, "dataset": "toy"}
    found = objective_function({**values, f"{model.removeprefix('Hellm')}.learning_rate": 1e-3})
    assert found["model"] == model
    assert found["best_valid_score"] > 0
    assert found["test_result"].keys() == {f"{name}@{k}" for name in ("recall", "ndcg") for k in (5, 10, 20)}


def test_a_checkpoint_has_no_weights_that_are_not_trained(workplace: Path) -> None:
    from recbole.quick_start import run_recbole

    run_recbole(model="HeLLM", dataset="toy", config_dict={**QUIET, **llm_values()})
    (checkpoint,) = workplace.glob("saved/HeLLM-*.pth")
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert any("lora" in name for name in state)
    assert not any("embed_tokens" in name for name in state)


def test_a_variant_reads_item_texts(workplace: Path, toy_dataset: Dataset) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model

    write_prepared(workplace / "more" / "toy", add_texts(toy_dataset))
    values = {**QUIET, **llm_values(), "data_path": "more", "SASRec.epochs": 1}
    config = Config(model="LLaRA-text", dataset="toy", config_dict=values)
    train, *_ = data_preparation(config, create_dataset(config))
    model = get_model("LLaRA-text")(config, train._dataset)
    assert model.run.model.item_text_tokens == 16
    assert model.model.backbone is not None


@pytest.mark.parametrize(
    ("model", "values", "error", "message"),
    [
        ("LLaRA-text", {}, ModelError, "item_text_tokens is set, but the dataset has no item texts"),
        ("HeLLM", {"embeddings": {"HeLLMPre": "no", "SASRec": "no"}}, DataError, "embeddings no cannot be read"),
        ("HeLLM", {"llm": "no/such/folder", "HeLLM.llm_layers": 1}, HellmError, "no/such/folder"),
        ("VBPR", {"learning_rate": 1e30}, HellmError, "VBPR"),
        ("VBPR", {"modalities": ["sound"]}, ModelError, "sound"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    workplace: Path, model: str, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    from recbole.quick_start import run_recbole

    common = llm_values() if model != "VBPR" else SMALL
    with pytest.raises(error, match=message) as caught:
        run_recbole(model=model, dataset="toy", config_dict={**QUIET, **common, **values})
    assert "\n" not in str(caught.value)
    assert not (workplace / "saved" / "embeddings").exists()  # no pretrained model was trained first


def test_a_dataset_of_recbole_itself_can_be_filtered_and_its_texts_are_encoded(workplace: Path) -> None:
    from recbole.quick_start import run_recbole

    values = {**QUIET, **toy.FEW, "epochs": 1, "emb_dim": 8}
    result = run_recbole(model="VBPR", dataset="ml-100k", config_dict=values)
    assert 0 < result["test_result"]["recall@10"] <= 1
    assert [*(workplace / "saved" / "encodings").iterdir()]


def test_a_dataset_that_is_not_split_is_refused(workplace: Path) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model

    config = Config(model="VBPR", dataset="toy", config_dict={**QUIET, **SMALL})
    with pytest.raises(DataError, match=r"pass train_data\._dataset"):
        get_model("VBPR")(config, create_dataset(config))
