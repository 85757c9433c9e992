"""The reference of settings has every key of the shared files, and every other file."""

from __future__ import annotations

import pytest

from hellm_docs.setting_pages import write_settings_page
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.yaml_files import find_properties, load_yaml


@pytest.fixture(scope="module")
def page() -> str:
    return write_settings_page(REGISTRY)


@pytest.mark.parametrize("file", ["overall.yaml", "llm.yaml"])
def test_every_shared_key_is_in_a_table(file: str, page: str) -> None:
    keys = set(load_yaml(find_properties() / file)) - {"overrides"}
    assert [key for key in sorted(keys) if f"\n| `{key}` | " not in page] == []


def test_headings_of_the_files_are_headings_of_the_page(page: str) -> None:
    assert "\n### Training and selection\n" in page
    assert "\n### Prefix\n" in page


def test_every_other_file_is_included(page: str) -> None:
    properties = find_properties()
    expected = [
        path for folder in ("preset", "dataset", "llm", "study") for path in (properties / folder).glob("*.yaml")
    ]
    expected += [path for path in properties.glob("*.yaml") if path.name not in ("overall.yaml", "llm.yaml")]
    missing = [
        path.name for path in expected if f"/../properties/{path.relative_to(properties).as_posix()}" not in page
    ]
    assert missing == []
