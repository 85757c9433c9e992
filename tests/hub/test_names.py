from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.errors import SettingsError
from hellm_recbole.hub.names import HubName, is_hub_name, parse_hub_name, parse_repository


def test_names_are_parsed() -> None:
    assert parse_hub_name("hub:ada/run") == HubName("ada/run", None)
    assert parse_hub_name("hub:ada/run@refs/pr/1") == HubName("ada/run", "refs/pr/1")
    assert str(parse_hub_name("hub:ada/Run_1.2@v1")) == "hub:ada/Run_1.2@v1"
    assert is_hub_name("hub:x")
    assert not is_hub_name("results/hub:x")
    assert not is_hub_name(Path("hub:x"))


@pytest.mark.parametrize(
    "text", ["", "ada", "ada/", "/run", "ada/run/x", "ada/..", "ada/a--b", "ada/run@v1", "-ada/run", "a b/c", "ada/x\n"]
)
def test_wrong_repositories_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="does not name a repository of the hub; write ORG/NAME"):
        parse_repository(text)
    with pytest.raises(SettingsError, match=r"write hub:ORG/NAME"):
        parse_hub_name(text if "@" in text else f"hub:{text}")


@pytest.mark.parametrize("revision", ["", "../x", "a b", "/etc", "@"])
def test_wrong_revisions_are_refused(revision: str) -> None:
    with pytest.raises(SettingsError, match="with a branch, a tag or a commit"):
        parse_hub_name(f"hub:ada/run@{revision}")
