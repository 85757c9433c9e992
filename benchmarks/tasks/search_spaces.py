"""Read the search spaces of tune.py: the values to try, from the settings files and the command line."""

from __future__ import annotations

from collections.abc import Sequence

from hellm_recbole.benchmarks.options.values import parse_names
from hellm_recbole.config.search_space import list_searched_keys
from hellm_recbole.config.yaml_files import find_properties, parse_value
from hellm_recbole.errors import SettingsError

Changed = tuple[str | None, str, list[object]]  # model or None for all models, setting, values to try


def list_tunable_models() -> tuple[str, ...]:
    """List the models that have a search space."""
    return tuple(path.stem for path in sorted((find_properties() / "sweep").glob("*.yaml")))


def parse_spaces(texts: Sequence[str], models: Sequence[str]) -> list[Changed]:
    """Parse the values of `--space`.

    Args:
        texts: values of the option.
        models: models of the search.

    Raises:
        SettingsError: a value has another form than `[MODEL.]KEY=[A,B]`, or its model is not searched.
    """
    changed = [parse_space(text) for text in texts]
    for owner, key, _ in changed:
        if owner is not None and owner not in models:
            raise SettingsError(f"--space {owner}.{key}: {owner} is not among the models of this search")
    return changed


def parse_space(text: str) -> Changed:
    """Parse `[MODEL.]KEY=[A,B]` into model, key and values. The model is None if the text names none.

    Raises:
        SettingsError: the text has another form.
    """
    key, equals, value = text.partition("=")
    parsed = parse_value(value, f"--space {text}") if equals else None
    if not isinstance(parsed, list):
        raise SettingsError(f"--space {text} is not understood; write --space KEY=[A,B] or --space MODEL.KEY=[A,B]")
    model, dot, bare = key.rpartition(".")
    return (model if dot else None), bare, parsed


def override_space(base: str, model: str, changed: Sequence[Changed], only: str | None) -> dict[str, list[object]]:
    """Return the values that replace those in the model's search space. An empty list excludes a setting.

    Args:
        base: name of the model without its variant.
        model: name of the model.
        changed: model or None, key and values of each `--space`.
        only: value of `--only`.

    Raises:
        SettingsError: `--only` names a setting that has no values to try.
    """
    values = {key: listed for owner, key, listed in changed if owner in (None, model)}
    if only is None:
        return values
    searched, known = parse_names(only, "--only"), {*list_searched_keys(base), *values}
    for key in searched:
        if key not in known:
            raise SettingsError(
                f"--only names {key}, but {model} has no values to try for it; add values with --space {key}=[A,B]"
            )
    return {key: [] for key in known if key not in searched} | {key: values[key] for key in searched if key in values}
