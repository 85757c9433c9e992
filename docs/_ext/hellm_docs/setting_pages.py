"""The reference of settings: those that all runs have, those of language models, and all other settings files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hellm_docs.markdown import escape_prose
from hellm_docs.method_pages import write_settings_table
from hellm_docs.yaml_comments import read_comments
from hellm_recbole.config.layers import OVERRIDES
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.experiments.settings_help import SettingDescription, describe_model_settings
from hellm_recbole.models.base import ModelSpec

# File of settings that many models share -> a model that has all of them, and the title of their section.
SHARED = {
    "overall.yaml": ("SASRec", "Settings of all models"),
    "llm.yaml": ("HeLLM", "Settings of models with a language model"),
}
INTRODUCTION = """\
Every value that can change a number is in a file of `properties/`, with its unit and its source. The pages of the
[models](../models.md) have the settings of each model. `--set KEY=VALUE` changes a value for all models of a command,
`--set MODEL.KEY=VALUE` for one."""
FOLDERS = {
    "preset": "Presets",
    "dataset": "Known datasets",
    "llm": "Known language models",
    "study": "Studies of the paper",
}


def write_settings_page(registry: Mapping[str, ModelSpec]) -> str:
    """Write the page of all settings that do not belong to one model."""
    properties = find_properties()
    sections = ["# Settings", INTRODUCTION]
    sections += [_write_shared(properties / file, *entry, registry) for file, entry in SHARED.items()]
    sections += [_write_files(properties / folder, f"## {title}") for folder, title in FOLDERS.items()]
    others = sorted(path for path in properties.glob("*.yaml") if path.name not in SHARED)
    sections += ["## Other files", *(_write_file(path) for path in others)]
    return "\n\n".join(sections) + "\n"


def _write_shared(path: Path, model: str, title: str, registry: Mapping[str, ModelSpec]) -> str:
    """Write the settings of a file in tables, one for each heading among the file's comments."""
    comments = read_comments(path.read_text(encoding="utf-8"))
    described = {setting.key: setting for setting in describe_model_settings(model, "", registry, "paper", [])}
    groups: list[tuple[str, list[SettingDescription]]] = [("", [])]
    for key in _list_keys(path):
        if key in described and described[key].source.startswith(path.name):
            if key in comments.headings:
                groups.append((comments.headings[key], []))
            groups[-1][1].append(described[key])
    tables = [
        (f"### {escape_prose(heading)}\n\n" if heading else "") + write_settings_table(settings)
        for heading, settings in groups
        if settings
    ]
    return "\n\n".join([f"## {title}", escape_prose(comments.header), *tables])


def _list_keys(path: Path) -> list[str]:
    """List the keys of a file in its order, those of its section `overrides` last."""
    values = load_yaml(path)
    overrides = values.pop(OVERRIDES, None) or {}
    return [*values, *overrides]


def _write_files(folder: Path, heading: str) -> str:
    """Write all files of a folder, folded."""
    return "\n\n".join([heading, *(_write_file(path) for path in sorted(folder.glob("*.yaml")))])


def _write_file(path: Path) -> str:
    """Write one file, folded."""
    name = path.relative_to(find_properties().parent).as_posix()
    return f":::{{dropdown}} `{name}`\n```{{literalinclude}} /../{name}\n:language: yaml\n```\n:::"
