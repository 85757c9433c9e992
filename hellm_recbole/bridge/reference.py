"""RecBole left to itself on a prepared dataset, for timings: its own files, loaders, trainer and evaluation."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.bridge.requirement import require_recbole
from hellm_recbole.config.layers import Value


class RecBoleReference:
    """One RecBole model, leave-one-out, trained and evaluated by RecBole's own trainer."""

    def __init__(self, model: str, dataset: str, dataset_root: Path, values: dict[str, Value]) -> None:
        """Load data and build loaders, model and trainer.

        Args:
            model: RecBole's name.
            dataset: name of a prepared leave-one-out dataset.
            dataset_root: folder that holds `<dataset>/<dataset>.inter`.
            values: RecBole's keys.

        Raises:
            MissingDependency: RecBole is not installed.
        """
        require_recbole()
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        class QuietConfig(Config):  # type: ignore[misc]
            """Reads no command line."""

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
        before = Path.cwd()
        logging.getLogger().setLevel(logging.WARNING)
        os.chdir(self._scratch.name)  # RecBole's trainer opens a log folder in the current one
        try:
            config = QuietConfig(model=model, dataset=dataset, config_dict=shared | values)
            init_seed(config["seed"], config["reproducibility"])
            self._train, self._valid, _ = data_preparation(config, create_dataset(config))
            self._model = get_model(model)(config, self._train._dataset)
            self._trainer: Any = get_trainer(config["MODEL_TYPE"], model)(config, self._model)
        finally:
            os.chdir(before)

    @property
    def n_steps(self) -> int:
        """Training steps in an epoch."""
        return len(self._train)

    def epoch_seconds(self, max_steps: int) -> tuple[float, int]:
        """Seconds of one training epoch, and the steps timed.

        An epoch of more than `max_steps` steps is not run to its end: the mean of the steps run stands for the rest.
        """
        losses = self._trainer.model.calculate_loss
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
            losses(interaction).backward()
            self._trainer.optimizer.step()
        return (time.perf_counter() - started) / steps * self.n_steps, steps

    def evaluation_seconds(self, eval_batch_size: int) -> tuple[float, dict[str, float]]:
        """Seconds of one full-ranking validation, and RecBole's result.

        Args:
            eval_batch_size: RecBole's unit: cells of the score matrix; it scores max(size // items, 1) users at a time.
        """
        self._valid.config["eval_batch_size"] = eval_batch_size
        self._valid._init_batch_size_and_step()
        loader = type(self._valid)(self._valid.config, self._valid._dataset, self._valid._sampler, shuffle=False)
        started = time.perf_counter()
        result = self._trainer.evaluate(loader, load_best_model=False)
        return time.perf_counter() - started, dict(result)

    def load_tables(self, user: torch.Tensor, item: torch.Tensor) -> None:
        """Set LightGCN's layer-0 embeddings; both sides number users and items by first appearance."""
        with torch.no_grad():
            self._model.user_embedding.weight.copy_(user)
            self._model.item_embedding.weight.copy_(item)

    @property
    def cells_per_user(self) -> int:
        """Columns of RecBole's score matrix."""
        return int(self._valid._dataset.item_num)

    def users_at_once(self, eval_batch_size: int) -> int:
        """Users RecBole scores at a time."""
        return max(math.floor(eval_batch_size / self.cells_per_user), 1)
