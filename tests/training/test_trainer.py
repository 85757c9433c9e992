from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hellm_recbole.baselines.freedom import FREEDOM
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError, SettingsError, TrainingDiverged
from hellm_recbole.system.console import run_main
from hellm_recbole.system.signals import redirect_signals
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import Learner, ModelLearner
from hellm_recbole.training.trainer import add_epoch, evaluate
from tests.toy_records import rewrite
from tests.training.small_runs import Silent, remove_times, run, small_config

# A run is stopped at one of these places; those in the middle of an epoch are where most can go wrong.
STOPS = [{"stop_after_epochs": 1}, {"stop_after_epochs": 3}, {"stop_in_step": 5}]
TRAINED = sorted(name for name, spec in REGISTRY.items() if not spec.is_fitted)


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_stopped_within_an_epoch_ends_with_exactly_the_numbers_of_an_uninterrupted_run(
    toy_split: Split, tmp_path: Path, name: str
) -> None:
    check_resuming(toy_split, tmp_path, name, STOPS[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_run_stopped_between_epochs_ends_with_exactly_the_numbers_of_an_uninterrupted_run(
    toy_split: Split, tmp_path: Path, name: str
) -> None:
    check_resuming(toy_split, tmp_path, name, STOPS[:-1])


def check_resuming(
    split: Split, folder: Path, name: str, stops: list[dict[str, int]], **values: Any
) -> tuple[ModelLearner, list[Path]]:
    """Check that a run stopped at each of some places ends as an uninterrupted one.

    Returns:
        The learner of the uninterrupted run, and the folders of all runs, its own first.
    """
    whole, learner = run(split, folder / "whole", name, **values)
    folders = [folder / "whole"]
    for number, stop in enumerate(stops):
        folders.append(folder / f"parts{number}")
        with pytest.raises(KeyboardInterrupt):
            run(split, folders[-1], name, Silent(**stop), **values)
        parts, resumed = run(split, folders[-1], name, **values)
        assert remove_times(parts) == remove_times(whole)
        for key, value in learner.module.state_dict().items():
            assert torch.equal(value, resumed.module.state_dict()[key]), key
    return learner, folders


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_stop_waits_until_the_checkpoint_is_written(
    toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, code: int
) -> None:
    save, saved = CheckpointFolder.save, []

    def save_interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(sent)
        done = save(*args, **kwargs)
        saved.append(done)
        return done

    monkeypatch.setattr(CheckpointFolder, "save", save_interrupted)
    with redirect_signals(signal.default_int_handler, signal.SIGINT):  # a background job of a shell ignores SIGINT
        assert run_main(lambda: run(toy_split, tmp_path, "LightGCN") and 0) == code
    assert len(saved) == 1
    assert CheckpointFolder(tmp_path).load_best()


def test_the_learner_has_the_state_of_the_best_epoch_at_the_end(toy_split: Split, tmp_path: Path) -> None:
    progress, learner = run(toy_split, tmp_path, "LightGCN", learning_rate=0.05)
    values = [entry["valid"]["N@10"] for entry in progress.curve]
    assert progress.best_value == max(values)
    assert progress.best_epoch == values.index(max(values)) + 1
    best = CheckpointFolder(tmp_path).load_best()
    for key, value in learner.module.state_dict().items():
        assert torch.equal(value, best[f"model.{key}"])


def test_early_stopping_counts_evaluations_without_improvement(toy_split: Split, tmp_path: Path) -> None:
    progress, _ = run(toy_split, tmp_path, "VBPR", learning_rate=1e-12, patience=2, epochs=50)
    assert progress.epoch == progress.best_epoch + 2


def test_a_run_can_be_validated_every_few_epochs_and_at_the_end(toy_split: Split, tmp_path: Path) -> None:
    progress, _ = run(toy_split, tmp_path, "LightGCN", eval_every=4, epochs=6)
    assert [entry["epoch"] for entry in progress.curve if entry["valid"]] == [4, 6]


def test_a_checkpoint_of_another_run_is_refused(toy_split: Split, tmp_path: Path) -> None:
    run(toy_split, tmp_path, "LightGCN", epochs=1)
    with pytest.raises(CheckpointError, match="was made with name = run and now it is other; run with --fresh"):
        run(toy_split, tmp_path, "LightGCN", fingerprint="other")


def test_a_checkpoint_of_an_earlier_version_is_refused_and_its_best_state_can_be_read(
    toy_split: Split, tmp_path: Path
) -> None:
    run(toy_split, tmp_path, "LightGCN", epochs=1)
    # Earlier versions stored one hash of everything.
    rewrite(tmp_path / "state.json", lambda state: state["progress"].update(run="0123abcd"))
    with pytest.raises(CheckpointError, match="made with a version that did not record what its results depend on"):
        run(toy_split, tmp_path, "LightGCN", epochs=1)
    assert CheckpointFolder(tmp_path).load_best()


@pytest.mark.parametrize("damage", ["truncate tensors", "flip tensors", "truncate state", "no tensors", "empty state"])
def test_a_damaged_checkpoint_is_refused(toy_split: Split, tmp_path: Path, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(toy_split, tmp_path, "LightGCN", Silent(stop_after_epochs=2))
    state, (tensors,) = tmp_path / "state.json", list(tmp_path.glob("last-*.safetensors"))
    content = tensors.read_bytes()
    if damage == "truncate tensors":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flip tensors":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no tensors":
        tensors.unlink()
    else:
        state.write_text("" if damage == "empty state" else state.read_text()[:40])
    with pytest.raises(CheckpointError, match=r"corrupt.*--fresh"):
        run(toy_split, tmp_path, "LightGCN")


def test_a_checkpoint_folder_contains_two_tensor_files_and_no_leftover(toy_split: Split, tmp_path: Path) -> None:
    (tmp_path / ".123.tmp.last-00001.safetensors").write_bytes(b"half")
    (tmp_path / ".tmpcKvbGY").write_bytes(b"")  # left by safetensors if the process is killed during a write
    run(toy_split, tmp_path, "LightGCN", epochs=3)
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == ["best", "last", "state.json"]


def test_an_unknown_validation_metric_is_refused(toy_split: Split, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"valid_metric is 'N@20'; with the given cutoffs \(cutoffs=.*\) it can be R@5"
    ):
        run(toy_split, tmp_path, "LightGCN", valid_metric="N@20")


def test_the_error_for_a_diverging_loss_names_term_and_step(toy_split: Split, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"LightGCN: loss term \w+ is (nan|inf) in epoch \d+, step \d+"):
        run(toy_split, tmp_path, "LightGCN", learning_rate=1e30)


def test_start_epoch_is_called_before_the_first_step_of_each_epoch(
    toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    start, loss = FREEDOM.start_epoch, FREEDOM.loss
    monkeypatch.setattr(FREEDOM, "start_epoch", lambda model: (calls.append("epoch"), start(model))[1])
    monkeypatch.setattr(FREEDOM, "loss", lambda model, batch: (calls.append("step"), loss(model, batch))[1])
    run(toy_split, tmp_path, "FREEDOM", epochs=2, batch_size=10**6)
    assert calls == ["epoch", "step"] * 2


def test_progress_after_an_epoch() -> None:
    train = small_config("LightGCN", valid_metric="N@10", patience=2).train
    progress = Progress({}, 0, 0, -math.inf, 0, False, 0.0, 0.0, ())
    for value in (0.5, None, 0.75, 0.75, 0.25):  # an equal value is not better
        valid = None if value is None else {"N@10": value}
        progress = add_epoch(progress, train, 9, losses={"bpr": 1.0}, valid=valid, seconds=(2.0, 0.5))
    assert (progress.epoch, progress.best_epoch, progress.best_value, progress.stale) == (5, 3, 0.75, 2)
    assert progress.stopped
    assert (progress.train_seconds, progress.eval_seconds) == (10.0, 2.5)
    assert progress.curve[1] == {"epoch": 2, "losses": {"bpr": 1.0}, "valid": None, "seconds": 2.0}


@pytest.mark.parametrize("name", [pytest.param("HeLLM", marks=pytest.mark.slow), "HeLLMPre", "LATTICE", "SASRec"])
def test_a_run_with_an_average_and_rates_by_step_is_resumed_exactly(
    toy_split: Split, tmp_path: Path, name: str
) -> None:
    values: dict[str, Any] = {"average_decay": 0.9, "schedule": "linear", "warmup_steps": 7, "learning_rate_floor": 0.1}
    values |= {"decay_vectors": False, "weight_decay": 0.1, "optimizer": "adamw"}
    learner, folders = check_resuming(toy_split, tmp_path, name, STOPS, **values)
    whole, *others = [load_file(next(folder.glob("last-*.safetensors"))) for folder in folders]
    assert whole.keys() >= {f"average.{key}" for key in list_trained(learner.module)}
    for state in others:
        assert state.keys() == whole.keys()
        assert all(torch.equal(value, state[key]) for key, value in whole.items())


def list_trained(module: torch.nn.Module) -> list[str]:
    return [name for name, value in module.named_parameters() if value.requires_grad]


def test_the_averaged_weights_are_evaluated_and_selected(toy_split: Split, tmp_path: Path) -> None:
    """Weights of a run without average are those of the run with one, whose metrics are those of the averages."""
    values = {"learning_rate": 0.05, "epochs": 4}
    _, plain = run(toy_split, tmp_path / "plain", "LightGCN", **values)
    progress, learner = run(toy_split, tmp_path / "averaged", "LightGCN", average_decay=0.95, **values)
    last = {name: load_file(next((tmp_path / name).glob("last-*.safetensors"))) for name in ("plain", "averaged")}
    for key, value in last["plain"].items():
        assert torch.equal(value, last["averaged"][key]), key
    config = small_config("LightGCN", average_decay=0.95, **values)
    data = toy_split.make_selection_data()
    found = []
    for prefix in ("average.", "model."):
        with torch.no_grad():
            for name, parameter in plain.module.named_parameters():
                parameter.copy_(last["averaged"][prefix + name])
        found.append(evaluate(plain, data, config.evaluation, "test"))
    assert progress.curve[-1]["valid"] == found[0] != found[1]
    assert evaluate(learner, data, config.evaluation, "test")["N@10"] == progress.best_value
    best = CheckpointFolder(tmp_path / "averaged").load_best()
    assert all(torch.equal(value, best[f"model.{key}"]) for key, value in list_state(learner))
    assert not any(key.startswith("average.") for key in best)


def list_state(learner: Learner) -> list[tuple[str, torch.Tensor]]:
    return list(learner.module.state_dict().items())


def test_a_checkpoint_without_an_average_has_no_part_of_it(toy_split: Split, tmp_path: Path) -> None:
    run(toy_split, tmp_path, "LightGCN", epochs=1)
    (path,) = tmp_path.glob("last-*.safetensors")
    assert {key.partition(".")[0] for key in load_file(path)} == {"model", "optimizer"}
