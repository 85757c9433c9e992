"""Comments of settings files belong to the right keys."""

from __future__ import annotations

from hellm_docs.yaml_comments import read_comments
from hellm_recbole.config.yaml_files import find_properties


def test_comments_of_nested_and_quoted_values() -> None:
    found = read_comments(
        "# Header.\n"
        "text: 'a # b'  # quoted\n"
        "list: [1, 2]  # flow\n"
        "mapping: &x    # of the section\n"
        "  inner: 1  # not of the file\n"
        "nothing: ~\n"
        "long: 1  # first line,\n"
        "         # second line\n"
        "# Heading\n"
        "overrides:\n"
        "  epochs: 3   # overridden\n"
    )
    assert found.header == "Header."
    assert found.of_keys == {
        "text": "quoted",
        "list": "flow",
        "mapping": "of the section",
        "long": "first line, second line",
        "epochs": "overridden",
    }
    assert found.headings == {"overrides": "Heading"}


def test_a_sentence_in_the_first_column_belongs_to_the_next_key() -> None:
    found = read_comments("a: 1\n# It is what b stands for.\nb: 2  # metres\n")
    assert found.of_keys == {"b": "metres; It is what b stands for."}
    assert found.headings == {}


def test_an_empty_file_has_no_comments() -> None:
    assert read_comments("").of_keys == {}


def test_comments_of_the_shared_settings_are_found() -> None:
    found = read_comments((find_properties() / "overall.yaml").read_text(encoding="utf-8"))
    assert found.of_keys["valid_metric"].startswith("selects epoch and checkpoint")
    assert found.headings["epochs"] == "Training and selection"
