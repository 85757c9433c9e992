"""Values of a point in a resolved run config; whole points are in `test_search_task.py`."""

from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.search_point import change_settings

CONFIG = resolve_run("LightGCN", "toy", REGISTRY, "paper", [])


def test_only_the_given_values_change() -> None:
    changed = change_settings(CONFIG, [Override("LightGCN", "n_layers", 7, "n_layers of the search")])
    assert changed.model_settings.n_layers == 7
    assert changed.resolved.origin["n_layers"] == "n_layers of the search"
    assert changed.train == CONFIG.train
    assert change_settings(CONFIG, []) == CONFIG


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("n_layers", -1, "n_layers of the search: n_layers = -1 must be >= 0"),
        ("epochs", "many", "epochs of the search: epochs = 'many' must be of type int"),
        ("n_layer", 2, "n_layer of the search: unknown setting 'n_layer'; did you mean 'n_layers'"),
        ("valid_metric", "N@7", "valid_metric of the search: valid_metric is 'N@7'"),
    ],
)
def test_a_wrong_value_is_refused(key: str, value: object, part: str) -> None:
    with pytest.raises(SettingsError, match=part):
        change_settings(CONFIG, [Override("LightGCN", key, value, f"{key} of the search")])
