from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.training.trackers.base import IDS_FILE, TrackedRun, announce, read_id, write_id


def test_each_tracker_has_its_own_identifier_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert read_id(folder, "mlflow") is None
    write_id(folder, "mlflow", "1")
    write_id(folder, "wandb", "2")
    write_id(folder, "mlflow", "3")
    assert (read_id(folder, "mlflow"), read_id(folder, "wandb"), read_id(folder, "aim")) == ("3", "2", None)


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_damaged_file_of_identifiers_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / IDS_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"trackers\.json is damaged; remove it"):
        read_id(tmp_path, "mlflow")


def test_no_password_of_a_server_is_printed(tracked: TrackedRun, capsys: pytest.CaptureFixture[str]) -> None:
    announce(tracked, "http://user:s@cret@127.0.0.1:1/#/runs/1")
    assert capsys.readouterr().err == f"{tracked.name}: http://127.0.0.1:1/#/runs/1\n"
