from __future__ import annotations

import json

import pytest

from hellm_recbole.benchmarks import run


def test_the_settings_of_a_model_fit_into_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run.main(["--help-model", "VBPR", "--dataset", "Beauty", "--set", "VBPR.emb_dim=8"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    lines = out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith(" emb_dim ")]
    assert lines[number].split()[1:4] == ["8", "D,", "width"]
    assert "whole number >= 1; from --set VBPR.emb_dim=8" in " ".join(" ".join(lines[number : number + 5]).split())
    for word in ("setting", "value", "meaning", "l2_weight", "learning_rate", "from model/VBPR.yaml"):
        assert word in out


def test_the_schema_of_a_model_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--settings-schema", "VBPR"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "l2_weight" in json.dumps(schema)


@pytest.mark.parametrize("option", ["--help-model", "--settings-schema"])
def test_an_unknown_model_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([option, "VBRP"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "VBPR" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("dataset", "sentence"), [("nope", "unknown dataset 'nope'"), ("Beauty,Toys", "shows the settings on one dataset")]
)
def test_an_unknown_dataset_and_several_ones_are_refused(
    capsys: pytest.CaptureFixture[str], dataset: str, sentence: str
) -> None:
    assert run.main(["--help-model", "VBPR", "--dataset", dataset]) == 2
    assert sentence in capsys.readouterr().err
