"""What the training loop trains: the learner of one of our models, and what a learner has to provide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hellm_recbole.config.harness_settings import PairSettings, StepSettings, TrainSettings
from hellm_recbole.errors import TrainingDiverged, advise_on_divergence
from hellm_recbole.evaluation.product_ranks import ItemVectors
from hellm_recbole.evaluation.ranking import ModelScorer
from hellm_recbole.models.base import ModelSpec, check_module
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.averaging import WeightAverage
from hellm_recbole.training.optimizer import build_optimizer
from hellm_recbole.training.sampling import derive_epoch_seed, make_batch_source, split_micro_batches
from hellm_recbole.training.schedule import changes_rate_by_step, set_learning_rate
from hellm_recbole.types import (
    FollowsProgress,
    Histories,
    HistoryBatch,
    IdArray,
    PairBatch,
    QueryBatch,
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
    def average(self) -> WeightAverage | None:
        """The moving average of the weights; None if the run keeps none."""

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
        self.optimizer: torch.optim.Optimizer = build_optimizer(self.module, train, steps)
        self.average = WeightAverage(self.module, train.average_decay) if train.average_decay > 0 else None
        self._train, self._steps, self._group = train, steps, group
        self._micro_batch_size = 0 if steps is None else steps.micro_batch_size
        self._keep_width = bool(getattr(model_settings, "pad_pooled_to", 0))  # pools the padding of the whole batch
        self._batches = make_batch_source(spec.batches, model_settings, train, pairs, steps, data, device)
        self._scorer = ModelScorer(self.module, device)

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Train one pass over the batches of the epoch; see `Learner`.

        Raises:
            TrainingDiverged: a loss term is NaN or infinite.
        """
        torch.manual_seed(rng_seed)
        self.module.train()
        if self.average is not None and epoch == 1:
            self.average.restart()
        if isinstance(self.module, StartsEpochs):
            self.module.start_epoch()
        if self._group.rank:  # each process draws its own dropout masks
            torch.manual_seed(derive_epoch_seed(rng_seed, self._group.rank))
        n_steps = self._batches.count_batches()
        sums: dict[str, float] = {}
        for step, batch in enumerate(self._batches.epoch(rng_seed), start=1):
            self._prepare_step(epoch - 1 + (step - 1) / n_steps, n_steps)
            terms = self._compute_gradients(batch)
            if self._train.clip_norm > 0:
                nn.utils.clip_grad_norm_(self.module.parameters(), self._train.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update((epoch - 1) * n_steps + step - 1)
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

    def _prepare_step(self, done: float, n_steps: int) -> None:
        """Set what changes from step to step: the learning rate and the model's progress.

        Args:
            done: number of completed epochs.
            n_steps: number of steps of an epoch.
        """
        if self._steps is not None or changes_rate_by_step(self._train):
            set_learning_rate(self.optimizer, self._train, done, n_steps)
        if isinstance(self.module, FollowsProgress):
            self.module.set_progress(done / self._train.epochs)

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
                size = min(self._micro_batch_size, -(-len(batch.items) // group.size))
                parts = split_micro_batches(batch, size, keep_width=self._keep_width)
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

    def get_item_vectors(self) -> ItemVectors | None:
        """Return the item vectors; see `evaluation.product_ranks.ProductScorer`."""
        return self._scorer.get_item_vectors()

    def compute_query(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the vectors of some users; see `evaluation.product_ranks.ProductScorer`."""
        return self._scorer.compute_query(user, history)

    def score_batch(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users with their histories, [B, I] float32."""
        return self._scorer.score_batch(batch)
