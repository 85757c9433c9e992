from __future__ import annotations

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError
from hellm_recbole.hub.licences import DataTerms, Terms, check_licence, choose_licence, find_data_terms
from hellm_recbole.llm.packaged import HUB_ID


def test_the_licence_of_a_language_model_comes_from_its_terms() -> None:
    assert choose_licence(None, (HUB_ID,)) == "gemma"
    assert choose_licence(None, ("meta-llama/Llama-2-7b-hf",)) == "llama2"
    assert choose_licence(None, ("org/new",)) == "other"
    assert choose_licence(None, (None,)) == "other"  # a folder
    assert choose_licence(None, (HUB_ID, "meta-llama/Llama-2-7b-hf")) == "other"
    assert choose_licence("cc-by-4.0", (HUB_ID,)) == "cc-by-4.0"


def test_a_licence_that_cannot_be_one_is_refused() -> None:
    for text in ("", "Apache 2", "../x", "MIT\n"):
        with pytest.raises(SettingsError, match="is not the id of a licence"):
            check_licence(text)


def test_the_terms_of_every_known_dataset_are_stated() -> None:
    names = [path.stem for path in (find_properties() / "dataset").glob("*.yaml")]
    found = {name: find_data_terms(name, None) for name in names}
    assert all(isinstance(terms, DataTerms) for terms in found.values())
    assert [name for name, terms in found.items() if terms is not None and terms.redistribute] == ["synthetic-shop"]
    assert find_data_terms("Office", "amazon2023") == found["Beauty"]
    assert find_data_terms("Beauty-ties3", None) == found["Beauty"]
    assert find_data_terms("Beautiful", "table") is None


def test_every_entry_of_the_file_is_read() -> None:
    values = load_yaml(find_properties() / "hub.yaml")
    assert {name for name in values["datasets"].values()} | {*values["kinds"].values()} <= {*values["data"]}
    for entry in values["language_models"]:
        assert choose_licence(None, (f"{entry['begins']}1",)) == Terms(**entry).licence
