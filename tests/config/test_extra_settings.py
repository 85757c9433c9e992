from __future__ import annotations

from hellm_recbole.config.extra_settings import read_native_task_settings, read_sampled_ranking_settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml


def test_values_are_those_of_the_files() -> None:
    properties = find_properties()
    assert read_sampled_ranking_settings().model_dump() == load_yaml(properties / "sampled_ranking.yaml")
    assert read_native_task_settings().model_dump() == load_yaml(properties / "native_tasks.yaml")
