"""Timings of unmodified RecBole on a prepared dataset, with its own file reader, loaders, trainer and evaluation."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hellm_recbole.bridge.requirement import require_recbole
from hellm_recbole.config.yaml_files import Value


class RecBoleReference:
    """One RecBole model with a leave-one-out split, trained and evaluated by RecBole's own trainer."""

    def __init__(self, model: str, dataset: str, dataset_root: Path, values: dict[str, Value]) -> None:
        """Load the data and build the loaders, the model and the trainer.

        Args:
            model: RecBole's name of the model.
            dataset: name of a prepared leave-one-out dataset.
            dataset_root: folder that contains `<dataset>/<dataset>.inter`.
            values: settings under RecBole's keys; they override the settings below.

        Raises:
            MissingDependency: RecBole is not installed.
        """
        require_recbole()
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        class QuietConfig(Config):  # type: ignore[misc]
            """A RecBole configuration that does not read the command line."""

            def _load_cmd_line(self) -> dict[str, Value]:
                return {}

        self._scratch = tempfile.TemporaryDirectory()
        shared: dict[str, Value] = {
            "data_path": str(dataset_root),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
            "metrics": ["Recall", "NDCG"],
            "topk": [5, 10, 20],
            "valid_metric": "NDCG@20",
            "checkpoint_dir": self._scratch.name,
            "show_progress": False,
            "use_gpu": False,
        }
        original_folder = Path.cwd()
        logging.getLogger().setLevel(logging.WARNING)
        os.chdir(self._scratch.name)  # RecBole's trainer creates a log folder in the current folder
        try:
            config = QuietConfig(model=model, dataset=dataset, config_dict=shared | values)
            init_seed(config["seed"], config["reproducibility"])
            self._train, self._valid, _ = data_preparation(config, create_dataset(config))
            self._model = get_model(model)(config, self._train._dataset)
            self._trainer: Any = get_trainer(config["MODEL_TYPE"], model)(config, self._model)
        finally:
            os.chdir(original_folder)

    @property
    def n_steps(self) -> int:
        """Number of training steps in an epoch."""
        return len(self._train)

    def epoch_seconds(self, max_steps: int) -> tuple[float, int]:
        """Measure the time of one training epoch.

        If the epoch has more than `max_steps` steps, only that many are run and their mean time is extrapolated.

        Args:
            max_steps: largest number of steps to run.

        Returns:
            Seconds of the epoch, and the number of steps that were timed.
        """
        calculate_loss = self._trainer.model.calculate_loss
        steps = min(max_steps, self.n_steps)
        started = time.perf_counter()
        if steps == self.n_steps:
            self._trainer._train_epoch(self._train, 0)
            return time.perf_counter() - started, steps
        self._model.train()
        for step, interaction in enumerate(self._train):
            if step == steps:
                break
            self._trainer.optimizer.zero_grad()
            calculate_loss(interaction).backward()
            self._trainer.optimizer.step()
        return (time.perf_counter() - started) / steps * self.n_steps, steps

    def evaluation_seconds(self, eval_batch_size: int) -> tuple[float, dict[str, float]]:
        """Measure the time of one evaluation on the validation part with full ranking.

        Args:
            eval_batch_size: RecBole's batch size, in entries of the score matrix. RecBole scores
                max(eval_batch_size // number of items, 1) users at a time.

        Returns:
            Seconds of the evaluation, and RecBole's metrics.
        """
        self._valid.config["eval_batch_size"] = eval_batch_size
        self._valid._init_batch_size_and_step()
        loader = type(self._valid)(self._valid.config, self._valid._dataset, self._valid._sampler, shuffle=False)
        started = time.perf_counter()
        result = self._trainer.evaluate(loader, load_best_model=False)
        return time.perf_counter() - started, dict(result)

    @property
    def cells_per_user(self) -> int:
        """Number of columns of RecBole's score matrix."""
        return int(self._valid._dataset.item_num)

    def users_at_once(self, eval_batch_size: int) -> int:
        """Return the number of users that RecBole scores at a time with this batch size."""
        return max(math.floor(eval_batch_size / self.cells_per_user), 1)
