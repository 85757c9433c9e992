"""One page for each registered model, made from its module, its settings file and the published runs.

Nothing on these pages is typed twice: equations and deviations are the module's docstring, meanings of settings are
the `Attributes` of the settings classes, units and sources are the comments of `properties/model/<Name>.yaml`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from hellm_docs.docstrings import read_model_text
from hellm_docs.markdown import escape_prose, link_modules, list_named_modules, write_block, write_code, write_table
from hellm_docs.published_runs import PublishedDataset, format_mean
from hellm_docs.yaml_comments import read_comments
from hellm_recbole.config.layers import DATASETS, VARIANTS
from hellm_recbole.config.properties_files import find_file
from hellm_recbole.config.variants import list_variants
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.experiments.settings_help import SettingDescription, describe_model_settings
from hellm_recbole.models.base import BatchKind, Family, ModelSpec

GROUPS: dict[Family, str] = {
    "collaborative": "Identifiers only",
    "multimodal": "With item features",
    "sequential": "Sequences",
    "llm": "With a language model",
}
TRAINED_ON: dict[BatchKind, str] = {
    "pairs": "pairs of a user's item and another item",
    "sequences": "sequences, each position has a target",
    "prefixes": "prefixes of sequences, each has one target",
    "none": "nothing: it is fitted in one pass",
}
# Packages in which a docstring may name the parts of a model.
PART_PACKAGES = ("hellm_recbole.models", "hellm_recbole.llm", "hellm_recbole.graphs")
METRICS = ("R@10", "N@10", "R@20", "N@20")
SHARED_FILES = ("overall.yaml",)  # their settings are on the page of settings


def write_method_pages(
    registry: Mapping[str, ModelSpec], published: Sequence[PublishedDataset], root: Path
) -> dict[str, str]:
    """Write the page of each model, the pages of the parts that their docstrings name, and the order of the pages.

    Args:
        registry: name -> entry of each of our models.
        published: published runs.
        root: root of the repository.

    Returns:
        File in the folder of these pages -> text.
    """
    parts = find_parts(registry)
    of_modules = {_get_stem(spec): f"{name}.md" for name, spec in reversed([*registry.items()])}
    links = of_modules | {stem: f"parts-{stem}.md" for stem in parts}
    pages = {
        f"{name}.md": _write_method_page(name, registry, published, root, _leave_out(links, f"{name}.md"))
        for name in registry
    }
    pages |= {
        f"parts-{stem}.md": _write_part_page(module, root, _leave_out(links, f"parts-{stem}.md"))
        for stem, module in parts.items()
    }
    order = [name for family in GROUPS for name, spec in registry.items() if spec.family == family]
    pages["order.txt"] = "\n".join([*order, *(f"parts-{stem}" for stem in parts)])
    return pages


def write_overview(registry: Mapping[str, ModelSpec]) -> str:
    """Write the table of all models by group, with links from a page in the folder above."""
    written = []
    for family, title in GROUPS.items():
        rows = [
            (f"[{name}](methods/{name}.md)", escape_prose(read_model_text(_get_docstring(spec)).summary))
            for name, spec in registry.items()
            if spec.family == family
        ]
        written.append(f"## {title}\n\n{write_table(['model', 'what it is'], rows)}")
    return "\n\n".join(written)


def find_parts(registry: Mapping[str, ModelSpec]) -> dict[str, str]:
    """Find the modules of parts that the docstrings of the models name, and those that these name: name -> module."""
    known = {
        module.rpartition(".")[2]: module
        for module in sorted(sys.modules)
        if module.rpartition(".")[0] in PART_PACKAGES and sys.modules[module].__doc__
    }
    own = {spec.cls.__module__ for spec in registry.values()}
    waiting = [_get_docstring(spec) for spec in registry.values()]
    found: dict[str, str] = {}
    while waiting:
        for stem in list_named_modules(waiting.pop(0)):
            if stem in known and stem not in found and known[stem] not in own:
                found[stem] = known[stem]
                waiting.append(sys.modules[known[stem]].__doc__ or "")
    return dict(sorted(found.items()))


def _get_docstring(spec: ModelSpec) -> str:
    """Return the docstring of a model's module."""
    return sys.modules[spec.cls.__module__].__doc__ or ""


def _get_stem(spec: ModelSpec) -> str:
    """Return the name of a model's module without its package."""
    return str(spec.cls.__module__).rpartition(".")[2]


def _leave_out(links: Mapping[str, str], page: str) -> dict[str, str]:
    """Return the links without those to a page itself."""
    return {stem: address for stem, address in links.items() if address != page}


def _write_method_page(
    name: str,
    registry: Mapping[str, ModelSpec],
    published: Sequence[PublishedDataset],
    root: Path,
    links: Mapping[str, str],
) -> str:
    """Write the page of one model."""
    spec = registry[name]
    text = read_model_text(_get_docstring(spec))
    sections = [
        f"# {name}\n\n{escape_prose(text.summary)}",
        _write_facts(name, spec),
        write_block("sh", f"hellm-recbole run --models {name} --dataset ml-100k --preset quick"),
        link_modules(text.body, links),
        _write_settings(name, registry),
        *_write_file_sections(name),
        _write_results(name, published),
        _write_source(spec.cls.__module__, root),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _write_facts(name: str, spec: ModelSpec) -> str:
    """Write the table of what a model is trained on and where its code is."""
    variants = ", ".join(write_code(variant) for variant in list_variants(name))
    module = str(spec.cls.__module__).replace(".", "/") + ".py"
    rows = [
        ("group", GROUPS[spec.family]),
        ("trained on", TRAINED_ON[spec.batches]),
        ("code", write_code(module.replace("hellm_recbole/baselines", "baselines"))),
        ("settings", write_code(f"properties/model/{name}.yaml")),
    ]
    if variants:
        rows.append(("variants", variants))
    return write_table(["", ""], rows)


def _write_settings(name: str, registry: Mapping[str, ModelSpec]) -> str:
    """Write the table of the settings that come from other files than the one that all models share."""
    described = describe_model_settings(name, "", registry, "paper", [])
    own = [setting for setting in described if _name_file(setting.source) not in SHARED_FILES]
    if not own:
        return (
            "## Settings\n\nThe model has no settings of its own; [those of all models](../reference/settings.md) hold."
        )
    return (
        "## Settings\n\nValues of the preset `paper`; `--set " + f"{name}.KEY=VALUE` changes one. "
        "All further settings are [those of all models](../reference/settings.md).\n\n" + write_settings_table(own)
    )


def write_settings_table(settings: Sequence[SettingDescription]) -> str:
    """Write a table of settings: key and value, meaning and what is allowed, unit or source from the file's comment."""
    rows = []
    for setting in settings:
        text = (find_properties() / _name_file(setting.source)).read_text(encoding="utf-8")
        comments = read_comments(text).of_keys
        meaning = " ".join(filter(None, (setting.meaning, f"*{setting.allowed}*" if setting.allowed else "")))
        cells = (setting.key, setting.value, meaning, comments.get(setting.key, ""))
        rows.append((write_code(cells[0]), write_code(cells[1]), *map(escape_prose, cells[2:])))
    return write_table(["setting", "value", "meaning and what is allowed", "unit, source, other values"], rows)


def _name_file(source: str) -> str:
    """Return the file of a setting's source, such as `llm.yaml` of "llm.yaml, overrides"."""
    return source.partition(",")[0]


def _write_file_sections(name: str) -> list[str]:
    """Write the sections of a model's file that hold for some datasets or variants, and its search space."""
    file, written = find_file("model", name), []
    if file is not None:
        text = file.path.read_text(encoding="utf-8")
        for key, title in ((DATASETS, "Values for single datasets"), (VARIANTS, "Variants")):
            if excerpt := cut_section(text, key):
                run = f"Each is run as `{name}-<variant>`.\n\n" if key == VARIANTS else ""
                written.append(f"## {title}\n\n{run}{write_block('yaml', excerpt)}")
    search = find_file("sweep", name)
    if search is not None:
        block = write_block("yaml", search.path.read_text(encoding="utf-8"))
        written.append(f"## Search space\n\n`hellm-recbole tune --models {name}` searches these values.\n\n{block}")
    return written


def cut_section(text: str, key: str) -> str:
    r"""Cut a section out of a settings file, with its comments; "" if the file has none.

    >>> print(cut_section("a: 1\ndatasets:\n  X: {a: 2}  # best\nvariants: {}\n", "datasets"))
    X: {a: 2}  # best
    """
    root, lines = yaml.compose(text, yaml.SafeLoader), text.splitlines()
    if not isinstance(root, yaml.MappingNode):
        return ""
    for key_node, value_node in root.value:
        if key_node.value == key and isinstance(value_node, yaml.MappingNode) and value_node.value:
            end = value_node.end_mark.line if value_node.end_mark.column == 0 else value_node.end_mark.line + 1
            section = lines[key_node.start_mark.line + 1 : end]
            return "\n".join(line.removeprefix("  ") for line in section).strip("\n")
    return ""


def _write_results(name: str, published: Sequence[PublishedDataset]) -> str:
    """Write the table of the published runs of a model and its variants; "" if there are none."""
    rows = []
    for dataset in published:
        for row in dataset.list_rows_of([name, *list_variants(name)]):
            seeds = ", ".join(map(str, row.seeds))
            numbers = [format_mean(row.cells[metric]) if metric in row.cells else "-" for metric in METRICS]
            rows.append([dataset.name, row.model, row.preset, seeds, *numbers])
    if not rows:
        return ""
    table = write_table(["dataset", "row", "preset", "seeds", *METRICS], rows)
    note = "Test part; [the board](../board/index.md) says what each number depends on."
    return f"## Published results\n\n{note}\n\n{table}"


def _write_part_page(module: str, root: Path, links: Mapping[str, str]) -> str:
    """Write the page of a part that several models have."""
    first, _, rest = (sys.modules[module].__doc__ or "").partition("\n")
    body = link_modules(escape_prose(rest.strip()), links)
    sections = [f"# Part: {module.rpartition('.')[2]}\n\n{escape_prose(first)}", body, _write_source(module, root)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _write_source(module: str, root: Path) -> str:
    """Write the file of a module, folded."""
    path = Path(sys.modules[module].__file__ or "").resolve().relative_to(root)
    n_lines = len((root / path).read_text(encoding="utf-8").splitlines())
    return (
        f"## Source code\n\n:::{{dropdown}} `{path.as_posix()}`, {n_lines} lines\n"
        f"```{{literalinclude}} /../{path.as_posix()}\n:language: python\n```\n:::"
    )
