from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import scale
from hellm_recbole.benchmarks.tasks.scaling import enlarge
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import automatic_batch
from tests.toy import write_prepared


def test_enlarging_keeps_degrees(toy_split: Split) -> None:
    data = toy_split.make_train_data()
    large = enlarge(data, 3, seed=0)
    assert (large.n_users, large.n_items) == (3 * data.n_users, 3 * data.n_items)
    assert large.history.count_items()[1:].tolist() == np.tile(data.history.count_items()[1:], 3).tolist()
    count, large_count = (np.bincount(d.history.items, minlength=d.n_items + 1)[1:] for d in (data, large))
    assert large_count.reshape(3, -1).sum(axis=0).tolist() == (3 * count).tolist()
    for name, values in large.features.items():
        assert values.dtype == np.float32
        assert not values[0].any()
        assert np.allclose(values[1:], np.tile(data.features[name][1:], (3, 1)), atol=0.2)


@pytest.mark.slow
def test_the_table_has_a_line_for_each_factor(
    tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "LightGCN", "--dataset", "toy", "--factors", "1,2", "--steps", "1", "--threads", "1"]
    assert scale.main(arguments) == 0
    out = capsys.readouterr().out
    first, second = (line.split("|") for line in out.splitlines()[-2:])
    assert (first[1].strip(), second[1].strip()) == ("1", "2")
    assert (first[3].strip(), second[3].strip()) == ("2,048", "4,096")
    assert first[8].strip().endswith(" ms")
    assert float(first[9]) > 0  # ranking is a multiple of its product


def test_an_automatic_batch_size_is_that_of_a_run_on_the_enlarged_data(
    tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(automatic_batch, "compute_growth", lambda interactions: interactions)
    arguments = ["--model", "BPR", "--dataset", "toy", "--one", "2", "--steps", "1", "--repeat", "1"]
    settings = [part for value in ("batch_size=3", "batch_size=auto") for part in ("--set", value)]
    assert scale.main([*arguments, *settings]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batch"] == 3 * found["interactions"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--factors", "0"], "positive integers"),
        (["--repeat", "0"], "--repeat 0 must be at least 1"),
        (["--one", "1", "--model", "X"], "X is not a model of this project"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    assert scale.main(arguments) == 2
    assert part in capsys.readouterr().err
