from __future__ import annotations

import pytest

from hellm_recbole.config.layers import describe_unknown_keys, merge_layers
from hellm_recbole.errors import SettingsError


def test_two_layers_may_not_set_the_same_key_but_an_override_may() -> None:
    with pytest.raises(SettingsError, match=r"b.yaml and a.yaml both set 'x'"):
        merge_layers([("a.yaml", {"x": 1}), ("b.yaml", {"x": 1})])
    changed = merge_layers([("a.yaml", {"x": 1})]).override({"x": 2}, "--set x=2")
    assert (changed.values["x"], changed.origin["x"]) == (2, "--set x=2")


def test_an_unknown_key_is_reported_with_its_origin_and_the_nearest_key() -> None:
    layers = merge_layers([("a.yaml", {"width": 1, "widht": 2}), ("b.yaml", {"zzz": 3})])
    assert describe_unknown_keys(layers, ["width", "depth"]) == [
        "a.yaml: unknown setting 'widht'; did you mean 'width'?",
        "b.yaml: unknown setting 'zzz'; valid keys are depth, width",
    ]
