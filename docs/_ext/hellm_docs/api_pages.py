"""The reference of the Python API: the names that users and authors of plug-ins import, through Sphinx's autodoc."""

from __future__ import annotations

import hellm_recbole.api
from hellm_recbole import errors

# Section -> what it is for, and the objects. Functions and classes of the API come first, as `hellm_recbole.api` lists
# them.
PLUGIN_CLASSES = {
    "Models": (
        "A model is described by a `ModelSpec`, has a settings class derived from `Settings`, and gets a `TrainData`.",
        (
            "hellm_recbole.models.base.ModelSpec",
            "hellm_recbole.models.base.FittedModel",
            "hellm_recbole.config.settings.Settings",
            "hellm_recbole.types.Recommender",
            "hellm_recbole.types.TrainData",
            "hellm_recbole.types.Histories",
            "hellm_recbole.types.PairBatch",
            "hellm_recbole.types.HistoryBatch",
            "hellm_recbole.types.QueryBatch",
            "hellm_recbole.types.Encoded",
        ),
    ),
    "Callbacks": (
        "`--callbacks NAME` makes one object of the class for each run.",
        (
            "hellm_recbole.plugins.callbacks.Callback",
            "hellm_recbole.plugins.callbacks.RunInfo",
            "hellm_recbole.plugins.callbacks.RunEnd",
        ),
    ),
    "Metrics": (
        "A metric is a function of the ranks of the targets and of K.",
        ("hellm_recbole.plugins.metrics.TargetRanks",),
    ),
    "Splits": (
        "A split is a function from all interactions to the part of each.",
        ("hellm_recbole.plugins.splits.Interactions",),
    ),
}
RECORDS = (
    "hellm_recbole.serving.results.Run",
    "hellm_recbole.experiments.results.RunResult",
)


def write_api_page() -> str:
    """Write the page of the Python API."""
    functions, classes = _split_names(hellm_recbole.api.__all__)
    sections = [
        "# Python API",
        "These names can be imported from `hellm_recbole`. [From Python](../python.md) shows them in use.",
        "## Functions",
        *(_write_object("autofunction", f"hellm_recbole.api.{name}") for name in functions),
        "## What they return",
        *(_write_object("autoclass", f"hellm_recbole.{name}", module="hellm_recbole.api") for name in classes),
        *(_write_object("autoclass", name) for name in RECORDS),
        "# Plug-in points",
        "[Extending](../extending.md) shows how a package adds its objects.",
    ]
    for title, (sentence, names) in PLUGIN_CLASSES.items():
        sections += [f"## {title}", sentence, *(_write_object("autoclass", name) for name in names)]
    sections += [
        "# Errors",
        "Every error that a user can fix is one of these. Its message says what happened, where, and what to do.",
        *(_write_object("autoexception", f"hellm_recbole.errors.{name}") for name in list_errors()),
    ]
    return "\n\n".join(sections) + "\n"


def list_errors() -> list[str]:
    """List the classes of errors, the common base first."""
    found = [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.HellmError)
    ]
    return sorted(found, key=lambda name: (name != errors.HellmError.__name__, name))


def _split_names(names: list[str]) -> tuple[list[str], list[str]]:
    """Split the names of the API into functions, in the order of the module, and classes."""
    classes = [name for name in names if isinstance(getattr(hellm_recbole.api, name), type)]
    functions = [name for name in vars(hellm_recbole.api) if name in names and name not in classes]
    return functions, classes


def _write_object(directive: str, name: str, module: str = "") -> str:
    """Write the directive that documents an object; `module` is the one that really has it."""
    name = f"{module}.{name.rpartition('.')[2]}" if module else name
    members = "\n:members:" if directive == "autoclass" else ""
    return f"```{{eval-rst}}\n.. {directive}:: {name}{members.replace(chr(10), chr(10) + '   ')}\n```"
