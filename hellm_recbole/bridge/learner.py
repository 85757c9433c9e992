"""Any general or sequential model of RecBole as a row of our harness: our split, ids, candidates and masking.

RecBole contributes the model, its dataset class, its samplers and training loader, its optimizer and its loss; the
harness hands in the training interactions and asks for scores. recbole is imported when a row is made, not before.
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
from hellm_recbole.config.layers import EvalSettings, TrainSettings, Value, load_yaml
from hellm_recbole.errors import CheckpointError, ModelError, SettingsError, TrainingDiverged, advise_on_divergence
from hellm_recbole.types import Histories, IdArray, TrainData, as_ids, pad_recent

Kind = Literal["general", "sequential", "traditional"]
OnStep = Callable[[int, int, dict[str, float]], None]

# Folder of recbole/model -> why its models cannot be rows; None where they can.
_FOLDERS: dict[str, str | None] = {
    "general_recommender": None,
    "sequential_recommender": None,
    "knowledge_aware_recommender": "needs a knowledge graph",
    "context_aware_recommender": "needs user and item attributes and explicit labels",
    "exlib_recommender": "needs user and item attributes and explicit labels",
}
_READS_ATTRIBUTES = {"DIEN", "DIN", "FDSA", "GRU4RecF", "GRU4RecKG", "KSR", "S3Rec", "SASRecF"}

# Our training setting -> RecBole's. Settings of ours that are not here are the harness's own business.
_TRAINING = {
    "batch_size": "train_batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "optimizer": "learner",
    "epochs": "epochs",
}
_MODEL_TRAINING = ("batch_size", "learning_rate", "weight_decay")  # set by model, not for all models together
_OURS = {*TrainSettings.__dataclass_fields__, *EvalSettings.__dataclass_fields__}

PAIRS_AT_ONCE = 1 << 18  # user-item pairs a call of `predict`, for models without full ranking


def list_recbole_models() -> list[str]:
    """Names of RecBole's general and sequential models, read from its files without importing it."""
    return sorted(name for name, folder in list_models_by_folder().items() if _FOLDERS[folder] is None)


def find_recbole_kind(name: str) -> Kind | None:
    """How a RecBole model trains; None if RecBole has no model of that name.

    Raises:
        ModelError: RecBole has it, but it cannot be a row; the sentence says why.
        MissingDependency: RecBole is not installed.
    """
    if name not in list_models_by_folder():
        return None
    why = _FOLDERS[list_models_by_folder()[name]]
    if why is None and name in _READS_ATTRIBUTES:
        why = "reads user or item attributes"
    if why is not None:
        raise ModelError(f"RecBole's {name} {why}, which a row does not have; choose another model of RecBole")
    from recbole.trainer import Trainer
    from recbole.utils import ModelType, get_model, get_trainer

    kind = get_model(name).type
    trainer = get_trainer(kind, name)
    if trainer.fit is not Trainer.fit or trainer._train_epoch is not Trainer._train_epoch:
        raise ModelError(
            f"RecBole's {name} is trained by a procedure of its own ({trainer.__name__}), which a row cannot follow; "
            "run it with recbole.quick_start.run_recbole"
        )
    if kind == ModelType.TRADITIONAL:
        return "traditional"
    return "sequential" if kind == ModelType.SEQUENTIAL else "general"


def read_recbole_settings(name: str) -> dict[str, Value]:
    """RecBole's own defaults of a model: its settings file, and of the shared ones those a row uses.

    Batch size, learning rate and weight decay have our names. No other key than the ones returned is known.

    Raises:
        ModelError: RecBole has no such model, or it cannot be a row.
        MissingDependency: RecBole is not installed.
    """
    kind = find_recbole_kind(name)
    if kind is None:
        raise ModelError(f"RecBole has no model {name!r}")
    properties = _recbole_folder() / "properties"
    own_file = properties / "model" / f"{name}.yaml"
    own = load_yaml(own_file) if own_file.is_file() else {}
    shared = load_yaml(properties / "overall.yaml")
    values = {ours: own.get(_TRAINING[ours], shared[_TRAINING[ours]]) for ours in _MODEL_TRAINING}
    values["train_neg_sample_args"] = shared["train_neg_sample_args"]
    # A traditional model counts what it is shown, so RecBole's default of one sampled negative for each interaction
    # would be counted too; RecBole refuses negatives with cross-entropy.
    if kind == "traditional" or (kind == "sequential" and own.get("loss_type") == "CE"):
        values["train_neg_sample_args"] = None
    if kind == "sequential":
        values["MAX_ITEM_LIST_LENGTH"] = load_yaml(properties / "dataset" / "sample.yaml")["MAX_ITEM_LIST_LENGTH"]
    return values | {key: value for key, value in own.items() if key not in _TRAINING.values()}


class RecBoleLearner:
    """One RecBole model on one dataset; a `types.Scorer`.

    Attributes:
        module: RecBole's model.
        optimizer: as RecBole's trainer builds it; None for traditional models, which have nothing to optimise.
        one_pass: a traditional model: one epoch and done.
    """

    def __init__(
        self, name: str, data: TrainData, settings: Mapping[str, Value], seed: int, device: torch.device
    ) -> None:
        """Build model, training loader and optimizer. Draws from the global random states, which it seeds with `seed`.

        Args:
            name: RecBole's name of the model.
            data: the training interactions; they are all that RecBole gets to see.
            settings: RecBole's keys (`read_recbole_settings`) and ours (`TrainSettings`; `EvalSettings` are ignored).
            seed: of the parameters.
            device: of the model.

        Raises:
            ModelError: the model cannot be a row or needs a package that is not installed.
            SettingsError: RecBole does not accept the settings.
            MissingDependency: RecBole is not installed.
        """
        kind = find_recbole_kind(name)
        if kind is None:
            raise ModelError(f"RecBole has no model {name!r}")
        from hellm_recbole.bridge import dataset as memory

        self.name, self.device = name, device
        self.one_pass = kind == "traditional"
        self._config = memory.MemoryConfig(name, _to_recbole(settings, seed, device), device)
        _seed_everything(seed)
        dataset = memory.make_dataset(self._config, data)
        # The loader first: it writes names into the configuration that models such as BERT4Rec read.
        self._loader = memory.make_loader(self._config, dataset)
        try:
            self.module: torch.nn.Module = memory.model_class(name)(self._config, dataset).to(device)
        except ImportError as error:
            raise ModelError(f"RecBole's {name} needs the package {error.name}; install it with pip") from error
        except (ValueError, TypeError, ArithmeticError, NotImplementedError, AssertionError, RuntimeError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise SettingsError(f"RecBole's {name} cannot be built with these settings: {why}") from error
        self.optimizer = None if self.one_pass else memory.make_optimizer(self._config, self.module)
        if self._config["train_neg_sample_args"].get("dynamic"):
            self._loader.get_model(self.module)
        self._sequential = kind == "sequential"
        self._at_first = dict(_loose_state(self.module))
        self._attributes = {path: set(vars(owner)) for path, owner in self.module.named_modules()}
        self._full_ranking = True

    def train_epoch(self, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        """One epoch, a pure function of parameters, optimizer state, `extra_state()` and `rng_seed`.

        RecBole draws from the global random states of python, numpy and torch; all are seeded here.

        Args:
            epoch: for messages.
            rng_seed: of this epoch.
            on_step: called after each step with its number (from 1), the number of steps and the mean losses so far.

        Returns:
            Mean over the steps of each loss: "loss", or "loss_1", "loss_2", ... where the model has several.

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
            several = isinstance(terms, tuple)
            named = {f"loss_{at}": term for at, term in enumerate(terms, 1)} if several else {"loss": terms}
            losses = {term: float(value.detach().sum()) for term, value in named.items()}
            for term, value in losses.items():
                if not np.isfinite(value):
                    advice = advise_on_divergence(epoch, step, "lower the learning rate")
                    raise TrainingDiverged(f"{self.name}: {term} is {value} in epoch {epoch}, step {step}; {advice}")
                totals[term] = totals.get(term, 0.0) + value
            if self.optimizer is not None:
                self.optimizer.zero_grad()
                sum(named.values()).backward()
                if clip:
                    torch.nn.utils.clip_grad_norm_(self.module.parameters(), **clip)
                self.optimizer.step()
            on_step(step, n_steps, {term: total / step for term, total in totals.items()})
        return {term: total / n_steps for term, total in totals.items()}

    def prepare(self) -> None:
        """Forget what the model kept from an earlier evaluation: its parameters may have changed since."""
        self.module.eval()
        for name in _caches(self.module):
            setattr(self.module, name, None)

    @torch.no_grad()
    def scores(self, user: IdArray, history: Histories) -> Tensor:
        """[B, I] float32; RecBole's padding column is left out.

        Sequential models read the most recent MAX_ITEM_LIST_LENGTH items of `history`, oldest first, padded right. A
        user without any history is given one padding item.
        """
        from recbole.data.interaction import Interaction

        self.module.eval()
        model: Any = self.module
        columns = {self._config["USER_ID_FIELD"]: as_ids(user, self.device)}
        if self._sequential:
            width = self._config["MAX_ITEM_LIST_LENGTH"]
            item_list = self._config["ITEM_ID_FIELD"] + self._config["LIST_SUFFIX"]
            lengths = history.indptr[user + 1] - history.indptr[user]
            padded = np.zeros((len(user), width), dtype=np.int64)
            recent = pad_recent(history.indptr, history.items, user, width)
            padded[:, : recent.shape[1]] = recent
            columns[item_list] = as_ids(padded, self.device)
            columns[self._config["ITEM_LIST_LENGTH_FIELD"]] = as_ids(np.clip(lengths, 1, width), self.device)
        if self._full_ranking:
            try:
                return _without_padding(model.full_sort_predict(Interaction(columns)), len(user))
            except NotImplementedError:
                self._full_ranking = False
        return self._scores_by_pair(columns)

    def _scores_by_pair(self, columns: dict[str, Tensor]) -> Tensor:
        """[B, I] from `predict` on every pair, for models that have no full ranking."""
        from recbole.data.interaction import Interaction

        model: Any = self.module
        item_field = self._config["ITEM_ID_FIELD"]
        items = torch.arange(1, model.n_items, device=self.device)
        n_users = len(next(iter(columns.values())))
        users_at_once = max(PAIRS_AT_ONCE // len(items), 1)
        rows = []
        for start in range(0, n_users, users_at_once):
            part = {name: values[start : start + users_at_once] for name, values in columns.items()}
            count = len(next(iter(part.values())))
            pairs = {name: values.repeat_interleave(len(items), dim=0) for name, values in part.items()}
            pairs[item_field] = items.repeat(count)
            rows.append(model.predict(Interaction(pairs)).view(count, len(items)).float())
        return torch.cat(rows)

    def extra_state(self) -> dict[str, Tensor]:
        """What training has changed in the model besides parameters and buffers.

        Pop's item counts and MultiVAE's annealing step are plain attributes; a checkpoint must hold them too. What the
        constructor computes (graphs, ItemKNN's matrix) is left out: the same row computes it again. One model keeps
        more: LINE shuffles an array of its own, so a resumed run of it draws other second-order negatives.
        """
        state = {}
        for key, value in _loose_state(self.module):
            path, _, attribute = key.rpartition("/")
            # An attribute that the constructor did not make is a by-product of the last forward pass.
            if attribute in self._attributes[path] and not _unchanged(value, self._at_first.get(key)):
                held = value[0]
                dtype = torch.float64 if isinstance(held, float) else torch.int64
                state[key] = held.detach().clone() if isinstance(held, Tensor) else torch.tensor(held, dtype=dtype)
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `extra_state` returned, on a row made with the same arguments.

        Raises:
            CheckpointError: it belongs to another model.
        """
        modules = dict(self.module.named_modules())
        for key, value in state.items():
            path, _, attribute = key.rpartition("/")
            owner = modules.get(path)
            if owner is None or attribute not in owner.__dict__:
                raise CheckpointError(
                    f"the checkpoint holds {key!r}, which RecBole's {self.name} does not have; start again with --fresh"
                )
            number = isinstance(owner.__dict__[attribute], int | float)
            setattr(owner, attribute, value.item() if number else value.to(self.device))


def _to_recbole(settings: Mapping[str, Value], seed: int, device: torch.device) -> dict[str, Value]:
    """Values for RecBole's configuration, under its keys."""
    values = {key: value for key, value in settings.items() if key not in _OURS}
    values |= {theirs: settings[ours] for ours, theirs in _TRAINING.items() if ours in settings}
    if settings.get("clip_norm"):
        values["clip_grad_norm"] = {"max_norm": settings["clip_norm"]}
    return values | {"seed": seed, "use_gpu": device.type == "cuda", "show_progress": False}


def _without_padding(scores: Tensor, n_users: int) -> Tensor:
    """[B, I] float32 of RecBole's flat or [B, I + 1] scores."""
    return scores.view(n_users, -1)[:, 1:].float()


def _seed_everything(seed: int) -> None:
    """Seed all global random states, for RecBole draws from each of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 -- RecBole's samplers use numpy's global state
    torch.manual_seed(seed)


def _caches(module: torch.nn.Module) -> list[str]:
    """Attributes in which a RecBole model keeps vectors between calls of an evaluation."""
    names = getattr(module, "other_parameter_name", [])
    return [name for name in names if name.startswith("restore_") or name == "i_embedding"]  # the latter: DMF


def _loose_state(module: torch.nn.Module) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Numbers and dense tensors that are plain attributes: ("path/name", (value, version of the tensor))."""
    caches = set(_caches(module))
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name.startswith("_") or (path == "" and name in caches) or isinstance(value, bool):
                continue
            if isinstance(value, int | float):
                yield f"{path}/{name}", (value, 0)
            elif isinstance(value, Tensor) and value.layout == torch.strided and not value.requires_grad:
                yield f"{path}/{name}", (value, value._version)


def _unchanged(now: tuple[Any, int], before: tuple[Any, int] | None) -> bool:
    """The same number, or the same tensor that nobody has written to (torch counts the writes)."""
    if before is None:
        return False
    if isinstance(now[0], Tensor):
        return now[0] is before[0] and now[1] == before[1]
    return bool(now[0] == before[0])


def find_recbole_module(name: str) -> str:
    """The module of RecBole that defines a model."""
    return f"recbole.model.{list_models_by_folder()[name]}.{name.lower()}"


def _recbole_folder() -> Path:
    """Folder of the installed package.

    Raises:
        MissingDependency: RecBole is absent or of another series.
    """
    require_recbole()
    spec = importlib.util.find_spec("recbole")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def list_models_by_folder() -> dict[str, str]:
    """Model name -> folder of recbole/model; a file `x.py` holds the class whose name is x in lower case."""
    found: dict[str, str] = {}
    for folder in _FOLDERS:
        for file in (_recbole_folder() / "model" / folder).glob("*.py"):
            for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
                if name.lower() == file.stem:
                    found[name] = folder
    return found
