"""Settings of training, evaluation, logging and the cluster, which all models have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.limits import LARGEST_CUTOFF, LARGEST_FLOAT, MOST_EPOCHS
from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import SettingsError


class TrainSettings(Settings):
    """Training and model selection, the same for all models.

    Attributes:
        epochs: largest number of epochs.
        patience: number of evaluations without a better validation metric after which training stops.
        eval_every: number of epochs between two evaluations on the validation part.
        valid_metric: metric that selects the best epoch, such as N@20.
        batch_size: number of users, pairs or sequences in a step. `auto` multiplies the number of the model's settings
            file by a whole number that grows with the training interactions.
        optimizer: adam or adamw.
        learning_rate: learning rate of the optimizer.
        weight_decay: weight decay of the optimizer (L2 gradient for adam, decoupled for adamw).
        decay_vectors: whether weight decay applies to all parameters. If not, parameters with at most one dimension
            (biases, gains of normalisations) and those that the model lists itself, such as positions, have none.
        clip_norm: largest gradient norm; 0 turns clipping off.
        schedule: learning rate schedule: constant, linear or cosine (to `learning_rate_floor` over `epochs`; linear
            changes the rate in each step) or exponential (`decay_rate ** (epoch / decay_epochs)`).
        learning_rate_floor: learning rate at the end of the linear and the cosine schedule, as a fraction of
            `learning_rate`.
        decay_rate: decay rate of the exponential schedule.
        decay_epochs: number of epochs in which the exponential schedule multiplies the learning rate by `decay_rate`.
        warmup_epochs: number of epochs of linear warm-up at the start.
        warmup_steps: number of steps of linear warm-up from 0, in place of `warmup_epochs`; the rate then changes in
            each step. 0 turns it off.
        average_decay: largest decay of the moving average of the weights, for each step. The averaged weights are
            evaluated, selected and saved. 0 turns the average off.
    """

    epochs: int = Field(ge=1, le=MOST_EPOCHS)
    patience: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    valid_metric: str
    batch_size: int = Field(ge=1)
    optimizer: Literal["adam", "adamw"]
    learning_rate: float = Field(gt=0, le=LARGEST_FLOAT)
    weight_decay: float = Field(ge=0, le=LARGEST_FLOAT)
    decay_vectors: bool
    clip_norm: float = Field(ge=0, le=LARGEST_FLOAT)
    schedule: Literal["constant", "linear", "cosine", "exponential"]
    learning_rate_floor: float = Field(ge=0, le=1)
    decay_rate: float = Field(gt=0, le=1)
    decay_epochs: int = Field(ge=1, le=MOST_EPOCHS)
    warmup_epochs: int = Field(ge=0, le=MOST_EPOCHS)
    warmup_steps: int = Field(ge=0)
    average_decay: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _check_warmup(self) -> TrainSettings:
        """Refuse two lengths of the warm-up."""
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs} and warmup_steps = {self.warmup_steps} are two lengths of the "
                "same warm-up; set one of them to 0"
            )
        return self


class OnePassSettings(Settings):
    """Model selection of a model that is fitted when it is built. It has no settings of training.

    The constants are what the training loop reads for a single pass.

    Attributes:
        valid_metric: metric on the validation part, such as N@20; searches compare trials by it.
    """

    valid_metric: str
    epochs: ClassVar[int] = 1
    patience: ClassVar[int] = 1
    eval_every: ClassVar[int] = 1


class PairSettings(Settings):
    """Sampling of training pairs, for models that train on pairs.

    Attributes:
        sampling: interactions (each once in an epoch) or users (sampled uniformly, then one of the user's items).
    """

    sampling: Literal["interactions", "users"]


class StepSettings(Settings):
    """Training steps of an LLM run, in addition to `TrainSettings`.

    Attributes:
        micro_batch_size: number of sequences in a forward pass. Gradients are summed over the whole batch, so it
            changes results only by rounding and dropout. It is halved when memory runs out.
        adam_beta2: decay rate of the optimizer's second moment.
        examples_per_user: number of history prefixes sampled for each user in an epoch, if examples are random.
        example_items: number of most recent training items of a user of which prefixes are made, if each is an example
            of its own; None makes one for each of the last `max_history` items, with all that it follows.
        drop_last: whether a last batch of an epoch that is not full is left out.
    """

    micro_batch_size: int = Field(ge=1)
    adam_beta2: float = Field(gt=0, lt=1)
    examples_per_user: int = Field(ge=1)
    example_items: int | None = Field(ge=2)
    drop_last: bool


class EvalSettings(Settings):
    """Evaluation, the same for all models.

    Attributes:
        cutoffs: values of K in Recall@K and NDCG@K.
        eval_block_users: number of users scored at a time.
        eval_product: bfloat16 screens scores that are a product of vectors, on a CPU, and computes in float32 only what
            is near a target; the ranks are the same. Elsewhere it changes nothing.
        valid_users: number of users in the fixed random sample that validation evaluates, or all. The test part is
            always evaluated as a whole.
        valid_users_seed: random seed of the sample, the same for all models and seeds of runs.
    """

    cutoffs: tuple[Annotated[int, Field(ge=1, le=LARGEST_CUTOFF)], ...]
    eval_block_users: int = Field(ge=1)
    eval_product: Literal["float32", "bfloat16"]
    valid_users: Annotated[int, Field(ge=1)] | Literal["all"]
    valid_users_seed: int = Field(ge=0)


LoggerName = Literal[
    "tensorboard", "wandb", "mlflow", "aim", "clearml", "comet_ml", "dvclive", "swanlab", "trackio"
]  # names of their modules


class LogSettings(Settings):
    """Trackers of runs and of trials of searches.

    Attributes:
        loggers: trackers to use, any of tensorboard, wandb, mlflow, aim, clearml, comet_ml, dvclive, swanlab, trackio.
    """

    loggers: tuple[LoggerName, ...]


class ClusterSettings(Settings):
    """Resources of a run or a trial on a Ray cluster.

    Attributes:
        ray_cpus: number of CPUs, which is also the number of threads.
        ray_gpus: number of GPUs, possibly a fraction of one. Used only if the cluster has GPUs.
    """

    ray_cpus: float = Field(gt=0, le=1e4)
    ray_gpus: float = Field(ge=0, le=1e4)


NEUTRAL_KEYS = frozenset(
    {"loggers", "eval_block_users", "eval_product", "ray_cpus", "ray_gpus"}
)  # settings that change no result
HARNESS_SETTINGS: tuple[type[Settings], ...] = (TrainSettings, EvalSettings, LogSettings, ClusterSettings)


def refuse_unknown_metric(valid_metric: str, cutoffs: Sequence[int], resolved: Resolved) -> None:
    """Refuse a validation metric that is not computed with the given cut-offs.

    Args:
        valid_metric: metric that selects the best epoch.
        cutoffs: cut-offs K.
        resolved: values of all settings with their origins.

    Raises:
        SettingsError: the metric is not computed; the message lists those that are.
    """
    metrics = [f"{kind}@{k}" for k in cutoffs for kind in ("R", "N")]
    if valid_metric not in metrics:
        raise SettingsError(
            f"{resolved.origin['valid_metric']}: valid_metric is {valid_metric!r}; "
            f"with the given cutoffs ({resolved.origin['cutoffs']}) it can be {', '.join(metrics)}"
        )
