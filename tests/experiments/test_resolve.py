from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config import model_layers, properties_files
from hellm_recbole.config.request import Override, parse_override
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments import resolve
from hellm_recbole.experiments.results import Search
from hellm_recbole.experiments.run_config import RunConfig
from tests.toy_llm import tiny_llama

TOY_SEARCH: Search = {
    "budget": "trials=3",
    "scheduler": "asha",
    "search": "random",
    "seed": 2024,
    "trials": 3,
    "valid_metric": "N@20",
    "valid": 0.25,
}


def find_refusal(model: str, *settings: str) -> str:
    overrides = [parse_override(text, "--set ") for text in settings]
    with pytest.raises(SettingsError) as caught:
        resolve.resolve_runs([model], "tiny", REGISTRY, "paper", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "setting", "said"),
    [
        ("LightGCN", "learning_rate=.inf", "must be a finite number"),
        ("LightGCN", "learning_rate=1e300", "must be <= 1e+30"),
        ("LightGCN", "clip_norm=1e400", "must be a finite number"),
        ("LightGCN", "epochs=1:30", "must be of type int"),
        ("LightGCN", "cutoffs=[20,20]", "contains a value twice"),
        ("LightGCN", "cutoffs=[]", "valid_metric"),
        ("LightGCN", "cutoffs=[2000000000]", "must be <= 1000000"),
        ("LightGCN", "batch_size=1e23", "must be of type int"),
        ("LightGCN", "batch_size=100000000000000000000000", "must be at most"),
        ("SASRec", "n_heads=3", "--set n_heads=3: emb_dim = 64 must be a multiple of n_heads = 3"),
        ("RecBole-BPR", "embedding_size=0", "must be a whole number of at least 1"),
        ("RecBole-BPR", "embedding_size=-3", "must be a whole number of at least 1"),
        ("RecBole-BPR", "embedding_size=wide", "must be a number"),
        ("RecBole-SASRec", "n_heads=3", "hidden_size = 64 must be a multiple of n_heads = 3"),
        ("RecBole-SASRec", "hidden_dropout_prob=1.5", "must be >= 0 and < 1"),
        ("RecBole-SASRec", "layer_norm_eps=.nan", "must be a finite number"),
        ("RecBole-ItemKNN", "k=0", "must be a whole number of at least 1"),
        ("RecBole-BPR", "average_decay=0.99", "=0.99: average_decay = 0.99 is not available for RecBole's"),
        ("RecBole-Pop", "warmup_steps=5", "name the models that it is for, as in HeLLMPre.warmup_steps=5"),
        ("RecBole-SASRec", "decay_vectors=false", "decay_vectors = false is not available for RecBole's SASRec"),
        ("GRU4Rec", "schedule=linear", "schedule = linear is not available for RecBole's GRU4Rec"),
        ("LightGCN", "average_decay=1.0", "must be < 1"),
        ("LightGCN", "learning_rate_floor=1.5", "must be <= 1"),
        ("HeLLM", "warmup_steps=5", "warmup_epochs = 1 and warmup_steps = 5 are two lengths of the same warm-up"),
    ],
)  # fmt: skip
def test_an_unusable_value_is_refused(model: str, setting: str, said: str) -> None:
    message = find_refusal(model, setting)
    assert said in message
    assert setting.partition("=")[0] in message


def test_recboles_default_values_are_accepted() -> None:
    from hellm_recbole.bridge.recbole_models import list_recbole_models
    from hellm_recbole.errors import ModelError

    done = 0
    for name in list_recbole_models():
        try:
            resolve.resolve_runs([f"RecBole-{name}"], "tiny", REGISTRY, "paper", [])
        except ModelError:
            continue  # RecBole trains it by a procedure of its own
        done += 1
    assert done > 40


def test_all_missing_settings_of_a_model_are_in_one_message_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_properties()
    for part in real.iterdir():
        if part.name != "model":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "LightGCN.yaml").write_text("n_layers: 3\nlearning_rate: fast\n")
    for module in (model_layers, properties_files):
        monkeypatch.setattr(module, "find_properties", lambda: tmp_path)
    message = find_refusal("LightGCN")
    file = tmp_path / "model" / "LightGCN.yaml"
    assert (
        f"batch_size, weight_decay, emb_dim, l2_weight, init_std, sampling are not set; add them to {file}" in message
    )
    assert "learning_rate = 'fast'" in message


def test_each_run_config_of_a_command_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = resolve.resolve_run

    def count(name: str, *rest: Any) -> RunConfig:
        asked.append(name)
        return real(name, *rest)

    monkeypatch.setattr(resolve, "resolve_run", count)
    resolver = resolve.Resolver("toy", REGISTRY, "quick", [Override(None, "llm", str(tiny_llama()), "--llm")])
    first = resolver.resolve_with_pretrained(["SASRec", "LLaRA"])
    assert [config.model for config in first] == ["SASRec", "LLaRA"]
    again = resolver.resolve_with_pretrained(["SASRec", "LightGCN", "LLaRA"])
    assert [config.model for config in again] == ["LightGCN", "SASRec", "LLaRA"]
    assert again[1] is first[0]
    assert asked == ["SASRec", "LLaRA", "LightGCN"]


def test_tuned_values_win_over_the_preset_and_lose_against_the_command_line() -> None:
    tuned = resolve.Tuned({"epochs": 7, "emb_dim": 8}, TOY_SEARCH, "tuned/SASRec.yaml")
    resolver = resolve.Resolver("toy", REGISTRY, "quick", [parse_override("emb_dim=16", "--set ")])
    config = resolver.resolve("SASRec", tuned)
    assert (config.label, config.search) == ("SASRec-tuned", TOY_SEARCH)
    assert (config.resolved.values["epochs"], config.resolved.origin["epochs"]) == (7, "tuned/SASRec.yaml")
    assert config.resolved.values["emb_dim"] == 16
    assert resolver.resolve("SASRec").search is None


def test_pretrained_models_come_first_and_never_have_tuned_values() -> None:
    resolver = resolve.Resolver("toy", REGISTRY, "quick", [Override(None, "llm", str(tiny_llama()), "--llm")])
    tuned = {"SASRec": resolve.Tuned({"emb_dim": 8}, TOY_SEARCH, "tuned/SASRec.yaml")}
    configs = resolver.resolve_with_pretrained(["LLaRA", "SASRec"], tuned)
    assert [config.label for config in configs] == ["SASRec-tuned", "SASRec", f"LLaRA@{tiny_llama().name}-2L"]
    assert [resolve.is_pretrained_model(config, configs) for config in configs] == [False, True, False]


def test_a_model_without_item_embeddings_cannot_be_read() -> None:
    overrides = [parse_override("HeLLM.item_inputs=[CoLLM]", "--set ")]
    with pytest.raises(ModelError, match=r"names CoLLM, but CoLLM has no item embeddings .* name one of"):
        resolve.Resolver("toy", REGISTRY, "quick", overrides).resolve_with_pretrained(["HeLLM"])


def test_a_model_that_reads_histories_has_no_user_embeddings() -> None:
    overrides = [parse_override(text, "--set ") for text in ("LLaRA.prompt=a {user} bought", "LLaRA.examples=all")]
    with pytest.raises(ModelError, match=r"LLaRA: prompt has a place {user}, but SASRec has no embeddings of users"):
        resolve.Resolver("toy", REGISTRY, "quick", overrides).resolve_with_pretrained(["LLaRA"])
