"""Licences of what is pushed, and which data may be passed on, from `properties/hub.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import Settings, build_settings
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

T = TypeVar("T", bound=Settings)
_FILE = "hub.yaml"
_TIES = re.compile(r"-ties\d+$")  # end of the name of a variant with shuffled ties
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class Terms(Settings):
    """The terms of a language model.

    Attributes:
        begins: beginning of its id on the hub.
        licence: id of the licence of what is made from it, as the hub writes it.
        name: name of the family of models.
        terms: address of its terms.
    """

    begins: str
    licence: str
    name: str
    terms: str


class DataTerms(Settings):
    """The terms of data.

    Attributes:
        redistribute: whether others may get the data from us.
        licence: id of the licence, as the hub writes it; None if there is none.
        terms: what their owners state, and where.
    """

    redistribute: bool
    licence: str | None
    terms: str


def find_language_model_terms(hub_id: str | None) -> Terms | None:
    """Find the terms of a language model by its id on the hub; None if they are not listed.

    >>> terms = find_language_model_terms("google/gemma-3-270m")
    >>> terms.licence, find_language_model_terms("org/unknown")
    ('gemma', None)
    """
    listed = (_build(Terms, entry) for entry in _read()["language_models"])
    return next((terms for terms in listed if hub_id is not None and hub_id.startswith(terms.begins)), None)


def choose_licence(given: str | None, hub_ids: tuple[str | None, ...]) -> str:
    """Choose the licence of the weights of a run.

    Args:
        given: what the user names; it wins.
        hub_ids: id of each language model that was adapted, None for one without; empty if there is no language model.

    Raises:
        SettingsError: the given one cannot be the id of a licence.

    >>> choose_licence(None, ()), choose_licence(None, ("google/gemma-3-270m",)), choose_licence("mit", (None,))
    ('apache-2.0', 'gemma', 'mit')
    """
    if given is not None:
        return check_licence(given)
    values = _read()
    found = {terms.licence if (terms := find_language_model_terms(one)) else values["unknown"] for one in hub_ids}
    if not found:
        return str(values["licence"])
    return str(found.pop() if len(found) == 1 else values["unknown"])


def check_licence(text: str) -> str:
    """Check a licence that a user names.

    Raises:
        SettingsError: it cannot be the id of a licence.
    """
    if not _LICENCE.fullmatch(text):
        raise SettingsError(
            f"--licence {text!r} is not the id of a licence; the hub lists them at "
            "https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0, mit or cc-by-nc-4.0"
        )
    return text


def find_data_terms(dataset: str, kind: str | None) -> DataTerms | None:
    """Find the terms of a dataset; None if it is the user's own.

    Args:
        dataset: name of the prepared dataset.
        kind: kind of its source; None if it is not known.

    >>> find_data_terms("Beauty-ties1", None).redistribute, find_data_terms("shop", "table")
    (False, None)
    """
    values = _read()
    name = values["datasets"].get(_TIES.sub("", dataset)) or values["kinds"].get(kind)
    return None if name is None else _build(DataTerms, values["data"][name])


def _read() -> Mapping[str, Value]:
    """Read the file of the licences."""
    return load_yaml(find_properties() / _FILE)


def _build(cls: type[T], entry: Mapping[str, Value]) -> T:
    """Build checked values of one entry of the file."""
    return build_settings(cls, Resolved(dict(entry), dict.fromkeys(entry, _FILE)))
