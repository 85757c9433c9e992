from __future__ import annotations

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.identity.compare import (
    ADDED_SETTINGS,
    complete_parts,
    complete_settings,
    describe_changes,
    digest_parts,
    list_parts,
)
from hellm_recbole.identity.parts import list_code_digests, list_feature_digests, list_unknown_parts
from tests.toy_records import toy_identity

EMBEDDINGS = {"HeLLMPre": {"sha256": "e", "run_sha256": "r", "features": {"text": "old"}, "code": {"m": "1"}}}


def test_each_part_has_a_name_and_a_value() -> None:
    model = {"weights_sha256": "w", "files_sha256": "f", "dtype": "float32", "origin": None}
    texts = {"sha256": "t", "columns": ("title",)}
    code = {"sha256": "s", "modules": {"a.b": "1"}}
    identity = toy_identity("x", language_model=model, item_texts=texts, embeddings=EMBEDDINGS, code=code)
    assert list_parts(identity, {"emb_dim": 64, "llm": "auto"}, "split", 7) == {
        "setting emb_dim": "64",
        "setting llm": '"auto"',
        "seed": "7",
        "split": "split",
        "features of text": "x",
        "item texts": "t",
        "weights of the language model": "w",
        "configuration or tokenizer of the language model": "f",
        "number type of the language model": "float32",
        "embeddings of HeLLMPre": "e",
        "code a.b": "1",
    }


def test_every_change_is_described() -> None:
    assert describe_changes({"seed": "1"}, {"seed": "1"}) == ""
    assert describe_changes({"file of embeddings of A": "a.npy"}, {}) == ""
    assert describe_changes({"setting llm": '"a"'}, {"setting llm": '"b"'}) == "llm = a and now it is b"
    assert describe_changes({}, {"setting k": "5"}) == "k = not set and now it is 5"
    assert describe_changes({"split": "a"}, {"split": "b"}) == "another split than now"
    assert describe_changes({"features of image": "a"}, {}) == "features of image, which it would not read now"
    assert describe_changes({}, {"item texts": "a"}) == "no item texts, which it would read now"
    many = {f"setting s{number}": "1" for number in range(7)}
    assert describe_changes(many, {key: "2" for key in many}).endswith("s3 = 1 and now it is 2, and 3 more")


def test_embeddings_pass_on_their_features_and_code() -> None:
    assert list_feature_digests(toy_identity(embeddings=EMBEDDINGS)) == [("text", "old")]
    assert list_feature_digests(toy_identity("own", embeddings=EMBEDDINGS)) == [("text", "old"), ("text", "own")]
    code = {"sha256": "", "modules": {"m": "2"}}
    assert list_code_digests(toy_identity(embeddings=EMBEDDINGS, code=code)) == [{"m": "2"}, {"m": "1"}]


def test_what_earlier_versions_did_not_record_is_unknown() -> None:
    assert list_unknown_parts(toy_identity()) == []
    assert list_unknown_parts(None) == ["features", "code"]
    older = {"SASRec": {"sha256": "e", "run_sha256": None, "features": None, "code": None}}
    assert list_unknown_parts(toy_identity(embeddings=older)) == ["features of SASRec", "code of SASRec"]


def test_the_digest_of_all_parts_does_not_depend_on_their_order() -> None:
    assert digest_parts({"a": "1", "b": "2"}) == digest_parts({"b": "2", "a": "1"})
    assert digest_parts({"a": "1"}) != digest_parts({"a": "2"})


def test_a_setting_that_was_a_constant_has_its_old_value_in_older_files() -> None:
    now = {"setting decay_epochs": "50", "setting emb_dim": "8"}
    assert describe_changes({"setting emb_dim": "8"}, now) == ""
    assert describe_changes({"setting emb_dim": "8"}, {**now, "setting decay_epochs": "60"}) == (
        "decay_epochs = 50 and now it is 60"
    )
    assert describe_changes({"setting emb_dim": "8", "setting decay_epochs": "40"}, now) == (
        "decay_epochs = 40 and now it is 50"
    )
    assert complete_settings({"emb_dim": 8}, ["emb_dim"]) == {"emb_dim": 8}
    assert complete_settings({"emb_dim": 8}, ["emb_dim", "decay_epochs"]) == {"emb_dim": 8, "decay_epochs": 50}
    assert complete_parts({"seed": "1"}, {"setting decay_epochs": "60"}) == {"seed": "1", "setting decay_epochs": "50"}


EARLIER = {  # the models whose records may lack an added setting
    *("LightGCN", "VBPR", "GRCN", "LATTICE", "SLMRec", "BM3", "FREEDOM", "SASRec"),
    *("HeLLMPre", "HeLLM", "CoLLM", "LLaRA"),
}


def test_every_added_setting_still_has_the_value_that_the_code_had() -> None:
    """No file changes one of them, so that runs of earlier versions stay comparable with new ones.

    A model that is newer than a setting has no such runs, and may set it.
    """
    added = load_yaml(find_properties() / ADDED_SETTINGS)
    found = set()
    for config in resolve_runs([*REGISTRY], "toy", REGISTRY, "paper", []):
        own = added.keys() & config.resolved.values.keys()
        found |= own
        if config.family == "llm":  # their records always had it
            own -= {"learning_rate_floor"}
        if config.model not in EARLIER:
            continue
        assert {key: config.resolved.values[key] for key in own} == {key: added[key] for key in own}
    assert found == added.keys()
