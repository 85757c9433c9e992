from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.benchmarks import run, train_all
from hellm_recbole.experiments.results import read_result


def test_priors_are_counted_again_and_kept(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--models", "Priors", "--dataset", "toy", "--threads", "1"]) == 0
    words = ["results/toy/Priors/2024", "--threads", "1"]
    assert train_all.main(words) == 0
    folder = workplace / "results" / "all-data" / "toy" / "Priors" / "2024"
    record = read_result(folder / "record.json")
    original = read_result(workplace / "results" / "toy" / "Priors" / "2024" / "record.json")
    assert record.combination == original.combination
    assert not record.evaluated
    capsys.readouterr()
    assert train_all.main(words) == 0
    assert "Priors on all data of toy, seed 2024: trained before, kept" in capsys.readouterr().out
    assert train_all.main(["results/all-data/toy/Priors/2024"]) == 2
    assert "was itself trained on all data; name the run that it was made from" in capsys.readouterr().err
    assert train_all.main(["results/toy/Nothing/2024"]) == 2
    assert "is not the folder of a finished run" in capsys.readouterr().err
    other = ["--models", "Priors", "--dataset", "toy", "--output", "results/all-data"]
    assert run.main(other) == 2
    assert "is of a model that was trained on all data for use; choose another --output" in capsys.readouterr().err
