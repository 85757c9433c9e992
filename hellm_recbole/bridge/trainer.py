"""RecBole trainer of our harness's models: it trains, selects and ranks as `benchmarks/run.py` does.

Importing this module imports recbole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer.trainer import Trainer
from recbole.utils import calculate_valid_score, set_color
from torch import Tensor
from tqdm import tqdm

from hellm_recbole.bridge.patches import load_pickled
from hellm_recbole.bridge.pretrained import write_embeddings
from hellm_recbole.errors import SettingsError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import refuse_nan
from hellm_recbole.training.averaging import use_average
from hellm_recbole.training.trainer import train_epoch
from hellm_recbole.types import Histories, IdArray


@dataclass(frozen=True)
class FullSortRanks:
    """Ranks of all targets of an evaluation with full sort; entry t belongs to target t.

    Attributes:
        user: [T] user ids.
        item: [T] item ids.
        rank: [T] number of candidates whose score is at least that of the target, which counts itself.
    """

    user: IdArray
    item: IdArray
    rank: IdArray


class HarnessTrainer(Trainer):  # type: ignore[misc]
    """Trainer of `model._Adapter`. Batches, seeds, schedules, steps, selection and masks are those of our own trainer.

    - Each epoch depends on (seed, epoch) only. RecBole's training loader is not read.
    - The last epoch is always evaluated, and the unrounded NDCG or recall selects the best epoch.
    - An item that the user has seen is masked, for sequential models too.
    - Ties count against the model, in RecBole's metrics too.
    - If the run keeps a moving average of the weights, the averaged ones are evaluated and saved.

    Attributes:
        ranks: ranks of the last evaluation with full sort; None before it.
    """

    eval_step: int
    ranks: FullSortRanks | None = None

    def __init__(self, config: Any, model: Any) -> None:
        """Build the trainer of a newly built adapter.

        Raises:
            SettingsError: RecBole was asked for several processes.
        """
        if not config["single_spec"]:
            raise SettingsError(
                f"{model.offered.recbole_name} is trained by one process in RecBole; for several, use `accelerate "
                "launch -m hellm_recbole.benchmarks.run`"
            )
        super().__init__(config, model)
        if model.learner.one_pass:
            self.epochs = 1
        self._eval_every = self.eval_step = min(self.eval_step, self.epochs)
        self._loaders: dict[int, tuple[Any, Any]] = {}
        self._ranked: list[tuple[IdArray, IdArray, IdArray]] = []
        self._seen: Histories | None = None

    def _build_optimizer(self, **options: Any) -> torch.optim.Optimizer:
        """Return the optimizer of the learner; one without effect for models that need none."""
        optimizer: torch.optim.Optimizer | None = self.model.learner.optimizer
        return torch.optim.SGD([torch.zeros(1)]) if optimizer is None else optimizer

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float:
        """Train one epoch and return the sum of the mean loss terms."""
        epoch, model = epoch_idx + 1, self.model
        self.eval_step = 1 if epoch == self.epochs else self._eval_every
        model.train()
        with tqdm(ncols=100, desc=set_color(f"Train {epoch_idx:>5}", "pink"), disable=not show_progress) as bar:
            losses = train_epoch(model.learner, model.run.train, epoch, int(self.config["seed"]), _follow(bar))
        return sum(losses.values())

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, Any]:
        """Evaluate on the validation part; return the score that selects the epoch, and RecBole's metrics."""
        result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        metric, ranks = self.model.run.train.valid_metric, self.ranks
        if ranks is None or not (match := re.fullmatch(r"[NR]@(\d+)", metric)):
            return calculate_valid_score(result, self.valid_metric), result
        return average_metrics(ranks.user, ranks.rank, [int(match[1])])[metric], result

    def fit(self, *args: Any, saved: bool = True, **options: Any) -> Any:
        """Train as RecBole does; if the model is saved, leave its embeddings for models that read them.

        Args:
            args: training and validation data, and further arguments of RecBole's method.
            saved: whether to save the best model.
            options: further arguments of RecBole's method.

        Returns:
            Best validation score and best validation result.
        """
        result = super().fit(*args, saved=saved, **options)
        model = self.model
        if saved and model.has_item_embeddings:
            model.load_state_dict(load_pickled(self.saved_model_file, map_location=self.device)["state_dict"])
            model.eval()
            folder = write_embeddings(self.config, model.offered, model.model, model.split, model.run.values)
            self.logger.info(f"Item embeddings of {model.offered.name} are in {folder}")
        return result

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Go on from a checkpoint as RecBole does.

        Raises:
            CheckpointError: the checkpoint belongs to another model.
        """
        super().resume_checkpoint(resume_file)
        self.model.load_raw_weights()

    def evaluate(self, eval_data: Any, load_best_model: bool = True, *args: Any, **options: Any) -> Any:
        """Evaluate as RecBole does, in blocks of `eval_block_users` users, and keep the ranks.

        Args:
            eval_data: RecBole's loader of the evaluated part.
            load_best_model: whether to load the best model first, whose saved weights are the averaged ones.
            args: further arguments of RecBole's method.
            options: further arguments of RecBole's method.

        Returns:
            RecBole's metrics.

        Raises:
            TrainingDiverged: a score is NaN.
        """
        self.ranks = None
        with use_average(None if load_best_model else self.model.learner.average):
            if not isinstance(eval_data, FullSortEvalDataLoader):
                return super().evaluate(eval_data, load_best_model, *args, **options)
            self._ranked, self._seen = [], eval_data._dataset.seen
            result = super().evaluate(self._make_blocks(eval_data), load_best_model, *args, **options)
        user, item, rank = (np.concatenate(columns) for columns in zip(*self._ranked, strict=True))
        self.ranks = FullSortRanks(user, item, rank)
        return result

    def _make_blocks(self, loader: Any) -> Any:
        """Return a loader of the same data whose blocks have `eval_block_users` users.

        The last bits of a product of matrices may depend on the number of rows.
        """
        if id(loader) not in self._loaders:
            config, dataset = loader.config, loader._dataset
            users = self.model.run.evaluation.eval_block_users
            before = config["eval_batch_size"]
            config["eval_batch_size"] = users if loader.is_sequential else users * dataset.item_num
            self._loaders[id(loader)] = loader, type(loader)(config, dataset, loader._sampler, shuffle=False)
            config["eval_batch_size"] = before
        return self._loaders[id(loader)][1]

    def _full_sort_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Compute and mask the scores of a block, and rank its targets."""
        interaction, scores, row, item = super()._full_sort_batch_eval(batched_data)
        user = interaction[self.config["USER_ID_FIELD"]].cpu().numpy()
        refuse_nan(scores[:, 1:], user, f"{self.model.offered.name} on {self.config['dataset']}")
        target = scores[row, item]
        if batched_data[1] is None and self._seen is not None:
            scores[_find_seen(user, self._seen)] = -torch.inf
            scores[row, item] = target
        rank = (scores[row] >= target.unsqueeze(1)).sum(dim=1)
        if bool((rank > (scores[row] > target.unsqueeze(1)).sum(dim=1) + 1).any()):
            scores = scores.double()  # a value between two neighbours in single precision
            scores[row, item] = torch.nextafter(scores[row, item], scores.new_tensor(-torch.inf))
        self._ranked.append((user[row.cpu().numpy()], item.cpu().numpy(), rank.cpu().numpy()))
        return interaction, scores, row, item


def _find_seen(user: IdArray, seen: Histories) -> tuple[Tensor, Tensor]:
    """Return row and item id of each item that the users of a block have seen.

    Args:
        user: [B] user ids.
        seen: histories of all users.
    """
    items = [seen.get_items(int(one)) for one in user]
    rows = np.repeat(np.arange(len(user)), [len(part) for part in items])
    return torch.from_numpy(rows), torch.from_numpy(np.concatenate(items))


def _follow(bar: Any) -> Callable[[int, int, dict[str, float]], None]:
    """Return a function that moves a progress bar after each training step."""

    def move(step: int, n_steps: int, losses: dict[str, float]) -> None:
        bar.total = n_steps
        bar.update(step - bar.n)

    return move
