"""The model card of a pushed run: front matter for the hub, how to load it, its metrics, and what they depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.experiments.machine_paths import CUT
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.hub.licences import choose_licence, find_data_terms, find_language_model_terms
from hellm_recbole.hub.manifest import ADAPTER
from hellm_recbole.identity.parts import Identity, describe_encoder
from hellm_recbole.llm.settings import PRETRAINED
from hellm_recbole.llm.source import find_hub_id
from hellm_recbole.report.escaping import escape_markdown

_DIGITS = 12  # first digits of a digest that the card shows
_MASKS = {
    "seen": "items of a user's history are not ranked",
    "train": "items of a user's training part are not ranked",
    "none": "all items are ranked",
}
_KB = 1000
Pairs = Sequence[tuple[str, object]]


@dataclass(frozen=True)
class CardFacts:
    """What a card says that its record does not.

    Attributes:
        repository: id of the repository.
        licence: licence that the user names; None takes the usual one.
        data: id of the dataset on the hub, if the user names one.
        sizes: file of the repository -> its size in bytes.
    """

    repository: str
    licence: str | None
    data: str | None
    sizes: Mapping[str, int]


def format_model_card(results: Sequence[RunResult], facts: CardFacts) -> str:
    """Format the card of a repository in Markdown.

    Args:
        results: pushed records, that of the run itself first.
        facts: everything else.
    """
    result = results[0]
    title = escape_markdown(f"{result.label} on {result.dataset}")
    kind = "trained on all of its data, for use" if not result.evaluated else "evaluated on a held-out part of it"
    sections = [
        f"---\n{_write_front_matter(results, facts)}\n---",
        f"# {title}",
        f"A model for recommending items: {escape_markdown(result.label)} on the dataset "
        f"{escape_markdown(result.dataset)}, {kind}. It was trained, ranked and pushed with hellm-recbole "
        f"{result.versions['hellm_recbole']}.",
        "## Use",
        _describe_use(result, facts),
        "## Results",
        _describe_results(result),
        "## What these numbers depend on",
        _format_table(("part", "value"), [*_list_parts(result)]),
        "## Files",
        _format_table(("file", "kB"), [(name, f"{size / _KB:,.1f}") for name, size in facts.sizes.items()]),
        "Weights are safetensors, everything else is JSON. There are no interactions, no ids of users or items and no "
        "weights of a language model among them.",
        "## Terms",
        _describe_terms(results, facts),
        "## Settings",
        f"```json\n{json.dumps(_list_settings(result), indent=1, sort_keys=True, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _write_front_matter(results: Sequence[RunResult], facts: CardFacts) -> str:
    """Write the metadata of the hub as YAML."""
    from huggingface_hub import ModelCardData

    result, bases = results[0], _list_base_models(results)
    ids = [base for base in bases.values() if base is not None]
    tags = ["recommender-systems", "recommendation", *(["sequential-recommendation"] if _is_sequential(result) else [])]
    data = ModelCardData(
        model_name=f"{result.label} on {result.dataset}",
        license=choose_licence(facts.licence, tuple(bases.values())),
        library_name="hellm-recbole",
        tags=[*tags, "hellm-recbole", *(["lora", "peft"] if bases else [])],
        datasets=None if facts.data is None else [facts.data],
        base_model=ids[0] if len(ids) == 1 else ids or None,
        base_model_relation="adapter" if ids else None,
        eval_results=_list_eval_results(result) or None,
    )
    return str(data.to_yaml()).strip()


def _is_sequential(result: RunResult) -> bool:
    """Return whether a run reads the order of a history."""
    return result.family in ("sequential", "llm")


def _list_eval_results(result: RunResult) -> list[Any]:
    """List the test metrics as evaluation results of the hub, each with its split and its mask."""
    from huggingface_hub import EvalResult

    protocol = {
        "split_kind": result.split_kind,
        "split_sha256": result.split_hash,
        "mask_history": result.mask_history,
        "candidates": result.n_candidates,
        "seed": result.seed,
    }
    return [
        EvalResult(
            task_type="recommendation",
            task_name="Recommendation",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            dataset_split="test",
            dataset_args=protocol,
            metric_type=name,
            metric_name=f"{_name_metric(name)}, mean over users",
            metric_value=round(value, 6),
        )
        for name, value in result.metrics["test"].items()
    ]


def _name_metric(name: str) -> str:
    """Return the full name of a metric.

    >>> _name_metric("N@10")
    'NDCG@10'
    """
    kind, at, cut = name.partition("@")
    return {"R": "Recall", "N": "NDCG"}.get(kind, kind) + at + cut


def _list_base_models(results: Sequence[RunResult]) -> dict[str, str | None]:
    """List the language models that were adapted: name -> id on the hub, None where it is not known."""
    found: dict[str, str | None] = {}
    for result in results:
        values = _list_settings(result)
        if result.backbone is not None and values.get("llm_weights") == PRETRAINED:
            llm = values["llm"]
            found[result.backbone] = None if llm.startswith(CUT) else find_hub_id(llm)
    return found


def _describe_use(result: RunResult, facts: CardFacts) -> str:
    """Describe how the run is loaded, and what that needs."""
    name, escaped = f"hub:{facts.repository}", escape_markdown(result.dataset)
    cut = str(_list_settings(result).get("llm", "")).startswith(CUT)
    llm = ', llm="FOLDER"' if cut else ""
    lines = [
        "```python",
        "import hellm_recbole",
        "",
        f'model = hellm_recbole.load_run("{name}"{llm})',
        "print(model.recommend(k=10))                         # for all users of the dataset",
        'print(model.recommend(histories=[["ITEM", "ITEM"]]))  # for new histories, if the model reads any',
        "```",
        "",
        f"Or `hellm-recbole recommend {name}{' --llm FOLDER' if cut else ''}`. Both need the dataset as it was for "
        f"this run, in `dataset/{escaped}`: split `{result.split_hash[:_DIGITS]}`, from "
        f"`hellm-recbole prepare {escaped}`. "
        "Its items and users have the ids of these weights. Split, features, texts, language model and embeddings are "
        "compared first. On one kind of device with the same number of threads "
        f"({result.device}, {result.threads}), the scores have the same bits as in the run.",
    ]
    if cut:
        model = escape_markdown(str(_list_settings(result)["llm"]).removeprefix(CUT))
        lines += ["", f"FOLDER is the folder of its language model, which was named {model}; it is not pushed."]
    return "\n".join(lines)


def _describe_results(result: RunResult) -> str:
    """Format the metrics of both parts as a table, and say how they were made."""
    if not result.evaluated:
        return "There are none: the model was trained on all data, so that nothing was left to evaluate it on."
    test, valid = result.metrics["test"], result.metrics["valid"]
    rows = [(_name_metric(name), f"{value:.4f}", f"{valid[name]:.4f}") for name, value in test.items()]
    counts = result.counts
    said = (
        f"Means over the {counts['test']:,} users of the test part and the {counts['valid']:,} of the validation part. "
        f"Split: {result.split_kind}, SHA-256 `{result.split_hash}`. Candidates: all {result.n_candidates:,} items. "
        f"Mask: {result.mask_history} ({_MASKS[result.mask_history]}). Seed {result.seed}, preset "
        f"{escape_markdown(result.preset)}, epoch {result.best_epoch} of {result.epochs_run}, chosen on validation."
    )
    return f"{_format_table(('metric', 'test', 'validation'), rows)}\n\n{said}"


def _list_parts(result: RunResult) -> Iterator[tuple[str, object]]:
    """List what the numbers depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items() if version is not None)
    commit = result.git_commit or "unknown"
    yield "commit of hellm-recbole", commit + (", with changes" if result.git_dirty else "")
    yield "versions", versions
    yield "device, threads", f"{result.device}, {result.threads}"
    yield "split", result.split_hash
    if result.identity is not None:
        yield from _list_identity(result.identity)
    if result.combination is not None:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in result.combination["weights"].items())
        yield "combination", f"{', '.join(result.combination['rows'])}; weights {weights or 'none'}"


def _list_identity(identity: Identity) -> Iterator[tuple[str, object]]:
    """List the digests of everything that a run has read."""
    for name, features in identity["features"].items():
        encoder = describe_encoder(features)
        yield f"features {name}", features["sha256"] + (f" ({encoder})" if encoder else "")
    if (texts := identity["item_texts"]) is not None:
        yield "item texts", texts["sha256"]
    if (model := identity["language_model"]) is not None:
        yield "language model, weights", model["weights_sha256"] or "random"
        yield "language model, files", model["files_sha256"]
        yield "language model, number type", model["dtype"]
        if model["origin"] is not None:
            yield "language model, origin", model["origin"]
    for name, embeddings in identity["embeddings"].items():
        yield f"embeddings of {name}", embeddings["sha256"]
    for name, run in identity.get("runs", {}).items():
        yield f"ranks of {name}", run["ranks_sha256"]
    yield "code", identity["code"]["sha256"]


def _describe_terms(results: Sequence[RunResult], facts: CardFacts) -> str:
    """Describe the licence, the terms of the language models, and those of the data."""
    bases = _list_base_models(results)
    lines = [f"- These weights: {choose_licence(facts.licence, tuple(bases.values()))}."]
    for backbone, hub_id in bases.items():
        terms = find_language_model_terms(hub_id)
        model = f"The language model {escape_markdown(hub_id or backbone)}"
        if terms is None:
            lines.append(f"- {model} is not part of this repository and has its own terms.")
        else:
            lines.append(
                f"- {model} is not part of this repository. {terms.name}'s [own terms of use]({terms.terms}) apply to "
                "it and to what is made from it."
            )
    if f"{ADAPTER}/adapter_config.json" in facts.sizes:
        lines.append(f"- `{ADAPTER}/` is its adapter alone, in the format of PEFT.")
    if (data := find_data_terms(results[0].dataset, None)) is not None:
        lines.append(
            f"- The data ({escape_markdown(results[0].dataset)}) are not part of this repository: {data.terms}."
        )
    return "\n".join(lines)


def _list_settings(result: RunResult) -> dict[str, Any]:
    """List the settings that can change a number."""
    return {key: entry["value"] for key, entry in result.settings.items() if key not in NEUTRAL_KEYS}


def _format_table(head: Sequence[str], rows: Pairs | Sequence[Sequence[object]]) -> str:
    """Format a Markdown table with escaped cells."""
    cells = [head, ["---"] * len(head), *([escape_markdown(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
