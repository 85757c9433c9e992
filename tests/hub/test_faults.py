from __future__ import annotations

import json

import pytest

from hellm_recbole.errors import HubError
from hellm_recbole.hub.faults import describe_fault, translate_errors
from hellm_recbole.hub.names import HubName


def test_a_fault_without_an_answer_shows_its_own_text() -> None:
    assert (
        describe_fault(OSError(28, "No space left on device"), HubName("a/b")) == "[Errno 28] No space left on device"
    )
    inner = RuntimeError("Error while uploading 'x' to the Hub.")
    inner.__cause__ = ConnectionResetError("reset")
    assert "cannot be reached; check the network" in describe_fault(inner, HubName("a/b"))


def test_a_page_of_html_is_not_the_answer_of_a_hub() -> None:
    with (
        pytest.raises(HubError, match="does not answer as a hub; check HF_ENDPOINT, and whether the network asks"),
        translate_errors(HubName("a/b"), "fetch a/b"),
    ):
        json.loads("<html>log in</html>")
