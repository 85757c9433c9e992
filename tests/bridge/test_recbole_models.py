from __future__ import annotations

import subprocess
import sys

import pytest

from hellm_recbole.bridge import recbole_models
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import ModelError, SettingsError


def test_names_and_kinds() -> None:
    names = recbole_models.list_recbole_models()
    assert {"Pop", "ItemKNN", "BPR", "LightGCN", "GRU4Rec", "SASRec", "MultiVAE"} <= set(names)
    assert not {"KGAT", "DeepFM", "VBPR"} & set(names)
    kinds = {name: recbole_models.find_recbole_kind(name) for name in ("Pop", "BPR", "GRU4Rec", "VBPR", "bpr")}
    assert kinds == {"Pop": "traditional", "BPR": "general", "GRU4Rec": "sequential", "VBPR": None, "bpr": None}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("KGAT", "needs a knowledge graph"),
        ("DeepFM", "needs user and item attributes"),
        ("GRU4RecF", "reads user or item attributes"),
        ("NCL", "its own training procedure"),
        ("RecVAE", "its own training procedure"),
    ],
)
def test_unsupported_models_are_rejected_with_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        recbole_models.find_recbole_kind(name)


def test_recbole_settings_have_our_names() -> None:
    values = recbole_models.read_recbole_settings("LightGCN")
    assert values == {
        "batch_size": 2048,
        "learning_rate": 0.001,
        "weight_decay": 0.0,
        "embedding_size": 64,
        "n_layers": 2,
        "reg_weight": 1e-5,
        "train_neg_sample_args": values["train_neg_sample_args"],
    }
    assert values["train_neg_sample_args"]["distribution"] == "uniform"
    assert recbole_models.read_recbole_settings("GRU4Rec")["train_neg_sample_args"] is None
    assert recbole_models.read_recbole_settings("GRU4Rec")["MAX_ITEM_LIST_LENGTH"] == 50


@pytest.mark.parametrize("name", recbole_models.list_recbole_models())
def test_settings_of_every_model_load(name: str) -> None:
    try:
        assert {"batch_size", "learning_rate", "weight_decay"} <= set(recbole_models.read_recbole_settings(name))
    except ModelError:
        unsupported = {
            "DIEN",
            "DIN",
            "FDSA",
            "GRU4RecF",
            "GRU4RecKG",
            "KSR",
            "NCL",
            "RaCT",
            "RecVAE",
            "S3Rec",
            "SASRecF",
        }
        assert name in unsupported


def test_the_names_are_listed_without_importing_recbole_or_torch() -> None:
    code = (
        "import sys; from hellm_recbole.bridge.recbole_models import find_recbole_kind, list_recbole_models; "
        "assert 'BPR' in list_recbole_models() and find_recbole_kind('VBPR') is None; "
        "assert not {'recbole', 'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_settings_that_recboles_models_do_not_have_are_refused_unless_they_are_off() -> None:
    values = load_yaml(find_properties() / "overall.yaml")
    origin = dict.fromkeys(values, "overall.yaml")
    recbole_models.refuse_own_training(Resolved(values, origin), "BPR")
    recbole_models.refuse_own_training(Resolved({**values, "schedule": "cosine"}, origin), "BPR")
    on = {"average_decay": 0.5, "warmup_steps": 1, "decay_vectors": False, "schedule": "linear"}
    for key, value in on.items():
        with pytest.raises(SettingsError, match=f"^overall.yaml: {key} = {str(value).lower()} is not available for"):
            recbole_models.refuse_own_training(Resolved({**values, key: value}, origin), "BPR")
