from __future__ import annotations

from dataclasses import asdict

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.importers.amazon.vintages import VINTAGES


@pytest.mark.parametrize("name", sorted(VINTAGES))
def test_every_vintage_is_complete_and_is_a_kind_of_source(name: str) -> None:
    vintage = VINTAGES[name]
    assert vintage.name == name
    assert all(asdict(vintage).values())
    assert len({vintage.user, vintage.item, vintage.time}) == 3
    assert len({vintage.meta_item, vintage.title, vintage.brand, vintage.categories, vintage.description}) == 5
    assert name in load_yaml(find_properties() / "kinds.yaml")
