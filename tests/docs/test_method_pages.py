"""The pages of the models: all of them, with the values of the settings files and the rows of published runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hellm_docs.method_pages import cut_section, find_parts, write_method_pages, write_overview
from hellm_docs.published_runs import read_published
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from tests.toy_records import add_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    results = tmp_path_factory.mktemp("published")
    add_run(results, [2] * 10, model="LightGCN-recboard")
    return write_method_pages(REGISTRY, read_published(results), ROOT)


def test_every_model_has_a_page_in_the_order_of_the_groups(pages: dict[str, str]) -> None:
    assert {f"{name}.md" for name in REGISTRY} <= pages.keys()
    order = pages["order.txt"].split()
    assert {f"{name}.md" for name in order} | {"order.txt"} == pages.keys()
    assert order[: len(REGISTRY)] == [*REGISTRY]
    overview = write_overview(REGISTRY)
    assert all(f"(methods/{name}.md)" in overview for name in REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_setting_of_a_model_has_a_value_and_a_meaning(name: str, pages: dict[str, str]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", pages[f"{name}.md"], flags=re.MULTILINE))
    own = set(REGISTRY[name].settings.model_fields)
    assert own <= rows.keys()
    without_meaning = [key for key in own if not re.match(r"[^|]+ \| [^*|]{8}", rows[key])]
    assert without_meaning == []


def test_values_and_sources_are_those_of_the_settings_file(pages: dict[str, str]) -> None:
    values = load_yaml(find_properties() / "model" / "LightGCN.yaml")
    assert (
        f"| `n_layers` | `{values['n_layers']}` | L, number of layers on the user-item graph." in pages["LightGCN.md"]
    )
    assert "RecBoard (Toys: 2); searched 1..4 in the paper |" in pages["LightGCN.md"]
    assert "Toys:                 # RecBoard's" in pages["LightGCN.md"]


def test_published_rows_are_on_the_page_of_their_model_alone(pages: dict[str, str]) -> None:
    assert "| Toy | LightGCN-recboard |" in pages["LightGCN.md"]
    assert [name for name, text in pages.items() if "## Published results" in text] == ["LightGCN.md"]


def test_names_of_parts_are_links_to_their_pages(pages: dict[str, str]) -> None:
    assert "[`llm/graph_prefix.py`](parts-graph_prefix.md)" in pages["HeLLM.md"]
    assert "# Part: graph_prefix" in pages["parts-graph_prefix.md"]
    assert "hellm" not in find_parts(REGISTRY)  # it has a page as a model
    linked = {target for text in pages.values() for target in re.findall(r"\]\(([\w-]+\.md)\)", text)}
    assert linked <= pages.keys()


def test_a_section_is_cut_out_with_its_comments() -> None:
    text = "a: 1\nvariants:   # each\n  x: {a: 2}   # first\n  y:\n    a: 3\nb: 2\n"
    assert cut_section(text, "variants") == "x: {a: 2}   # first\ny:\n  a: 3"
    assert cut_section(text, "datasets") == ""
    assert cut_section("", "variants") == ""
