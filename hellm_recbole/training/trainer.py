"""One training loop for every model, with selection by validation, early stopping and checkpoints.

Each epoch depends only on the parameters, the optimizer state and (seed, epoch): batches, dropout and all other random
draws use a seed made of both numbers. So a checkpoint needs no random state. On a CPU, with the same number of threads,
a run that was killed and resumed ends with exactly the numbers of an uninterrupted run.
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

from hellm_recbole.config.harness_settings import EvalSettings, PairSettings, StepSettings, TrainSettings
from hellm_recbole.errors import CheckpointError, TrainingDiverged, advise_on_divergence
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import ModelScorer, rank_targets
from hellm_recbole.models.base import ModelSpec, check_module
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.system.runtime import use_deterministic_sums
from hellm_recbole.system.signals import list_stop_signals, redirect_signals
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

OnStep = Callable[[int, int, dict[str, float]], None]  # called with the step, the steps of the epoch, mean losses


class Learner(Protocol):
    """What the training loop trains: one of our models or one of RecBole's. It is also a `types.Scorer`."""

    @property
    def module(self) -> nn.Module:
        """The module with the parameters to train."""

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer; None if no parameter is optimised."""

    @property
    def one_pass(self) -> bool:
        """Whether training takes exactly one epoch."""

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Train one epoch.

        Args:
            epoch: number of the epoch; the first one is 1.
            rng_seed: random seed of the epoch.
            on_step: function to call after each training step.

        Returns:
            Mean of each loss term over the epoch.
        """

    def collect_extra_state(self) -> dict[str, Tensor]:
        """Return the learned tensors that are neither parameters nor buffers, by name."""

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Load the tensors that `collect_extra_state` returned."""

    def prepare(self) -> None:
        """Compute what is the same for all users; see `types.Scorer`."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items; see `types.Scorer`."""


class ModelLearner:
    """One of our models with its batches and its optimizer.

    Args:
        spec: entry of the model in the registry.
        model_settings: settings of the model.
        data: training part.
        train: settings of the loop and the optimizer.
        pairs: settings of BPR triples; None for a model of sequences.
        seed: random seed of the initial parameters.
        device: device of the model and the batches.
        steps: training settings of LLM models only; None for other models.
        group: processes that train the model together.
    """

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
        self.optimizer: torch.optim.Optimizer = _build_optimizer(self.module, train, steps)
        self._train, self._steps, self._group = train, steps, group
        self._micro_batch_size = 0 if steps is None else steps.micro_batch_size
        self._batches = make_batch_source(model_settings, train, pairs, steps, data, device)
        self._scorer = ModelScorer(self.module, device)

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Train one pass over the batches of the epoch; see `Learner`.

        Raises:
            TrainingDiverged: a loss term is NaN or infinite.
        """
        torch.manual_seed(rng_seed)
        self.module.train()
        if isinstance(self.module, StartsEpochs):
            self.module.start_epoch()
        if self._group.rank:  # each process draws its own dropout masks
            torch.manual_seed(derive_epoch_seed(rng_seed, self._group.rank))
        n_steps = self._batches.count_batches()
        sums: dict[str, float] = {}
        for step, batch in enumerate(self._batches.epoch(rng_seed), start=1):
            if self._steps is not None:
                done = epoch - 1 + (step - 1) / n_steps
                set_learning_rate(self.optimizer, self._train, done, self._steps.learning_rate_floor)
                if isinstance(self.module, FollowsProgress):
                    self.module.set_progress(done / self._train.epochs)
            terms = self._compute_gradients(batch)
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

    def _compute_gradients(self, batch: PairBatch | HistoryBatch) -> dict[str, float]:
        """Compute the gradients of a whole batch, in micro-batches if the settings say so.

        If the memory of the device is too small, the size of the micro-batches is halved until they fit.

        Returns:
            Mean of each loss term over the batch.

        Raises:
            torch.OutOfMemoryError: there is too little memory for a single example.
        """
        model: Any = self.module
        group = self._group
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
                too_large = True  # the error itself is not stored, because its frames would keep the memory allocated
                if self._micro_batch_size <= 1:
                    group.any(too_large)  # tell the other processes, so that they stop too
                    raise
            if not group.any(too_large):
                group.add_up_gradients(self.module.parameters())
                return group.add_up(sums)
            if self._micro_batch_size <= 1:
                raise torch.OutOfMemoryError("another process has too little memory for a single example")
            self._micro_batch_size //= 2
            torch.cuda.empty_cache()

    def collect_extra_state(self) -> dict[str, Tensor]:
        """Return nothing: our models learn parameters only."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Load nothing."""

    def prepare(self) -> None:
        """Compute what is the same for all users; see `types.Scorer`."""
        self.module.eval()
        self._scorer.prepare()

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items; see `types.Scorer`."""
        return self._scorer.compute_scores(user, history)


def make_batch_source(
    model_settings: Any,
    train: TrainSettings,
    pairs: PairSettings | None,
    steps: StepSettings | None,
    data: TrainData,
    device: torch.device,
) -> BatchSource:
    """Build the batches that a model is trained on: BPR triples, prefixes or whole sequences.

    Args:
        model_settings: settings of the model.
        train: settings of the loop.
        pairs: settings of BPR triples; None for a model of sequences.
        steps: training settings of LLM models only; None for other models.
        data: training part.
        device: device of the batches.
    """
    if pairs is not None:
        return PairSource(data, train.batch_size, pairs.sampling, device)
    if steps is not None and model_settings.examples != "causal":
        per_user = steps.examples_per_user if model_settings.examples == "random" else None
        return PrefixSource(data, train.batch_size, model_settings.max_history, per_user, device)
    return SequenceSource(data, train.batch_size, model_settings.max_history, device)


class View(Protocol):
    """What shows and logs the progress of a run."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Show the progress; called after each training step."""

    def epoch(self, progress: Progress) -> None:
        """Show and log the progress; called after each epoch."""


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
    """Train to the last epoch or to early stopping, and load the state of the best epoch into the learner.

    If there is a checkpoint, the run is resumed from it.

    Args:
        learner: newly built learner.
        data: training part and validation targets; it contains no test part.
        train: settings of the loop, the optimizer and the selection.
        evaluation: cut-offs and block size.
        seed: random seed of the run.
        checkpoint: folder to which the state is written after each epoch.
        run: everything that the run depends on; a checkpoint of another run is refused.
        who: model and dataset, for messages.
        view: view that shows each step and epoch.
        group: processes that train the model together; the first one writes the checkpoint, and all of them read it.

    Returns:
        Progress at the end of training.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another run.
        TrainingDiverged: a loss or score became NaN.
    """
    epochs = 1 if learner.one_pass else train.epochs
    device = next((value.device for value in learner.module.parameters()), torch.device("cpu"))
    progress = _resume(learner, checkpoint, run)
    group.copy_from_first(learner.module)
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
            with _delay_signals():
                checkpoint.save(
                    progress, _collect_full_state(learner), _collect_model_state(learner) if improved else None
                )
        view.epoch(progress)
    group.wait()
    load_best(learner, checkpoint)
    return progress


def load_best(learner: Learner, checkpoint: CheckpointFolder) -> None:
    """Load the state of the best epoch into the learner.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or belongs to another model.
    """
    _load_model_state(learner, checkpoint.load_best())


def evaluate(
    learner: Learner, data: SelectionData, evaluation: EvalSettings, who: str, group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """Compute the validation metrics under the policy `seen`, which selects the best epoch."""
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


def _build_optimizer(module: nn.Module, train: TrainSettings, steps: StepSettings | None) -> torch.optim.Optimizer:
    """Build the optimizer of all parameters that require a gradient.

    It uses fused kernels, which are several times as fast on a CPU.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer_class = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    betas = (0.9, 0.999 if steps is None else steps.adam_beta2)
    return optimizer_class(parameters, lr=train.learning_rate, betas=betas, weight_decay=train.weight_decay, fused=True)


def compute_learning_rate_factor(train: TrainSettings, done: float, floor: float = 0.0) -> float:
    """Compute the learning rate after some epochs, relative to the setting `learning_rate`.

    Args:
        train: settings of the schedule.
        done: number of completed epochs. An `int` is for models whose rate changes once in each epoch; their warm-up
            has one level for each epoch. A `float` is for models whose rate changes in each step.
        floor: factor at the end of a cosine schedule.
    """
    if done < train.warmup_epochs:
        return (done + 1) / (train.warmup_epochs + 1) if isinstance(done, int) else done / train.warmup_epochs
    if train.schedule == "exponential":
        return float(train.decay_rate ** (done / train.decay_epochs))
    if train.schedule == "cosine":
        span = max(train.epochs - train.warmup_epochs, 1)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * (done - train.warmup_epochs) / span))
    return 1.0


def set_learning_rate(
    optimizer: torch.optim.Optimizer | None, train: TrainSettings, done: float, floor: float = 0.0
) -> None:
    """Set the learning rate of an optimizer after `done` epochs; see `compute_learning_rate_factor`."""
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = train.learning_rate * compute_learning_rate_factor(train, done, floor)


def _resume(learner: Learner, checkpoint: CheckpointFolder, run: Mapping[str, str]) -> Progress:
    """Load the checkpoint into the learner; without a checkpoint, return the progress of a new run."""
    stored = checkpoint.load(run)
    if stored is None:
        return Progress(run, 0, 0, -math.inf, 0, False, 0.0, 0.0, ())
    progress, state = stored
    _load_model_state(learner, state)
    if learner.optimizer is not None:
        unpack_optimizer(learner.optimizer, state)
    return progress


def list_frozen_names(module: nn.Module) -> set[str]:
    """List the parameters that are not trained, such as those of a language model.

    Checkpoints do not contain them, because they are loaded from their source again.
    """
    named = module.named_parameters(remove_duplicate=False)  # a state contains a shared parameter under each name
    return {name for name, parameter in named if not parameter.requires_grad}


def _collect_model_state(learner: Learner) -> dict[str, Tensor]:
    """Collect the trained parameters, the buffers and the extra state, as `model.<name>` and `extra.<name>`."""
    frozen = list_frozen_names(learner.module)
    state = {f"model.{name}": value for name, value in learner.module.state_dict().items() if name not in frozen}
    return state | {f"extra.{name}": value for name, value in learner.collect_extra_state().items()}


def _collect_full_state(learner: Learner) -> dict[str, Tensor]:
    """Collect the model state and the optimizer state."""
    return _collect_model_state(learner) | ({} if learner.optimizer is None else pack_optimizer(learner.optimizer))


def _load_model_state(learner: Learner, state: dict[str, Tensor]) -> None:
    """Load a state from `_collect_model_state` or `_collect_full_state` into the learner, without its optimizer.

    Raises:
        CheckpointError: the state belongs to another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "extra": {}, "optimizer": {}}
    for key, value in state.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    try:
        frozen = list_frozen_names(learner.module)
        frozen_state = {name: value for name, value in learner.module.state_dict().items() if name in frozen}
        learner.module.load_state_dict({**frozen_state, **parts["model"]})
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({error}); run with --fresh to train from scratch"
        ) from error
    learner.load_extra_state(parts["extra"])


@contextmanager
def _delay_signals() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the checkpoint is written."""
    arrived: list[int] = []
    try:
        with redirect_signals(lambda number, frame: arrived.append(number), signal.SIGINT, *list_stop_signals()):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])
