"""Choose where texts and pictures are encoded: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hellm_recbole.data.encoding_blocks import HERE, Encoding
from hellm_recbole.data.features import FeatureSettings


@contextmanager
def choose_place(address: str | None, encoding: FeatureSettings) -> Iterator[Encoding]:
    """Yield where texts and pictures are encoded. A cluster is left at the end of the block.

    Args:
        address: address of the Ray cluster, see `connect_cluster`; None encodes in this process.
        encoding: settings of the encoders and of the actors.

    Raises:
        HellmError: there is no cluster at the address.
        SettingsError: the device is a GPU with a number.
    """
    if address is None:
        yield HERE
        return
    # Imported here, because they load torch, and most commands encode nothing.
    from hellm_recbole.experiments.ray_cluster import connect_cluster
    from hellm_recbole.experiments.ray_encoding import encode_on_ray

    where = encode_on_ray(encoding)
    with connect_cluster(address, None):
        yield where
