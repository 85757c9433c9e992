from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.diagnostics.findings import SEVERITIES
from hellm_recbole.data.diagnostics.warnings import diagnose, examine
from hellm_recbole.errors import DataError
from tests.data.diagnostics.small import THREE_EACH, Write, list_figures, make_matrix


def test_data_without_faults_have_only_the_finding_popularity(write: Write) -> None:
    rows = ["u a 1", "u b 2", "u c 9", "v c 3", "v b 4", "v a 10", "w b 5", "w c 8", "w a 11"]
    assert [finding.name for finding in diagnose(write([*rows, "x c 6", "x a 7", "x b 12"]))] == ["popularity"]


def test_errors_come_before_warnings_and_notes(write: Write) -> None:
    folder = write(["u a 1", "u b 1", "u c 1", "v a 1", "v b 2", "v c 3"])
    (folder / "Toy.inter").write_bytes((folder / "Toy.inter").read_bytes().replace(b"\n", b"\r\n"))
    severities = [finding.severity for finding in diagnose(folder)]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert set(severities) == {"error", "warning", "note"}


def test_interactions_that_cannot_be_read_are_no_finding(write: Write) -> None:
    folder = write(THREE_EACH)
    (folder / "Toy.inter").write_text((folder / "Toy.inter").read_text().replace("3", "x"))
    with pytest.raises(DataError, match="timestamp is 'x', not a finite number"):
        diagnose(folder)


def test_an_unprepared_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared dataset"):
        diagnose(tmp_path)


def test_features_that_do_not_fit_are_left_out_and_reported(write: Write) -> None:
    both = {"audio": make_matrix(np.eye(3), "abc"), "image": make_matrix(np.eye(3), "abc")}
    folder = write(THREE_EACH, features=both)
    (folder / "image_feat.tokens.txt").write_text("a\nb\n")
    found = examine(folder)
    assert list(found.dataset.features) == ["audio"]
    assert list_figures(list(found.findings), "file changed") == [
        ("error", "image_feat.tokens.txt has changed since it was prepared")
    ]
    ((severity, figure),) = list_figures(list(found.findings), "features do not fit")
    assert severity == "error"
    assert figure.startswith(f"image: {folder}/image_feat.npy has 3 rows but image_feat.tokens.txt has 2 tokens")
