from __future__ import annotations

import json

import pytest

from hellm_recbole.errors import HubError
from hellm_recbole.hub.pushing import create_temporary_folder, refuse_other_run

RUN = "runs/toy/SASRec/2024"


def test_the_same_run_and_an_empty_repository_are_replaced() -> None:
    refuse_other_run("ada/run", None, [], RUN)
    refuse_other_run("ada/run", json.dumps({"run": RUN}), ["README.md", "hellm.json"], RUN)


@pytest.mark.parametrize(
    ("manifest", "names", "text"),
    [
        (
            None,
            ["README.md"],
            r"has files that are not ours \(README.md\); push to another repository, or give --fresh",
        ),
        (None, ["a", "b", "c"], r"has files that are not ours \(a and 2 more\)"),
        ('{"run": "runs/toy/SASRec/2025"}', ["hellm.json"], r"holds another run \(runs/toy/SASRec/2025\)"),
        ("{", ["hellm.json"], r"holds another run \(something else\)"),
        ("[]", ["hellm.json"], r"holds another run \(something else\)"),
    ],
)
def test_anything_else_is_kept(manifest: str | None, names: list[str], text: str) -> None:
    with pytest.raises(HubError, match=text):
        refuse_other_run("ada/run", manifest, names, RUN)


def test_the_temporary_folder_is_removed() -> None:
    with create_temporary_folder() as folder:
        assert folder.is_dir()
    assert not folder.exists()
