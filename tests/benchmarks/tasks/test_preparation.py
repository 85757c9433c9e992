"""The models that prepare.py suggests after it has prepared a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks.prepare import main


@pytest.mark.parametrize(
    ("given_split", "feature", "models"),
    [
        (False, None, "LightGCN,SASRec"),
        (False, "image", "LightGCN,SASRec,HeLLMPre"),
        (False, "text", "LightGCN,SASRec,HeLLMPre,SASRec-text"),
        (True, "text", "LightGCN,HeLLMPre"),
    ],
)
def test_the_suggested_models_fit_the_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given_split: bool, feature: str | None, models: str
) -> None:
    parts = ("train", "valid", "test")
    rows = [f"u{user}\ti{item}" + f"\t{parts[item]}" * given_split for user in range(3) for item in (0, 1, 2)]
    header = "user_id\titem_id" + "\tsplit" * given_split
    (tmp_path / "Mine.tsv").write_text("\n".join([header, *rows]) + "\n")
    if feature is not None:
        np.save(tmp_path / f"{feature}_feat.npy", np.eye(3, dtype=np.float32))
        (tmp_path / f"{feature}_feat.tokens.txt").write_text("i0\ni1\ni2\n")
    options = ["--from", "table", "--source", str(tmp_path), "--output", str(tmp_path / "dataset"), "--k-core", "0"]
    assert main(["Mine", *options]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"train on it with run.py --models {models} --dataset Mine")
