"""The reference of the Python API names all of it, and only what exists."""

from __future__ import annotations

import importlib
import re

import hellm_recbole.api
from hellm_docs.api_pages import list_errors, write_api_page


def test_every_name_of_the_api_is_documented() -> None:
    page = write_api_page()
    documented = re.findall(r"\.\. auto\w+:: ([\w.]+)", page)
    assert {name.rpartition(".")[2] for name in documented} >= {*hellm_recbole.api.__all__, *list_errors()}
    assert len(documented) == len(set(documented))
    for name in documented:
        module, _, attribute = name.rpartition(".")
        assert (getattr(importlib.import_module(module), attribute).__doc__ or "").strip(), name


def test_the_common_base_of_errors_comes_first() -> None:
    assert list_errors()[0] == "HellmError"
    assert "DataError" in list_errors()
