from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks import ablate, run
from hellm_recbole.benchmarks.tasks.overview import ALL_MODELS, list_models_with_variants


def test_without_models_the_command_prints_what_it_could_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main(["--dataset", "toy"]) == 2
    shown = capsys.readouterr()
    assert shown.err == (
        "error: name the models to run with --models, for example --models all or --models LightGCN,SASRec\n"
    )
    lines = dict(line.split("  ", 1) for line in shown.out.splitlines())
    assert lines["Multimodal models"].split()[0] == "VBPR,"
    assert lines["LLM models"].strip() == "CoLLM, LLaRA, E4SRec, HeLLM, HeLLM-plus"
    assert lines["datasets"].strip().startswith("Baby, Beauty, ")
    assert lines["presets"].strip() == "paper, published, quick"
    assert all(name in shown.out for name in ALL_MODELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("main", [run.main, ablate.main])
def test_the_names_are_listed(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"models    {', '.join(ALL_MODELS)}\n")
    assert "HeLLMPre-without-CL" in out


def test_only_models_with_variants_are_ablated() -> None:
    assert set(list_models_with_variants()) < set(REGISTRY)
    assert "HeLLMPre" in list_models_with_variants()
    assert "VBPR" not in list_models_with_variants()
