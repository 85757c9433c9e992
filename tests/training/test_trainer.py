from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from baselines.freedom import FREEDOM
from baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError, SettingsError, TrainingDiverged
from hellm_recbole.experiments.resolve import RunConfig, resolve_runs
from hellm_recbole.system.console import run_main
from hellm_recbole.system.distributed import ProcessGroup
from hellm_recbole.system.signals import redirect_signals
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.training.trainer import ModelLearner, compute_learning_rate_factor, fit
from hellm_recbole.types import HistoryBatch
from tests.toy_llm import add_pretrained_embeddings, small_values
from tests.toy_records import rewrite

CPU = torch.device("cpu")


def config(name: str, **values: Any) -> RunConfig:
    shared = {
        "epochs": 6,
        "patience": 6,
        "eval_every": 1,
        "batch_size": 32,
        "cutoffs": [5, 10],
        "valid_metric": "N@10",
        **small_values(name),
        **values,
    }
    return resolve_runs(
        [name], "toy", REGISTRY, "paper", [Override(name, k, v, f"{k}={v}") for k, v in shared.items()]
    )[0]


class Silent:
    """A view that shows nothing, and can stop the run after some epochs or steps like a killed process."""

    def __init__(self, stop_after_epochs: int = 10**9, stop_in_step: int = 10**9) -> None:
        self.epochs_left, self.steps_left = stop_after_epochs, stop_in_step

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise KeyboardInterrupt

    def epoch(self, progress: Progress) -> None:
        self.epochs_left -= 1
        if self.epochs_left == 0:
            raise KeyboardInterrupt


def run(
    split: Split,
    folder: Path,
    name: str,
    view: Silent | None = None,
    fingerprint: str = "run",
    device: torch.device = CPU,
    **values: Any,
) -> tuple[Progress, ModelLearner]:
    run_config = config(name, **values)
    assert run_config.spec is not None
    data = add_pretrained_embeddings(split.make_train_data(), run_config)
    learner = ModelLearner(
        run_config.spec,
        run_config.model_settings,
        data,
        run_config.train,
        run_config.pairs,
        7,
        device,
        run_config.steps,
    )
    progress = fit(
        learner,
        split.make_selection_data(),
        run_config.train,
        run_config.evaluation,
        seed=7,
        checkpoint=CheckpointFolder(folder),
        run={"setting name": json.dumps(fingerprint)},
        who=name,
        view=view or Silent(),
    )
    return progress, learner


def remove_times(progress: Progress) -> Progress:
    curve = tuple({**entry, "seconds": 0.0} for entry in progress.curve)
    return dataclasses.replace(progress, train_seconds=0.0, eval_seconds=0.0, curve=curve)


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize("view", [{"stop_after_epochs": 1}, {"stop_after_epochs": 3}, {"stop_in_step": 5}])
def test_a_stopped_and_resumed_run_ends_with_exactly_the_numbers_of_an_uninterrupted_run(
    toy_split: Split, tmp_path: Path, name: str, view: dict[str, int]
) -> None:
    whole, learner = run(toy_split, tmp_path / "whole", name)
    with pytest.raises(KeyboardInterrupt):
        run(toy_split, tmp_path / "parts", name, Silent(**view))
    parts, resumed = run(toy_split, tmp_path / "parts", name)
    assert remove_times(parts) == remove_times(whole)
    for key, value in learner.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key


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
    with pytest.raises(SettingsError, match=r"valid_metric is 'N@20'; with the given cutoffs it can be R@5, N@5"):
        run(toy_split, tmp_path, "LightGCN", valid_metric="N@20")


def test_the_error_for_a_diverging_loss_names_term_and_step(toy_split: Split, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"LightGCN: loss term \w+ is (nan|inf) in epoch \d+, step \d+"):
        run(toy_split, tmp_path, "LightGCN", learning_rate=1e30)


def test_learning_rates_of_the_schedules() -> None:
    constant = config("LightGCN").train
    assert [compute_learning_rate_factor(constant, done) for done in (0, 5)] == [1.0, 1.0]
    decayed = config("LightGCN", schedule="exponential", decay_rate=0.96).train
    assert compute_learning_rate_factor(decayed, 0) == 1.0
    assert compute_learning_rate_factor(decayed, 50) == pytest.approx(0.96)
    assert compute_learning_rate_factor(decayed, 25) == pytest.approx(0.96**0.5)
    cosine = config("LightGCN", schedule="cosine", warmup_epochs=2, epochs=12).train
    assert [compute_learning_rate_factor(cosine, done) for done in (0, 1, 2)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert compute_learning_rate_factor(cosine, 7) == pytest.approx(0.5)
    assert compute_learning_rate_factor(cosine, 12) == pytest.approx(0.0)


def test_clipping_bounds_the_gradient(toy_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []

    def record_norm(parameters: Any, bound: float) -> None:
        parameter_list = list(parameters)
        nn.utils.clip_grad.clip_grad_norm_(parameter_list, bound)
        norms.append(
            float(
                torch.cat(
                    [parameter.grad.flatten() for parameter in parameter_list if parameter.grad is not None]
                ).norm()
            )
        )

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", record_norm)
    run_config = config("LightGCN", clip_norm=1e-3)
    assert run_config.spec is not None
    ModelLearner(
        run_config.spec,
        run_config.model_settings,
        toy_split.make_train_data(),
        run_config.train,
        run_config.pairs,
        7,
        CPU,
    ).train_epoch(1, 1, lambda *args: None)
    assert norms
    assert max(norms) <= 1e-3 * (1 + 1e-5)


def test_start_epoch_is_called_before_the_first_step_of_each_epoch(
    toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    start, loss = FREEDOM.start_epoch, FREEDOM.loss
    monkeypatch.setattr(FREEDOM, "start_epoch", lambda model: (calls.append("epoch"), start(model))[1])
    monkeypatch.setattr(FREEDOM, "loss", lambda model, batch: (calls.append("step"), loss(model, batch))[1])
    run(toy_split, tmp_path, "FREEDOM", epochs=2, batch_size=10**6)
    assert calls == ["epoch", "step"] * 2


def test_one_epoch_of_lightgcn_equals_a_plain_training_loop(toy_split: Split) -> None:
    """The plain loop has the same batches, a dense graph and the Adam of torch."""
    run_config = config("LightGCN")
    assert run_config.spec is not None
    data = toy_split.make_train_data()
    learner = ModelLearner(run_config.spec, run_config.model_settings, data, run_config.train, run_config.pairs, 7, CPU)
    tables = {key: value.detach().clone().double().requires_grad_() for key, value in learner.module.named_parameters()}
    learner.train_epoch(1, 99, lambda *args: None)

    size = data.n_users + 1
    a = torch.zeros(size + data.n_items + 1, size + data.n_items + 1, dtype=torch.float64)
    for u, i in zip(data.history.repeat_users(), data.history.items, strict=True):
        a[u, size + i] = a[size + i, u] = 1.0
    scale = torch.where(a.sum(1) > 0, a.sum(1).clamp(min=1).rsqrt(), 0.0)
    a = scale[:, None] * a * scale[None, :]
    optimizer = torch.optim.Adam(tables.values(), lr=run_config.train.learning_rate)
    settings = run_config.model_settings
    for batch in PairSource(data, run_config.train.batch_size, run_config.pairs.sampling, CPU).epoch(99):
        layer = initial = torch.cat([tables["user.weight"], tables["item.weight"]])
        total = initial
        for _ in range(settings.n_layers):
            layer = a @ layer
            total = total + layer
        z = total / (settings.n_layers + 1)
        rows = [batch.user, size + batch.positive, size + batch.negative]
        u, i, j = (z[ids] for ids in rows)
        loss = -torch.log(torch.sigmoid((u * i).sum(1) - (u * j).sum(1))).mean()
        loss = loss + settings.l2_weight * sum((initial[ids] ** 2).sum() for ids in rows) / 2 / len(batch.user)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for key, value in learner.module.named_parameters():
        assert torch.allclose(value.double(), tables[key], atol=2e-5), key


def test_a_step_in_micro_batches_equals_a_step_of_the_whole_batch(toy_split: Split) -> None:
    states = []
    for size in (64, 3):
        run_config = config("LLaRA", batch_size=64, micro_batch_size=size)
        assert run_config.spec is not None
        data = add_pretrained_embeddings(toy_split.make_train_data(), run_config)
        learner = ModelLearner(
            run_config.spec,
            run_config.model_settings,
            data,
            run_config.train,
            run_config.pairs,
            7,
            CPU,
            run_config.steps,
        )
        losses = learner.train_epoch(1, 1, lambda *args: None)
        states.append((losses["cross_entropy"], learner.module.state_dict()))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-5)
    for name, value in states[0][1].items():
        assert torch.allclose(value, states[1][1][name], atol=1e-4), name


def test_out_of_memory_halves_the_micro_batches_and_does_not_change_the_step(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_config = config("LLaRA", batch_size=64, micro_batch_size=64)
    assert run_config.spec is not None
    data = add_pretrained_embeddings(toy_split.make_train_data(), run_config)
    learner = ModelLearner(
        run_config.spec, run_config.model_settings, data, run_config.train, run_config.pairs, 7, CPU, run_config.steps
    )
    model: Any = learner.module
    whole_loss = model.loss

    def compute_small_loss(batch: HistoryBatch) -> dict[str, torch.Tensor]:
        if len(batch.items) > 20:
            raise torch.OutOfMemoryError("more than 20 sequences do not fit")
        terms: dict[str, torch.Tensor] = whole_loss(batch)
        return terms

    monkeypatch.setattr(model, "loss", compute_small_loss)
    loss = learner.train_epoch(1, 1, lambda *args: None)["cross_entropy"]
    fits = ModelLearner(
        run_config.spec, run_config.model_settings, data, run_config.train, run_config.pairs, 7, CPU, run_config.steps
    )
    assert loss == pytest.approx(fits.train_epoch(1, 1, lambda *args: None)["cross_entropy"], rel=1e-5)


@pytest.mark.parametrize("here", [True, False])
def test_a_process_without_memory_for_one_example_stops_the_other_processes(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    class Pair(ProcessGroup):
        def any(self, flag: bool) -> bool:
            flags.append(flag)
            return True  # if this process has no error, the other process has one

    def fail(batch: HistoryBatch) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("nothing fits")

    flags: list[bool] = []
    run_config = config("LLaRA", batch_size=64, micro_batch_size=1)
    assert run_config.spec is not None
    learner = ModelLearner(
        run_config.spec,
        run_config.model_settings,
        add_pretrained_embeddings(toy_split.make_train_data(), run_config),
        run_config.train,
        run_config.pairs,
        7,
        CPU,
        run_config.steps,
        Pair(0, 2),
    )
    if here:
        monkeypatch.setattr(learner.module, "loss", fail)
    with pytest.raises(torch.OutOfMemoryError, match="nothing fits" if here else "another process"):
        learner.train_epoch(1, 1, lambda *args: None)
    assert flags == [here]


def test_a_cosine_by_step_warms_up_from_zero_and_ends_at_its_floor() -> None:
    train = config("LLaRA", epochs=6, schedule="cosine", warmup_epochs=2).train
    rates = [compute_learning_rate_factor(train, done, 0.1) for done in (0.0, 0.5, 2.0, 4.0, 6.0)]
    assert rates == pytest.approx([0.0, 0.25, 1.0, 0.55, 0.1])
