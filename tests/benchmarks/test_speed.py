from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks import speed
from hellm_recbole.benchmarks.upstream import mmrec
from hellm_recbole.benchmarks.upstream.released_llm import ReleasedLLM
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.experiments.resolve import resolve_own_run
from tests.toy_llm import settings, toy_tables

pytest.importorskip("recbole", reason="RecBole is not installed")


def test_all_parts_print_a_ratio(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--repeat", "1", "--steps", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    for what in ("full ranking, LightGCN", "epoch, LightGCN", "epoch, SASRec"):
        (line, *_) = [line for line in shown.splitlines() if line.startswith(what)]
        numbers = [float(part) for part in line.split() if part.replace(".", "").isdecimal() and "." in part]
        assert len(numbers) == 3
        assert all(number >= 0 for number in numbers)
    assert sorted(path.name for path in workplace.iterdir()) == ["dataset"]  # RecBole left no files


def test_an_unknown_part_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--parts", "epochs"]) == 2
    assert "--parts 'epochs' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["hellmpre"], "needs --released"),
        (["hellmpre", "--released", "."], "holds no codes/Models.py; pass a checkout of"),
        (["multimodal"], "needs --mmrec"),
        (["hellmpre", "--released", "nowhere"], "nowhere does not exist or is no folder; run `git clone https://"),
        (["multimodal", "--mmrec", "."], "VBPR, public: . holds no src/models/vbpr.py; pass a checkout of"),
    ],
)
def test_a_missing_checkout_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert speed.main(["--dataset", "toy", "--threads", "1", "--parts", *arguments]) == 2
    assert part in capsys.readouterr().err


def damage(folder: Path, what: str) -> None:
    values = load_file(folder / "model.safetensors")
    if what == "NaN":
        values["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    elif what == "missing":
        del values["model.layers.1.mlp.up_proj.weight"]
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("what", "more", "message"),
    [
        ("NaN", [], "has NaN or infinity in 1 tensors, for example model.layers.1.mlp.up_proj.weight"),
        ("missing", [], "or has them in another shape than its config.json says (for example model.layers.1.mlp.up"),
        ("nothing", ["--llm-layers", "9"], "--llm-layers 9: "),
    ],
)
def test_a_damaged_language_model_is_not_timed(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str], what: str, more: list[str], message: str
) -> None:
    broken = workplace / "broken"
    shutil.copytree(tiny, broken)
    damage(broken, what)
    options = ["--dataset", "toy", "--threads", "1", "--parts", "llm", "--steps", "1", "--llm", str(broken), *more]
    assert speed.main(options) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("error: ") == 1
    assert "threads, torch" not in out  # nothing was timed


@pytest.mark.parametrize(("what", "said"), [("NaN", "has NaN or infinity in"), ("missing", "lacks 1 of its")])
def test_the_released_method_refuses_damaged_weights(
    workplace: Path, tiny: Path, toy_split: Split, what: str, said: str
) -> None:
    broken = workplace / "broken"
    shutil.copytree(tiny, broken)
    damage(broken, what)
    data = replace(toy_split.make_train_data(), pretrained=toy_tables(toy_split.n_items))
    ReleasedLLM(settings(tiny), data)
    with pytest.raises(DataError, match=said):
        ReleasedLLM(settings(broken), data)


@pytest.mark.parametrize("name", mmrec.MODELS)
def test_the_settings_of_every_model_can_be_translated(name: str) -> None:
    config = resolve_own_run(name, "toy", REGISTRY, "paper", [])
    values = mmrec.translate_settings(name, config)
    ours = [value for value in vars(config.model_settings).values() if isinstance(value, float)]
    assert {value for value in values.values() if isinstance(value, float)} <= {*ours, 0.9}
    assert values["reg_weight"] in ours if "reg_weight" in values else name == "SLMRec"
