"""Tests of README, CONTRIBUTING and the documentation: links lead somewhere, commands exist, and code runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import hellm_recbole
from hellm_docs import complete_page
from hellm_docs.code_blocks import CodeBlock, list_blocks, split_commands
from hellm_docs.command_pages import Command, load_command
from hellm_docs.navigation import list_sources
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.cli import COMMANDS
from hellm_recbole.benchmarks.options.command_line import ENTRY_POINT, rename_aliases, split_values
from hellm_recbole.benchmarks.options.reproduce import read_reproduce_request
from hellm_recbole.benchmarks.options.sensitivity import read_sensitivity_request
from hellm_recbole.benchmarks.options.shared import read_run_request, read_search_request
from hellm_recbole.config.harness_settings import HARNESS_SETTINGS
from hellm_recbole.config.properties_files import VARIABLE
from hellm_recbole.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Programs other than ours that code blocks may start.
PROGRAMS = {
    *(".", "accelerate", "cd", "cp", "docker", "export", "git", "hf", "ls", "make", "mkdir", "mlflow", "pip"),
    *("ray", "sbatch", "srun", "tensorboard", "torchrun", "uv", "wandb", ".venv/bin/pre-commit"),
}
REQUESTS = {
    **dict.fromkeys(("run", "ablate", "audit"), read_run_request),
    **dict.fromkeys(("tune", "study"), read_search_request),
    "reproduce": read_reproduce_request,
    "sensitivity": read_sensitivity_request,
}
SETTINGS = {
    key
    for cls in (*HARNESS_SETTINGS, *(cls for spec in REGISTRY.values() for cls in spec.settings_classes))
    for key in cls.model_fields
}
# Number of blocks of Python that say in their first line why the tests do not run them. Most need another program or
# a network; a new one needs a reason as good.
MOST_BLOCKS_NOT_RUN = 8


def list_anchors(text: str) -> set[str]:
    """List the anchors of a page's headings, as GitHub forms them.

    >>> sorted(list_anchors("# One: two\\n## What it is\\n"))
    ['one-two', 'what-it-is']
    """
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page if not file else (page.parent / file).resolve()
        if not linked.exists() or (anchor and anchor not in list_anchors(linked.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_in_the_index() -> None:
    named = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert {path.name for path in DOCS.glob("*.md")} - {"index.md"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
    named = set(re.findall(r"(?:^|`)hellm-recbole ([a-z][a-z-]+)", code, flags=re.MULTILINE))
    assert named <= {*COMMANDS}
    scripts = set(re.findall(r"benchmarks/((?:upstream/)?\w+\.py)", text))
    assert [script for script in sorted(scripts) if not (ROOT / "benchmarks" / script).is_file()] == []


def find_our_command(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the name and the arguments of a command of ours; None for another program.

    >>> find_our_command(["python", "benchmarks/train_all.py", "x"]), find_our_command(["make", "docs"])
    (('train-all', ['x']), None)
    """
    while re.match(r"[A-Z_]+=", words[0]):  # NAME=VALUE before the program
        words = words[1:]
    if words[0] == ENTRY_POINT:
        return words[1], words[2:]
    script = re.fullmatch(r"benchmarks/(?:upstream/)?(\w+)\.py", words[1]) if len(words) > 1 else None
    if words[0] == "python" and script:
        return script[1].replace("_", "-"), words[2:]
    return None


def parse_command_line(command: Command, arguments: list[str]) -> None:
    """Parse the arguments as the command does, without running it. Settings must exist, too."""
    import typer

    options = {
        name: not getattr(param, "is_flag", True)
        for param in command.parser.params
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("-")
    }
    words = split_values(rename_aliases(arguments, options), options)
    try:
        context = command.parser.make_context(command.name, words)
    except typer.Exit:  # after --help or --version
        return
    if command.takes_settings:
        read = REQUESTS[command.name]
        names = [param.name for param in command.parser.params]
        known = {name: context.params[name] for name in names if name in read.__annotations__ and name != "context"}
        request: Any = read(context, **known)
        overrides = getattr(request, "run", request).overrides
        unknown = [override.key for override in overrides if override.key not in SETTINGS]
        if unknown:
            raise SettingsError(f"no model has the setting {', '.join(unknown)}")


def find_fault(words: list[str]) -> str:
    """Return what is wrong with a command of a code block; "" if nothing is."""
    ours = find_our_command(words)
    if ours is None:
        return _find_fault_elsewhere(words)
    name, arguments = ours
    if name.startswith("-"):
        return "" if name in ("--help", "--version") else f"unknown option {name}"
    try:
        parse_command_line(load_command(name), arguments)
    except Exception as error:  # typer's errors have no common base that is public
        return f"{' '.join(words)}: {type(error).__name__}: {error}"
    return ""


def _find_fault_elsewhere(words: list[str]) -> str:
    """Return what is wrong with a command of another program: an unknown program, target of make, or extra."""
    while re.match(r"[A-Z_]+=", words[0]) and len(words) > 1:
        words = words[1:]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [word for word in words[1:] if re.fullmatch("[a-z]+", word)] if words[0] == "make" else []
    asked = re.findall(r"hellm-recbole\[([\w,-]+)\]", " ".join(words))
    faults = [f"make has no target {name}" for name in named if name not in targets]
    faults += [f"no extra {name}" for names in asked for name in names.split(",") if name not in extras]
    if words[0] not in PROGRAMS and not words[0].startswith("python"):
        faults.append(f"unknown program {words[0]}")
    return "; ".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_of_code_blocks_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # for files of the repository, such as examples/experiment.yaml
    blocks = list_blocks(page.read_text(encoding="utf-8"), "sh", "bash", "shell", "console")
    faults = [find_fault(words) for block in blocks for words in split_commands(block.text)]
    assert list(filter(None, faults)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_in_sentences_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    code = re.findall(rf"`((?:{ENTRY_POINT}|python benchmarks/)[^`]* --[^`]*)`", text)
    complete = [one.replace("\\|", "|") for one in code if "..." not in one]
    faults = [find_fault(words) for one in complete for words in split_commands(one)]
    assert list(filter(None, faults)) == []


def test_faults_of_commands_are_found() -> None:
    assert "No such option" in find_fault(["hellm-recbole", "report", "--datset", "Beauty"])
    assert "no model has the setting dropuot" in find_fault(["hellm-recbole", "run", "--set", "SASRec.dropuot=1"])
    assert "nothing" in find_fault(["make", "nothing"])
    assert "no extra lm" in find_fault(["pip", "install", "hellm-recbole[lm]"])
    assert "unknown program rm" in find_fault(["rm", "-r", "x"])
    assert find_fault(["hellm-recbole", "run", "--models", "SASRec", "--dropout=0.5"]) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_blocks_of_yaml_are_yaml(page: Path) -> None:
    for block in list_blocks(page.read_text(encoding="utf-8"), "yaml"):
        assert yaml.safe_load(block.text) is not None


PYTHON = [(page, block) for page in PAGES for block in list_blocks(page.read_text(encoding="utf-8"), "python")]


def make_folder(folder: Path) -> None:
    """Make what blocks of Python find in their folder: a prepared dataset `shop`, and its tables as files."""
    rows = [(f"u{u}", f"article-{(3 * u + 7 * t) % 24}", 86400 * t) for u in range(30) for t in range(8)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": sorted(set(frame["item_id"]))})
    items["title"] = [f"thing number {number}" for number in range(len(items))]
    hellm_recbole.load_dataset(frame, name="shop", items=items, text=["title"], k_core=0)
    frame.rename(columns={"timestamp": "datetime"}).to_csv("interactions.csv", index=False)
    lists = [(f"u{u}", f"article-{i}", rank + 1) for u in range(30) for rank, i in enumerate(range(12))]
    pd.DataFrame(lists, columns=["user_id", "item_id", "rank"]).to_csv("reco.csv", index=False)
    for preset in ("paper", "quick"):  # one epoch is enough here
        path = folder / "properties" / "preset" / f"{preset}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("replaces: true\noverall: {epochs: 1, patience: 1}\nmodels: {}\n", encoding="utf-8")


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=lambda part: getattr(part, "name", getattr(part, "line", "")))
def test_blocks_of_python_run(
    page: Path, block: CodeBlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(block.text, f"{page.name}, line {block.line}", "exec")
    if block.reason_not_run is not None:
        return
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "properties"))
    exec(code, {"__name__": "__main__"})
    assert "Traceback" not in capsys.readouterr().err


def test_few_blocks_of_python_are_not_run() -> None:
    reasons = [f"{page.name}: {block.reason_not_run}" for page, block in PYTHON if block.reason_not_run is not None]
    assert len(reasons) <= MOST_BLOCKS_NOT_RUN
    assert all(len(reason.split()) > 2 for reason in reasons)


def test_pages_are_completed_for_the_site() -> None:
    docs = {"text": "# A\n\n<!-- site: models -->\n", "links": "[rules](../CONTRIBUTING.md#rules)\n"}
    completed = complete_page(docs["text"], "language-models", DOCS)
    assert "[SASRec](methods/SASRec.md)" in completed
    assert complete_page(docs["links"], "models-of-mine", DOCS) == "[rules](project/contributing.md#rules)\n"
    with pytest.raises(ValueError, match="unknown marker"):
        complete_page("<!-- site: nothing -->\n", "x", DOCS)


def test_markers_are_on_pages_that_are_always_read_again() -> None:
    from hellm_docs import COMPLETED, MARKER

    paths = [DOCS / f"{page}.md" for page in list_sources(DOCS) if (DOCS / f"{page}.md").is_file()]
    assert {path.stem for path in paths if MARKER.search(path.read_text(encoding="utf-8"))} <= {*COMPLETED}
