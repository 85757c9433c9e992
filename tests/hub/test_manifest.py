from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import HubError
from hellm_recbole.hub.manifest import RunManifest, check_files, is_loaded, parse_manifest

RECORD = "runs/toy/SASRec/2024/record.json"


def make_manifest(**changes: Any) -> RunManifest:
    values = {"schema": 1, "kind": "run", "hellm_recbole": "0.1.0", "run": "runs/toy/SASRec/2024", "split_sha256": "a"}
    return RunManifest(**{**values, "files": {RECORD: "0" * 64}, **changes})


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = make_manifest()
    assert parse_manifest(manifest.to_json(), "hub:a/b") == manifest


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"run": "runs/toy/LightGCN/2024"}, "has changed since it was pushed"),
        ({"schema": 2}, "is of version 2, and this version of the project reads 1"),
        ({"kind": "dataset"}, "its hellm.json is of something else"),
        ({"sha256": None}, "has changed since it was pushed"),
    ],
)
def test_another_content_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(HubError, match=text):
        parse_manifest({**make_manifest().to_json(), **change}, "hub:a/b")


def test_what_is_no_manifest_is_refused() -> None:
    for content in ([], None, {}, {"schema": 1}, "text"):
        with pytest.raises(HubError, match="hub:a/b is not a run that hellm-recbole push has written"):
            parse_manifest(content, "hub:a/b")
    broken = {"schema": 1, "kind": "run", "files": 3}
    with pytest.raises(HubError, match=r"the hellm.json of hub:a/b: .*; push the run again"):
        parse_manifest(broken, "hub:a/b")


@pytest.mark.parametrize(
    "file",
    [
        "runs/toy/SASRec/2024/model.pkl",
        "runs/../../SASRec/2024/record.json",
        "runs/toy/SASRec/seed/record.json",
        "/runs/toy/SASRec/2024/record.json",
        "runs/toy/SASRec/2024/checkpoint/../record.json",
        "runs\\toy\\SASRec\\2024\\record.json",
        "pretrained/x.bin",
        "pretrained/../x.safetensors",
        "record.json",
        "README.md",
    ],
)
def test_only_files_of_runs_are_loaded(file: str) -> None:
    assert not is_loaded(file)
    with pytest.raises(HubError, match="is not a file of a run; such a file is not fetched"):
        parse_manifest(make_manifest(files={file: "0" * 64}).to_json(), "hub:a/b")
    assert is_loaded(RECORD)


def test_a_run_folder_outside_is_refused() -> None:
    with pytest.raises(HubError, match="is not a file of a run"):
        parse_manifest(make_manifest(run="../../home").to_json(), "hub:a/b")


def test_files_are_compared_with_their_digests(tmp_path: Path) -> None:
    (tmp_path / RECORD).parent.mkdir(parents=True)
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(HubError, match=r"record.json of hub:a/b is not the file that its hellm.json names"):
        check_files(make_manifest(), tmp_path, "hub:a/b")
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    check_files(make_manifest(files={RECORD: digest}), tmp_path, "hub:a/b")
