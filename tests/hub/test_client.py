"""What the client says when something is wrong; tests/hub/test_loading.py and tests/benchmarks/test_push.py use it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hellm_recbole.errors import HubError
from hellm_recbole.hub import client
from hellm_recbole.hub.client import Pushed, fetch_manifest, push_folder
from hellm_recbole.hub.names import HubName
from tests.hub_server import READER, Hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to push: a card, a small and a large file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# One\n")
    (folder / "one.json").write_text("{}")
    (folder / "two.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}      ")
    return folder


def push(folder: Path, repository: str = "ada/one", *, private: bool = False) -> Pushed:
    def check(manifest: str | None, names: Sequence[str]) -> None:
        """Allow everything."""

    patterns = ["*.json"]
    return push_folder(
        folder,
        repository,
        "model",
        message="one",
        private=private,
        replaced=patterns,
        check=check,
        manifest="one.json",
    )


def fail(folder: Path, repository: str = "ada/one", *, private: bool = False) -> str:
    with pytest.raises(HubError) as caught:
        push(folder, repository, private=private)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_pushed_in_one_commit_and_replaces_earlier_files(folder: Path, hub: Hub) -> None:
    pushed = push(folder)
    assert pushed == Pushed(
        f"{hub.endpoint}/ada/one", hub.repositories["models", "ada/one"].commits[-1][0], False, True
    )
    (folder / "one.json").rename(folder / "three.json")
    again = push(folder)
    assert not again.is_new
    assert {*hub.read("ada/one")} == {".gitattributes", "README.md", "three.json", "two.safetensors"}
    assert len(hub.repositories["models", "ada/one"].commits) == 3  # the first one is that of the hub
    assert push(folder).commit == again.commit  # nothing has changed


def test_a_private_repository_is_made_private_and_a_public_one_is_refused(folder: Path, hub: Hub) -> None:
    assert push(folder, private=True).is_private
    assert hub.repositories["models", "ada/one"].private
    push(folder, "ada/open")
    before = len(hub.repositories["models", "ada/open"].commits)
    assert (
        f"ada/open exists and is public; make it private at {hub.endpoint}/ada/open/settings, leave --private"
        in fail(folder, "ada/open", private=True)
    )
    assert len(hub.repositories["models", "ada/open"].commits) == before


def test_faults_are_one_sentence_and_nothing_is_pushed(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "README.md").write_text("---\nlicense: my-own\n---\n")
    assert "the hub refuses the card (" in fail(folder)
    (folder / "README.md").write_text("# no front matter\n")
    monkeypatch.setenv("HF_TOKEN", READER)
    message = fail(folder)
    assert message.startswith("cannot push to ada/one: your token has no right to write to ada/one")
    assert message.endswith("; nothing was pushed")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the hub does not know your token; log in again with `hf auth login`" in fail(folder)
    monkeypatch.delenv("HF_TOKEN")
    assert fail(folder) == (
        "cannot push to ada/one: no token of the Hugging Face hub was found; log in with `hf auth login`, or set "
        "HF_TOKEN; nothing was pushed"
    )
    assert hub.repositories == {}


def test_a_hub_out_of_order_keeps_the_earlier_commit(folder: Path, hub: Hub) -> None:
    commit = push(folder).commit
    (folder / "one.json").write_text("[]")
    hub.fault = 418
    assert "the hub answers 418 (" in fail(folder)
    hub.fault = 412
    assert "ada/one was changed at the same time (" in fail(folder)
    assert hub.repositories["models", "ada/one"].commits[-1][0] == commit


def test_no_network_is_one_sentence(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens there
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert f"cannot push to ada/one: {endpoint} cannot be reached; check the network" in fail(folder)


def test_offline_mode_is_named(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set; unset it" in fail(folder)
    with pytest.raises(HubError, match="hub:ada/one is not in the cache, and the hub cannot be reached"):
        fetch_manifest(HubName("ada/one"), "model", "one.json", "one")
    assert hub.requests == []


def test_a_failed_push_says_that_it_leaves_an_empty_repository(folder: Path, hub: Hub) -> None:
    hub.fault = 418
    message = fail(folder)
    assert "nothing was pushed; the new, empty repository ada/one stays (public): the same command fills it" in message
    assert message.endswith(f"or delete it at {hub.endpoint}/ada/one/settings")
    assert fail(folder).endswith("; nothing was pushed")  # it was there before


def test_a_lost_answer_to_a_commit_is_not_called_nothing(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client(HfApi):
        def upload_folder(self, **options: object) -> None:  # type: ignore[override]
            super().upload_folder(**options)  # type: ignore[call-overload]
            if options["commit_message"] == "one":
                raise ConnectionResetError("reset")

    monkeypatch.setattr("huggingface_hub.HfApi", Client)
    assert f"{hub.endpoint}/ada/one has a new commit (" in fail(folder)
    monkeypatch.setattr(client, "_find_repository", lambda *_: None)

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionResetError("reset")

    monkeypatch.setattr(Client, "repo_info", refuse)
    assert "it is not known whether the files were pushed; look at http" in fail(folder)
