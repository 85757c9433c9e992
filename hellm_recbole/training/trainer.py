"""One training loop for every row: validation-selected, early-stopped, resumable at any moment.

Each epoch is a pure function of the parameters, the optimizer state and (seed, epoch): batches, dropout and all other
random draws restart from a seed made of both. So a checkpoint needs no random state, and on a CPU, with the same
number of threads, a run that was killed and started again ends with the very numbers of an undisturbed one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hellm_recbole.config.layers import EvalSettings, PairSettings, StepSettings, TrainSettings
from hellm_recbole.errors import CheckpointError, TrainingDiverged, advise_on_divergence
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import ModelScorer, rank_targets
from hellm_recbole.models.base import ModelSpec, check_module
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.system.runtime import use_deterministic_sums
from hellm_recbole.system.signals import redirect_signals, stop_signals
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress, pack_optimizer, unpack_optimizer
from hellm_recbole.training.sampling import (
    BatchSource,
    PairSource,
    PrefixSource,
    SequenceSource,
    derive_epoch_seed,
    split_micro_batches,
)
from hellm_recbole.types import (
    FollowsProgress,
    Histories,
    HistoryBatch,
    IdArray,
    PairBatch,
    SelectionData,
    StartsEpochs,
    TrainData,
)

DECAY_EPOCHS = 50  # the exponential schedule reaches decay_rate after this many epochs (released HeLLM code)

OnStep = Callable[[int, int, dict[str, float]], None]


class Learner(Protocol):
    """What the trainer drives: one of our models or one of RecBole's. It is also a `types.Scorer`."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """None if there is nothing to optimise."""

    @property
    def one_pass(self) -> bool:
        """Whether one epoch is all the training there is."""

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Train one epoch; mean loss terms."""

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors that are learned but are no parameters or buffers."""

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Put them back."""

    def prepare(self) -> None:
        """See `types.Scorer`."""

    def scores(self, user: IdArray, history: Histories) -> Tensor:
        """See `types.Scorer`."""


class ModelLearner:
    """One of our models with its batches and optimizer."""

    one_pass = False

    def __init__(
        self,
        spec: ModelSpec,
        model_settings: Any,
        data: TrainData,
        train: TrainSettings,
        pairs: PairSettings | None,
        seed: int,
        device: torch.device,
        steps: StepSettings | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = spec.cls.build(model_settings, data).to(device)
        check_module(spec.cls.__name__, self.module)
        self.optimizer: torch.optim.Optimizer = _optimizer(self.module, train, steps)
        self._train, self._steps, self._team = train, steps, group
        self._micro_batch_size = 0 if steps is None else steps.micro_batch_size
        self._batches = make_batch_source(model_settings, train, pairs, steps, data, device)
        self._scorer = ModelScorer(self.module, device)

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """One pass over the batches of the epoch.

        Raises:
            TrainingDiverged: a loss term is NaN or infinite.
        """
        torch.manual_seed(rng_seed)
        self.module.train()
        if isinstance(self.module, StartsEpochs):
            self.module.start_epoch()
        if self._team.rank:  # what is dropped in its parts is not what is dropped in those of the first process
            torch.manual_seed(derive_epoch_seed(rng_seed, self._team.rank))
        n_steps = self._batches.n_batches()
        sums: dict[str, float] = {}
        for step, batch in enumerate(self._batches.epoch(rng_seed), start=1):
            if self._steps is not None:
                done = epoch - 1 + (step - 1) / n_steps
                set_learning_rate(self.optimizer, self._train, done, self._steps.learning_rate_floor)
                if isinstance(self.module, FollowsProgress):
                    self.module.at(done / self._train.epochs)
            terms = self._gradients(batch)
            if self._train.clip_norm > 0:
                nn.utils.clip_grad_norm_(self.module.parameters(), self._train.clip_norm)
            self.optimizer.step()
            for name, value in terms.items():
                if not math.isfinite(value):
                    advice = advise_on_divergence(epoch, step, "lower learning_rate or set clip_norm")
                    raise TrainingDiverged(
                        f"{type(self.module).__name__}: loss term {name} is {value} in epoch {epoch}, step {step}; "
                        f"{advice}"
                    )
                sums[name] = sums.get(name, 0.0) + value
            on_step(step, n_steps, {name: total / step for name, total in sums.items()})
        return {name: total / n_steps for name, total in sums.items()}

    def _gradients(self, batch: PairBatch | HistoryBatch) -> dict[str, float]:
        """Gradients of a whole batch, read in parts where the row says so; mean loss terms."""
        model: Any = self.module
        group = self._team
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            parts: Sequence[tuple[float, PairBatch | HistoryBatch]] = [(1.0, batch)]
            if self._micro_batch_size and isinstance(batch, HistoryBatch):
                parts = split_micro_batches(batch, min(self._micro_batch_size, -(-len(batch.items) // group.size)))
            sums: dict[str, float] = {}
            too_large = False
            try:
                for share, part in group.share(parts):
                    terms: dict[str, Tensor] = model.loss(part)
                    total = torch.stack(list(terms.values())).sum()
                    (total if share == 1.0 else total * share).backward()
                    for name, term in terms.items():
                        sums[name] = sums.get(name, 0.0) + share * term.item()
            except torch.OutOfMemoryError:
                too_large = True  # and not the error, which would keep the memory of its frames
                if self._micro_batch_size <= 1:
                    group.any(too_large)  # the others end here, too
                    raise
            if not group.any(too_large):
                group.add_up_gradients(self.module.parameters())
                return group.add_up(sums)
            if self._micro_batch_size <= 1:
                raise torch.OutOfMemoryError("another process has no memory for a single example")
            self._micro_batch_size //= 2
            torch.cuda.empty_cache()

    def extra_state(self) -> dict[str, Tensor]:
        """All that our models learn are parameters."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to put back."""

    def prepare(self) -> None:
        """See `types.Scorer`."""
        self.module.eval()
        self._scorer.prepare()

    def scores(self, user: IdArray, history: Histories) -> Tensor:
        """See `types.Scorer`."""
        return self._scorer.scores(user, history)


def make_batch_source(
    model_settings: Any,
    train: TrainSettings,
    pairs: PairSettings | None,
    steps: StepSettings | None,
    data: TrainData,
    device: torch.device,
) -> BatchSource:
    """What a model is trained on: triples, prefixes, or whole sequences."""
    if pairs is not None:
        return PairSource(data, train.batch_size, pairs.sampling, device)
    if steps is not None and model_settings.examples != "causal":
        per_user = steps.examples_per_user if model_settings.examples == "random" else None
        return PrefixSource(data, train.batch_size, model_settings.max_history, per_user, device)
    return SequenceSource(data, train.batch_size, model_settings.max_history, device)


class View(Protocol):
    """Where progress is shown and logged."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """After each training step."""

    def epoch(self, progress: Progress) -> None:
        """After each epoch."""


def fit(
    learner: Learner,
    data: SelectionData,
    train: TrainSettings,
    evaluation: EvalSettings,
    *,
    seed: int,
    checkpoint: CheckpointFolder,
    run: Mapping[str, str],
    who: str,
    view: View,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Progress:
    """Train until early stopping, from the checkpoint if there is one, and leave the best epoch's state in `row`.

    Args:
        learner: freshly built.
        data: the training part and the validation targets; there is no test part in it.
        train: loop, optimizer and selection.
        evaluation: cut-offs and block size.
        seed: of all random draws.
        checkpoint: where the state is kept after each epoch.
        run: everything the run depends on, so that a checkpoint of another one is refused.
        who: model and dataset, for messages.
        view: told of each step and epoch.
        group: processes that train the row together; the first one writes the checkpoint, which all of them read.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another run.
        TrainingDiverged: a loss or score became NaN.
    """
    epochs = 1 if learner.one_pass else train.epochs
    device = next((value.device for value in learner.module.parameters()), torch.device("cpu"))
    progress = _resume(learner, checkpoint, run)
    group.make_equal(learner.module)
    while not progress.stopped:
        epoch = progress.epoch + 1
        started = time.perf_counter()
        set_learning_rate(learner.optimizer, train, epoch - 1)
        with use_deterministic_sums(device):
            losses = learner.train_epoch(
                epoch, derive_epoch_seed(seed, epoch), lambda *args, e=epoch: view.step(e, *args)
            )
        trained = time.perf_counter()
        evaluated = epoch % train.eval_every == 0 or epoch == epochs
        valid = evaluate(learner, data, evaluation, who, group) if evaluated else None
        ended = time.perf_counter()
        improved = valid is not None and (progress.best_epoch == 0 or valid[train.valid_metric] > progress.best_value)
        stale = progress.stale if valid is None else 0 if improved else progress.stale + 1
        entry = {"epoch": epoch, "losses": losses, "valid": valid, "seconds": trained - started}
        progress = Progress(
            run=run,
            epoch=epoch,
            best_epoch=epoch if improved else progress.best_epoch,
            best_value=valid[train.valid_metric] if improved and valid is not None else progress.best_value,
            stale=stale,
            stopped=epoch >= epochs or stale >= train.patience,
            train_seconds=progress.train_seconds + trained - started,
            eval_seconds=progress.eval_seconds + ended - trained,
            curve=(*progress.curve, entry),
        )
        if group.rank == 0:
            with _interrupt_held():
                checkpoint.save(progress, _full_state(learner), _model_state(learner) if improved else None)
        view.epoch(progress)
    group.wait()
    load_best(learner, checkpoint)
    return progress


def load_best(learner: Learner, checkpoint: CheckpointFolder) -> None:
    """Put the state of the best epoch into `row`.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or of another model.
    """
    _load_model_state(learner, checkpoint.load_best())


def evaluate(
    learner: Learner, data: SelectionData, evaluation: EvalSettings, who: str, group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """Validation metrics under the policy `seen`, the one that selects."""
    history = data.train.history
    ranks = rank_targets(
        learner,
        data.valid,
        train=history,
        seen=history,
        block_users=evaluation.eval_block_users,
        who=f"{who}, validation",
        group=group,
    )
    return average_metrics(ranks.user, ranks.seen, evaluation.cutoffs)


def _optimizer(module: nn.Module, train: TrainSettings, steps: StepSettings | None) -> torch.optim.Optimizer:
    """The optimizer over everything that requires a gradient; fused kernels, several times faster on a CPU."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    betas = (0.9, 0.999 if steps is None else steps.adam_beta2)
    return kind(parameters, lr=train.learning_rate, betas=betas, weight_decay=train.weight_decay, fused=True)


def compute_learning_rate_factor(train: TrainSettings, done: float, floor: float = 0.0) -> float:
    """Learning rate after `done` epochs, relative to `learning_rate`; `floor` is where a cosine ends.

    `done` is a whole number for rows whose rate changes once an epoch; warm-up then has a step for each epoch.
    """
    if done < train.warmup_epochs:
        return (done + 1) / (train.warmup_epochs + 1) if isinstance(done, int) else done / train.warmup_epochs
    if train.schedule == "exponential":
        return float(train.decay_rate ** (done / DECAY_EPOCHS))
    if train.schedule == "cosine":
        span = max(train.epochs - train.warmup_epochs, 1)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * (done - train.warmup_epochs) / span))
    return 1.0


def set_learning_rate(
    optimizer: torch.optim.Optimizer | None, train: TrainSettings, done: float, floor: float = 0.0
) -> None:
    """Set the rate that `compute_learning_rate_factor` gives after `done` epochs."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = train.learning_rate * compute_learning_rate_factor(train, done, floor)


def _resume(learner: Learner, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> Progress:
    found = checkpoint.load(run)
    if found is None:
        return Progress(run, 0, 0, -math.inf, 0, False, 0.0, 0.0, ())
    progress, state = found
    _load_model_state(learner, state)
    if learner.optimizer is not None:
        unpack_optimizer(learner.optimizer, state)
    return progress


def list_frozen_names(module: nn.Module) -> set[str]:
    """Parameters that are not trained: those of a language model, which can be had again from where they came."""
    named = module.named_parameters(remove_duplicate=False)  # a state holds a shared one under each of its names
    return {name for name, parameter in named if not parameter.requires_grad}


def _model_state(learner: Learner) -> dict[str, Tensor]:
    frozen = list_frozen_names(learner.module)
    state = {f"model.{name}": value for name, value in learner.module.state_dict().items() if name not in frozen}
    return state | {f"extra.{name}": value for name, value in learner.extra_state().items()}


def _full_state(learner: Learner) -> dict[str, Tensor]:
    return _model_state(learner) | ({} if learner.optimizer is None else pack_optimizer(learner.optimizer))


def _load_model_state(learner: Learner, state: dict[str, Tensor]) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "extra": {}, "optimizer": {}}
    for key, value in state.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    try:
        frozen = list_frozen_names(learner.module)
        kept = {name: value for name, value in learner.module.state_dict().items() if name in frozen}
        learner.module.load_state_dict({**kept, **parts["model"]})
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({error}); run with --fresh to start anew"
        ) from error
    learner.load_extra_state(parts["extra"])


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Let a Ctrl-C, SIGTERM or SIGHUP that arrives while a checkpoint is written take effect after it."""
    arrived: list[int] = []
    try:
        with redirect_signals(lambda number, frame: arrived.append(number), signal.SIGINT, *stop_signals()):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])
