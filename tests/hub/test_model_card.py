from __future__ import annotations

from dataclasses import replace
from typing import Any

from huggingface_hub import ModelCard

from hellm_recbole.experiments.results import RunResult, SettingValue
from hellm_recbole.hub.model_card import CardFacts, format_model_card
from tests.toy_records import toy_identity, toy_record

GEMMA = {"llm": "auto", "llm_weights": "pretrained", "llm_layers": 2, "quantization": "none"}


def make_llm_record(**settings: Any) -> RunResult:
    values = {key: SettingValue(value=value, origin="llm.yaml") for key, value in {**GEMMA, **settings}.items()}
    return replace(toy_record(), model="HeLLM", family="llm", backbone="gemma-3-270m-q4-2L", settings=values)


def read_card(*results: RunResult, **changes: Any) -> ModelCard:
    facts: dict[str, Any] = {"repository": "ada/run", "licence": None, "data": None, "sizes": {"hellm.json": 812}}
    return ModelCard(format_model_card(results, CardFacts(**{**facts, **changes})))


def test_the_front_matter_has_what_the_hub_reads() -> None:
    result = toy_record()
    card = read_card(result, data="ada/toy")
    data = card.data
    assert (data.license, data.library_name, data.datasets) == ("apache-2.0", "hellm-recbole", ["ada/toy"])
    assert "recommender-systems" in data.tags
    assert data.base_model is None
    assert data.eval_results is not None
    found = {entry.metric_type: entry for entry in data.eval_results}
    assert {name: entry.metric_value for name, entry in found.items()} == {
        name: round(value, 6) for name, value in result.metrics["test"].items()
    }
    entry = found["R@10"]
    assert (entry.dataset_name, entry.dataset_split, entry.metric_name) == ("Toy", "test", "Recall@10, mean over users")
    assert entry.dataset_args == {
        "split_kind": "leave-one-out",
        "split_sha256": result.split_hash,
        "mask_history": "seen",
        "candidates": result.n_candidates,
        "seed": result.seed,
    }


def test_the_text_says_how_to_load_and_what_the_numbers_depend_on() -> None:
    result = replace(toy_record(), identity=toy_identity("f" * 64), git_commit="c" * 40)
    text = read_card(result).text
    assert 'hellm_recbole.load_run("hub:ada/run")' in text
    assert "`hellm-recbole recommend hub:ada/run`" in text
    assert f"| features text | {'f' * 64} (MiniLM) |" in text
    assert f"| commit of hellm-recbole | {'c' * 40} |" in text
    assert "Mask: seen (items of a user's history are not ranked)" in text
    assert f"| Recall@10 | {result.metrics['test']['R@10']:.4f} | {result.metrics['valid']['R@10']:.4f} |" in text
    assert "| hellm.json | 0.8 |" in text


def test_the_terms_of_a_language_model_are_named() -> None:
    card = read_card(make_llm_record(), sizes={"adapter/adapter_config.json": 1})
    assert card.data.license == "gemma"
    assert card.data.base_model == "google/gemma-3-270m"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert (
        "The language model google/gemma-3-270m is not part of this repository. Gemma's [own terms of use](htt"
        in card.text
    )
    assert "`adapter/` is its adapter alone, in the format of PEFT" in card.text
    assert read_card(make_llm_record(), licence="mit").data.license == "mit"


def test_a_language_model_that_was_in_a_folder_has_to_be_named() -> None:
    card = read_card(make_llm_record(llm=".../tiny-llama"))
    assert card.data.license == "other"
    assert card.data.base_model is None
    assert 'load_run("hub:ada/run", llm="FOLDER")' in card.text
    assert "FOLDER is the folder of its language model, which was named tiny-llama; it is not pushed." in card.text
    assert "has its own terms" in card.text


def test_random_weights_have_no_terms() -> None:
    card = read_card(make_llm_record(llm_weights="random"))
    assert (card.data.license, card.data.base_model) == ("apache-2.0", None)


def test_a_model_of_all_data_has_no_results() -> None:
    nothing: Any = {"valid": {}, "test": {}}
    card = read_card(replace(toy_record(), evaluated=False, metrics=nothing))
    assert card.data.eval_results is None
    assert "There are none: the model was trained on all data" in card.text


def test_the_data_of_a_known_dataset_have_their_terms() -> None:
    text = read_card(replace(toy_record(), dataset="Beauty")).text
    assert "- The data (Beauty) are not part of this repository: for research, without a licence" in text


def test_names_are_escaped() -> None:
    text = format_model_card([replace(toy_record(), dataset="my_<b>|shop")], CardFacts("ada/run", None, None, {}))
    assert r"on my\_\<b\>\|shop" in text
    assert ModelCard(text).data.eval_results is not None
