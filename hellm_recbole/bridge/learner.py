"""Learner that runs a general or sequential RecBole model in our harness, with our split, ids, candidates and masking.

RecBole provides the model, its dataset class, its samplers and training loader, its optimizer and its loss. The harness
provides the training interactions and requests scores. The package recbole is not imported before a learner is built.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hellm_recbole.bridge.requirement import require_recbole
from hellm_recbole.config.harness_settings import EvalSettings, TrainSettings
from hellm_recbole.config.yaml_files import Value, load_yaml
from hellm_recbole.errors import CheckpointError, ModelError, SettingsError, TrainingDiverged, advise_on_divergence
from hellm_recbole.types import Histories, IdArray, TrainData, as_ids, pad_recent

Kind = Literal["general", "sequential", "traditional"]
OnStep = Callable[[int, int, dict[str, float]], None]

# Folder of recbole/model -> reason why its models are not supported; None if they are supported.
_REASON_BY_FOLDER: dict[str, str | None] = {
    "general_recommender": None,
    "sequential_recommender": None,
    "knowledge_aware_recommender": "needs a knowledge graph",
    "context_aware_recommender": "needs user and item attributes and explicit labels",
    "exlib_recommender": "needs user and item attributes and explicit labels",
}
_ATTRIBUTE_MODELS = {"DIEN", "DIN", "FDSA", "GRU4RecF", "GRU4RecKG", "KSR", "S3Rec", "SASRecF"}

# Our training setting -> RecBole's. Our other settings are used only by the harness.
_RECBOLE_KEYS = {
    "batch_size": "train_batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "optimizer": "learner",
    "epochs": "epochs",
}
_MODEL_KEYS = ("batch_size", "learning_rate", "weight_decay")  # each model has its own values of these
_HARNESS_KEYS = {*TrainSettings.model_fields, *EvalSettings.model_fields}

MAX_PAIRS_PER_CALL = 1 << 18  # most user-item pairs in a call of `predict`, for models without full ranking


def list_recbole_models() -> list[str]:
    """List the names of RecBole's general and sequential models. Reads RecBole's files without importing it."""
    return sorted(name for name, folder in list_models_by_folder().items() if _REASON_BY_FOLDER[folder] is None)


def find_recbole_kind(name: str) -> Kind | None:
    """Return how a RecBole model trains; None if RecBole has no model of this name.

    Raises:
        ModelError: our harness does not support this RecBole model.
        MissingDependency: RecBole is not installed.
    """
    if name not in list_models_by_folder():
        return None
    reason = _REASON_BY_FOLDER[list_models_by_folder()[name]]
    if reason is None and name in _ATTRIBUTE_MODELS:
        reason = "reads user or item attributes"
    if reason is not None:
        raise ModelError(f"RecBole's {name} {reason}, which our runs do not provide; choose another RecBole model")
    from recbole.trainer import Trainer
    from recbole.utils import ModelType, get_model, get_trainer

    kind = get_model(name).type
    trainer = get_trainer(kind, name)
    if trainer.fit is not Trainer.fit or trainer._train_epoch is not Trainer._train_epoch:
        raise ModelError(
            f"RecBole's {name} has its own training procedure ({trainer.__name__}), which our runs do not support; "
            "run it with recbole.quick_start.run_recbole"
        )
    if kind == ModelType.TRADITIONAL:
        return "traditional"
    return "sequential" if kind == ModelType.SEQUENTIAL else "general"


def read_recbole_settings(name: str) -> dict[str, Value]:
    """Read RecBole's default settings of a model: its settings file, and the shared settings that our runs use.

    Batch size, learning rate and weight decay have our names. Only the returned keys are valid settings of the model.

    Raises:
        ModelError: RecBole has no such model, or our harness does not support it.
        MissingDependency: RecBole is not installed.
    """
    kind = find_recbole_kind(name)
    if kind is None:
        raise ModelError(f"RecBole has no model {name!r}")
    properties = _find_recbole_folder() / "properties"
    model_file = properties / "model" / f"{name}.yaml"
    model_values = load_yaml(model_file) if model_file.is_file() else {}
    shared = load_yaml(properties / "overall.yaml")
    values = {key: model_values.get(_RECBOLE_KEYS[key], shared[_RECBOLE_KEYS[key]]) for key in _MODEL_KEYS}
    values["train_neg_sample_args"] = shared["train_neg_sample_args"]
    # A traditional model counts all items in its batches. It would also count the negatives that RecBole samples by
    # default. With cross-entropy, RecBole does not allow negatives.
    if kind == "traditional" or (kind == "sequential" and model_values.get("loss_type") == "CE"):
        values["train_neg_sample_args"] = None
    if kind == "sequential":
        values["MAX_ITEM_LIST_LENGTH"] = load_yaml(properties / "dataset" / "sample.yaml")["MAX_ITEM_LIST_LENGTH"]
    return values | {key: value for key, value in model_values.items() if key not in _RECBOLE_KEYS.values()}


class RecBoleLearner:
    """One RecBole model on one dataset. It implements `types.Scorer`.

    Attributes:
        name: RecBole's name of the model.
        device: device of the model.
        module: RecBole's model.
        optimizer: optimizer that RecBole's trainer builds; None for traditional models, which need none.
        one_pass: whether one epoch completes the training. This is so for traditional models.
    """

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
        self._initial_state = dict(_list_plain_attributes(self.module))
        self._initial_attributes = {path: set(vars(owner)) for path, owner in self.module.named_modules()}
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
        for name in _list_caches(self.module):
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
        from recbole.data.interaction import Interaction

        self.module.eval()
        model: Any = self.module
        columns = {self._config["USER_ID_FIELD"]: as_ids(user, self.device)}
        if self._is_sequential:
            width = self._config["MAX_ITEM_LIST_LENGTH"]
            item_list = self._config["ITEM_ID_FIELD"] + self._config["LIST_SUFFIX"]
            lengths = history.indptr[user + 1] - history.indptr[user]
            padded = np.zeros((len(user), width), dtype=np.int64)
            recent = pad_recent(history.indptr, history.items, user, width)
            padded[:, : recent.shape[1]] = recent
            columns[item_list] = as_ids(padded, self.device)
            columns[self._config["ITEM_LIST_LENGTH_FIELD"]] = as_ids(np.clip(lengths, 1, width), self.device)
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
        """Return the state that training changes in the model besides parameters and buffers.

        For example, Pop's item counts and MultiVAE's annealing step are plain attributes, and a checkpoint must contain
        them too. Results of the constructor (graphs, ItemKNN's matrix) are excluded, because the constructor computes
        them again. One case is not covered: LINE shuffles an internal array, so a resumed run of LINE samples other
        second-order negatives.

        Returns:
            "path/name" of each attribute -> its value.
        """
        state = {}
        for key, value in _list_plain_attributes(self.module):
            path, _, attribute = key.rpartition("/")
            # An attribute that the constructor did not create is a by-product of the last forward pass.
            if attribute in self._initial_attributes[path] and not _is_unchanged(value, self._initial_state.get(key)):
                data = value[0]
                dtype = torch.float64 if isinstance(data, float) else torch.int64
                state[key] = data.detach().clone() if isinstance(data, Tensor) else torch.tensor(data, dtype=dtype)
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from `collect_extra_state`. The learner must have been built with the same arguments.

        Args:
            state: result of `collect_extra_state`.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        modules = dict(self.module.named_modules())
        for key, value in state.items():
            path, _, attribute = key.rpartition("/")
            owner = modules.get(path)
            if owner is None or attribute not in owner.__dict__:
                raise CheckpointError(
                    f"the checkpoint contains {key!r}, which RecBole's {self.name} does not have; start from scratch "
                    "with --fresh"
                )
            is_number = isinstance(owner.__dict__[attribute], int | float)
            setattr(owner, attribute, value.item() if is_number else value.to(self.device))


def _convert_settings(settings: Mapping[str, Value], seed: int, device: torch.device) -> dict[str, Value]:
    """Convert settings to values of RecBole's configuration, under RecBole's keys."""
    values = {key: value for key, value in settings.items() if key not in _HARNESS_KEYS}
    values |= {recbole_key: settings[key] for key, recbole_key in _RECBOLE_KEYS.items() if key in settings}
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


def _list_caches(module: torch.nn.Module) -> list[str]:
    """List the attributes in which a RecBole model caches vectors during an evaluation."""
    names = getattr(module, "other_parameter_name", [])
    return [name for name in names if name.startswith("restore_") or name == "i_embedding"]  # i_embedding: DMF


def _list_plain_attributes(module: torch.nn.Module) -> Iterator[tuple[str, tuple[Any, int]]]:
    """List numbers and dense tensors that are plain attributes, as ("path/name", (value, version of the tensor))."""
    caches = set(_list_caches(module))
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name.startswith("_") or (path == "" and name in caches) or isinstance(value, bool):
                continue
            if isinstance(value, int | float):
                yield f"{path}/{name}", (value, 0)
            elif isinstance(value, Tensor) and value.layout == torch.strided and not value.requires_grad:
                yield f"{path}/{name}", (value, value._version)


def _is_unchanged(current: tuple[Any, int], initial: tuple[Any, int] | None) -> bool:
    """Return whether a value is the same number, or the same tensor without any write to it.

    Args:
        current: current value and its version. Torch increases the version of a tensor at each write.
        initial: initial value and its version; None if there was no value.
    """
    if initial is None:
        return False
    if isinstance(current[0], Tensor):
        return current[0] is initial[0] and current[1] == initial[1]
    return bool(current[0] == initial[0])


def find_recbole_module(name: str) -> str:
    """Return the name of the RecBole module that defines a model."""
    return f"recbole.model.{list_models_by_folder()[name]}.{name.lower()}"


def _find_recbole_folder() -> Path:
    """Find the folder of the installed RecBole package.

    Raises:
        MissingDependency: RecBole is not installed, or its version is not supported.
    """
    require_recbole()
    spec = importlib.util.find_spec("recbole")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def list_models_by_folder() -> dict[str, str]:
    """Map each RecBole model to its folder in recbole/model. File `x.py` defines the class with lower-case name x."""
    found: dict[str, str] = {}
    for folder in _REASON_BY_FOLDER:
        for file in (_find_recbole_folder() / "model" / folder).glob("*.py"):
            for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
                if name.lower() == file.stem:
                    found[name] = folder
    return found
