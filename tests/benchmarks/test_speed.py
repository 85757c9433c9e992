from __future__ import annotations

from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from benchmarks import speed
from benchmarks.upstream import mmrec
from hellm_recbole.experiments.resolve import plan_rows

pytest.importorskip("recbole", reason="RecBole is not installed")


def test_all_parts_print_a_ratio(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--repeat", "1", "--steps", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    for what in ("full ranking, LightGCN", "epoch, LightGCN", "epoch, SASRec"):
        (line, *_) = [line for line in shown.splitlines() if line.startswith(what)]
        numbers = [float(part) for part in line.split() if part.replace(".", "").isdecimal() and "." in part]
        assert len(numbers) == 3
        assert all(number >= 0 for number in numbers)
    assert sorted(path.name for path in workplace.iterdir()) == ["dataset"]  # RecBole left nothing behind


def test_an_unknown_part_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--dataset", "toy", "--parts", "epochs"]) == 2
    assert "--parts 'epochs' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["hellmpre"], "needs --released"),
        (["hellmpre", "--released", "."], "holds no codes/Models.py; pass a checkout of"),
        (["multimodal"], "needs --mmrec"),
        (["multimodal", "--mmrec", "."], "VBPR, public: . holds no src/models/vbpr.py; pass a checkout of"),
    ],
)
def test_the_published_code_must_be_there(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert speed.main(["--dataset", "toy", "--threads", "1", "--parts", *arguments]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("name", mmrec.MODELS)
def test_settings_of_the_other_side_are_known_for_every_model(name: str) -> None:
    (plan,) = plan_rows([name], "toy", REGISTRY, "paper", [])
    values = mmrec.public_settings(name, plan)
    ours = [value for value in vars(plan.model_settings).values() if isinstance(value, float)]
    assert {value for value in values.values() if isinstance(value, float)} <= {*ours, 0.9}
    assert values["reg_weight"] in ours if "reg_weight" in values else name == "SLMRec"
