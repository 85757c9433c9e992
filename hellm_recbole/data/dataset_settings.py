"""The settings of the preparation of a dataset."""

from __future__ import annotations

from pydantic import Field, field_validator

from hellm_recbole.config.settings import Settings
from hellm_recbole.data.importers.sources import KINDS


class DatasetSettings(Settings):
    """Settings of the preparation of a dataset.

    Attributes:
        kind: kind of source.
        k_core: k of the filter on users and items before the split; 0 means no filter.
        text: columns that an item's text is made from; an entry `a|b` stands for the first one that is not empty.
        paper: column of the HeLLM paper's Table 1 that shows the dataset.
        origin: description of the place where the source files are published.
        category: Amazon's name of the category, for kinds that have categories.
        columns: entries `field=column` for the columns of a table that do not have their usual name.
        pictures: whether to encode the items' pictures; those that have only addresses are fetched.
        image_dir: folder of own pictures, named by the items' ids; None: those that the source names.
        split_sha256: hash of the split that this preparation gave before; None if none is stored.
        split_sha256_without_users: hash of the same split without the users' ids; see `data/split_check.py`.
    """

    kind: str
    k_core: int = Field(ge=0)
    text: tuple[str, ...]
    paper: str | None
    origin: str | None
    category: str | None
    columns: tuple[str, ...]
    pictures: bool
    image_dir: str | None
    split_sha256: str | None
    split_sha256_without_users: str | None

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        """Refuse a kind of source that has no importer."""
        if kind not in KINDS:
            raise ValueError(f"must be one of {', '.join(KINDS)}")
        return kind
