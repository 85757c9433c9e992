from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.record_parts import Filter, Metrics, Parameters, PeakMemory, Versions
from hellm_recbole.experiments.results import read_result, write_result
from tests.toy_records import rewrite, toy_record

PARTS: dict[str, Any] = {
    "filter": Filter,
    "metrics": Metrics,
    "parameters": Parameters,
    "peak_memory_bytes": PeakMemory,
    "versions": Versions,
}


@pytest.mark.parametrize("key", PARTS)
def test_an_object_of_a_record_has_exactly_the_keys_of_its_class(key: str, tmp_path: Any) -> None:
    path = write_result(tmp_path, toy_record())
    found = getattr(read_result(path), key)
    assert found.keys() == get_type_hints(PARTS[key]).keys()
    rewrite(path, lambda content: content[key].update(surplus=1))
    with pytest.raises(ResultError, match="surplus"):
        read_result(path)
