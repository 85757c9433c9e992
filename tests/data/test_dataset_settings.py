from __future__ import annotations

import pytest
from pydantic import ValidationError

from hellm_recbole.config.settings import list_field_names
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.dataset_settings import DatasetSettings
from hellm_recbole.data.prepare import read_dataset_settings


def test_every_setting_has_a_value_for_all_kinds() -> None:
    assert {"kind", *load_yaml(find_properties() / "kinds.yaml")["every"]} == set(list_field_names(DatasetSettings))


@pytest.mark.parametrize(
    ("key", "value", "message"), [("kind", "excel", "must be one of sequences, s3rec"), ("k_core", -1, "greater than")]
)
def test_wrong_values_are_refused(key: str, value: object, message: str) -> None:
    values = read_dataset_settings("Beauty", None, {}).model_dump()
    with pytest.raises(ValidationError, match=message):
        DatasetSettings(**{**values, key: value})
