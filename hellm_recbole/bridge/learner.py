"""Learner that runs a general or sequential RecBole model in our harness, with our split, ids, candidates and masking.

RecBole provides the model, its dataset class, its samplers and training loader, its optimizer and its loss. The harness
provides the training interactions and requests scores. The package recbole is not imported before a learner is built.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hellm_recbole.bridge.extra_state import ExtraState, list_caches
from hellm_recbole.bridge.recbole_models import RECBOLE_KEYS, find_recbole_kind
from hellm_recbole.config.harness_settings import EvalSettings, TrainSettings
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import ModelError, SettingsError, TrainingDiverged, advise_on_divergence
from hellm_recbole.training.learner import OnStep
from hellm_recbole.types import Histories, IdArray, QueryBatch, TrainData, as_ids, pad_recent

_HARNESS_KEYS = {*TrainSettings.model_fields, *EvalSettings.model_fields}

MAX_PAIRS_PER_CALL = 1 << 18  # most user-item pairs in a call of `predict`, for models without full ranking


class RecBoleLearner:
    """One RecBole model on one dataset. It implements `types.Scorer`.

    Attributes:
        name: RecBole's name of the model.
        device: device of the model.
        module: RecBole's model.
        optimizer: optimizer that RecBole's trainer builds; None for traditional models, which need none.
        one_pass: whether one epoch completes the training. This is so for traditional models.
        average: None; there is no moving average of the weights of RecBole's models.
    """

    average = None

    def __init__(
        self, name: str, data: TrainData, settings: Mapping[str, Value], seed: int, device: torch.device
    ) -> None:
        """Build the model, the training loader and the optimizer. Seeds the global random generators with `seed`.

        Args:
            name: RecBole's name of the model.
            data: training data; RecBole sees no other interactions.
            settings: settings under RecBole's keys (`read_recbole_settings`) and ours (`TrainSettings`). The keys of
                `EvalSettings` are ignored.
            seed: random seed of the initial parameters.
            device: device of the model.

        Raises:
            ModelError: the model is not supported or needs a package that is not installed.
            DataError: the training data contain no training signal or no negative items for the model.
            SettingsError: RecBole does not accept the settings.
            MissingDependency: RecBole is not installed.
        """
        kind = find_recbole_kind(name)
        if kind is None:
            raise ModelError(f"RecBole has no model {name!r}")
        from hellm_recbole.bridge import dataset as memory

        self.name, self.device = name, device
        self.one_pass = kind == "traditional"
        self._config = memory.MemoryConfig(name, _convert_settings(settings, seed, device), device)
        _seed_everything(seed)
        dataset = memory.make_dataset(self._config, data)
        # Build the loader before the model. It adds names to the configuration that models such as BERT4Rec read.
        self._loader = memory.make_loader(self._config, dataset)
        try:
            self.module: torch.nn.Module = memory.get_model_class(name)(self._config, dataset).to(device)
        except ImportError as error:
            raise ModelError(f"RecBole's {name} needs the package {error.name}; install it with pip") from error
        except (ValueError, TypeError, ArithmeticError, NotImplementedError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SettingsError(f"RecBole's {name} cannot be built with these settings: {reason}") from error
        self.optimizer = None if self.one_pass else memory.make_optimizer(self._config, self.module)
        if self._config["train_neg_sample_args"].get("dynamic"):
            self._loader.get_model(self.module)
        self._is_sequential = kind == "sequential"
        self._extra_state = ExtraState(self.module)
        self._has_full_ranking = True

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """Train for one epoch.

        The result depends only on parameters, optimizer state, `collect_extra_state()` and `rng_seed`. RecBole uses the
        global random generators of Python, NumPy and torch, and all of them are seeded here.

        Args:
            epoch: number of the epoch, for error messages.
            rng_seed: random seed of this epoch.
            on_step: function that is called after each step with the step number (from 1), the number of steps and the
                mean losses so far.

        Returns:
            Name of each loss -> its mean over the steps. The names are "loss", or "loss_1", "loss_2", ... if the model
            has several losses.

        Raises:
            TrainingDiverged: a loss is NaN or infinite.
        """
        _seed_everything(rng_seed)
        self._loader.generator.manual_seed(rng_seed)
        self.module.train()
        model: Any = self.module
        clip = self._config["clip_grad_norm"]
        totals: dict[str, float] = {}
        n_steps = len(self._loader)
        for step, interaction in enumerate(self._loader, start=1):
            terms = model.calculate_loss(interaction.to(self.device))
            is_several = isinstance(terms, tuple)
            named_terms = {f"loss_{i}": term for i, term in enumerate(terms, 1)} if is_several else {"loss": terms}
            losses = {term: float(value.detach().sum()) for term, value in named_terms.items()}
            for term, value in losses.items():
                if not np.isfinite(value):
                    advice = advise_on_divergence(epoch, step, "lower the learning rate")
                    raise TrainingDiverged(f"{self.name}: {term} is {value} in epoch {epoch}, step {step}; {advice}")
                totals[term] = totals.get(term, 0.0) + value
            if self.optimizer is not None:
                self.optimizer.zero_grad()
                sum(named_terms.values()).backward()
                if clip:
                    torch.nn.utils.clip_grad_norm_(self.module.parameters(), **clip)
                self.optimizer.step()
            on_step(step, n_steps, {term: total / step for term, total in totals.items()})
        return {term: total / n_steps for term, total in totals.items()}

    def prepare(self) -> None:
        """Clear the vectors that the model cached in an earlier evaluation, because its parameters may have changed."""
        self.module.eval()
        for name in list_caches(self.module):
            setattr(self.module, name, None)

    @torch.no_grad()
    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for some users.

        Sequential models read the most recent MAX_ITEM_LIST_LENGTH items of `history`, oldest first, right-padded. For
        a user without a history they read one padding item.

        Args:
            user: [B] user ids.
            history: histories of all users.

        Returns:
            [B, I] float32 scores, without RecBole's padding column.
        """
        width = self._config["MAX_ITEM_LIST_LENGTH"] if self._is_sequential else 0
        recent = pad_recent(history.indptr, history.items, user, width)
        return self.score_batch(QueryBatch(as_ids(user, self.device), as_ids(recent, self.device)))

    @torch.no_grad()
    def score_batch(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32.

        Args:
            batch: users, with MAX_ITEM_LIST_LENGTH history items each if the model is sequential.
        """
        from recbole.data.interaction import Interaction

        self.module.eval()
        model: Any = self.module
        user = batch.user
        columns = {self._config["USER_ID_FIELD"]: user}
        if self._is_sequential:
            columns[self._config["ITEM_ID_FIELD"] + self._config["LIST_SUFFIX"]] = batch.items
            columns[self._config["ITEM_LIST_LENGTH_FIELD"]] = (batch.items != 0).sum(dim=1).clamp(min=1)
        if self._has_full_ranking:
            try:
                return _remove_padding(model.full_sort_predict(Interaction(columns)), len(user))
            except NotImplementedError:
                self._has_full_ranking = False
        return self._score_pairs(columns)

    def _score_pairs(self, columns: dict[str, Tensor]) -> Tensor:
        """Compute the scores [B, I] with `predict` for each pair, for models without full ranking."""
        from recbole.data.interaction import Interaction

        model: Any = self.module
        item_field = self._config["ITEM_ID_FIELD"]
        items = torch.arange(1, model.n_items, device=self.device)
        n_users = len(next(iter(columns.values())))
        users_at_once = max(MAX_PAIRS_PER_CALL // len(items), 1)
        blocks = []
        for start in range(0, n_users, users_at_once):
            part = {name: values[start : start + users_at_once] for name, values in columns.items()}
            count = len(next(iter(part.values())))
            pairs = {name: values.repeat_interleave(len(items), dim=0) for name, values in part.items()}
            pairs[item_field] = items.repeat(count)
            blocks.append(model.predict(Interaction(pairs)).view(count, len(items)).float())
        return torch.cat(blocks)

    def collect_extra_state(self) -> dict[str, Tensor]:
        """Return what training changes in the model besides parameters and buffers; see `ExtraState`."""
        return self._extra_state.collect()

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from `collect_extra_state`. The learner must have been built with the same arguments.

        Args:
            state: result of `collect_extra_state`.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        self._extra_state.load(state, self.name, self.device)


def _convert_settings(settings: Mapping[str, Value], seed: int, device: torch.device) -> dict[str, Value]:
    """Convert settings to values of RecBole's configuration, under RecBole's keys."""
    values = {key: value for key, value in settings.items() if key not in _HARNESS_KEYS}
    values |= {recbole_key: settings[key] for key, recbole_key in RECBOLE_KEYS.items() if key in settings}
    if settings.get("clip_norm"):
        values["clip_grad_norm"] = {"max_norm": settings["clip_norm"]}
    return values | {"seed": seed, "use_gpu": device.type == "cuda", "show_progress": False}


def _remove_padding(scores: Tensor, n_users: int) -> Tensor:
    """Convert RecBole's flat or [B, I + 1] scores to [B, I] float32 scores."""
    return scores.view(n_users, -1)[:, 1:].float()


def _seed_everything(seed: int) -> None:
    """Seed all global random generators, because RecBole uses each one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 -- RecBole's samplers use numpy's global state
    torch.manual_seed(seed)
