"""Moving average of a model's weights over the training steps, evaluated in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hellm_recbole.errors import CheckpointError


class WeightAverage:
    """Exponential moving average of the trained parameters of a model.

    The average starts from the initial weights. After step t = 0, 1, ... with the new weights w it becomes
    `d * average + (1 - d) * w`, where `d = min(decay, (1 + t) / (10 + t))`, so that the initial weights are soon
    forgotten. The formula is that of `tf.train.ExponentialMovingAverage` with `num_updates`. Averages of the iterates
    are due to Polyak and Juditsky (1992). Buffers are not averaged.

    An average is one more copy of the trained parameters in memory and in checkpoints of the last epoch: 256 MB for a
    million rows of 64 numbers in single precision, beside 1 GB of weights, gradients and Adam's moments. Each step
    reads and writes all rows of a table, as Adam does. Frozen parameters, such as those of a language model, cost
    nothing.

    The average is empty before `restart` and after `clear`, and then stands for the weights of the model.

    Args:
        module: model; its trained parameters stay the same objects.
        decay: largest decay, above 0 and below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._averages: dict[str, Tensor] = {}

    def restart(self) -> None:
        """Start from the current weights of the model."""
        self._averages = {name: value.detach().clone() for name, value in self._parameters.items()}

    def clear(self) -> None:
        """Make the average empty, because the weights of the model are averages themselves, or final."""
        self._averages = {}

    def update(self, step: int) -> None:
        """Add the weights after a training step.

        Args:
            step: number of the step since the start of training, from 0.
        """
        add = get_ema_multi_avg_fn(compute_decay(self._decay, step))
        add(list(self._averages.values()), list(self._parameters.values()), step)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Give the model its averaged weights for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the weights of the model with their averages, without copying."""
        for name, average in self._averages.items():
            parameter = self._parameters[name]
            self._averages[name], parameter.data = parameter.data, average

    def collect_state(self) -> dict[str, Tensor]:
        """Return the averages by the names of their parameters; nothing if the average is empty."""
        return dict(self._averages)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load averages from `collect_state`.

        Raises:
            CheckpointError: the averages belong to another model.
        """
        shapes = {name: value.shape for name, value in self._parameters.items()}
        if {name: value.shape for name, value in state.items()} != shapes:
            raise CheckpointError(
                "the averaged weights of the checkpoint do not fit the model; run with --fresh to train from scratch"
            )
        self._averages = {
            name: state[name].to(parameter.device, parameter.dtype, copy=True)
            for name, parameter in self._parameters.items()
        }


def compute_decay(largest: float, step: int) -> float:
    """Compute the decay of a moving average in a training step.

    >>> compute_decay(0.998, 0), compute_decay(0.998, 90), compute_decay(0.998, 10**6)
    (0.1, 0.91, 0.998)

    Args:
        largest: largest decay.
        step: number of the step, from 0.
    """
    return min(largest, (1 + step) / (10 + step))


@contextmanager
def use_average(average: WeightAverage | None) -> Iterator[None]:
    """Give a model its averaged weights for a while; without an average, it keeps its own."""
    if average is None:
        yield
    else:
        with average.use():
            yield
