"""Export of a trained LLM recommender to files that others can use: a PEFT adapter, and safetensors for the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from hellm_recbole.experiments.results import RunResult
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.llm.origin import describe_source
from hellm_recbole.llm.source import find_hub_id
from hellm_recbole.system.files import create_scratch_folder, replace_folder

ADAPTER, REST, CARD = "adapter", "rest.safetensors", "README.md"


def save_language_model(model: nn.Module, record: RunResult, folder: Path) -> None:
    """Write `adapter/`, `rest.safetensors` (projector, prefix, head) and a model card.

    Args:
        model: `LLMRecommender` with the parameters of the best epoch.
        record: run result.
        folder: folder to create or replace.

    Raises:
        OutputError: the folder cannot be written.
    """
    backbone: Any = model.backbone
    backbone_names = {f"backbone.{name}" for name in ({} if backbone is None else backbone.state_dict())}
    rest = {name: value.contiguous() for name, value in model.state_dict().items() if name not in backbone_names}
    adapter = () if backbone is None else (value for name, value in backbone.state_dict().items() if "lora_" in name)
    n_bytes = sum(value.nbytes for value in (*rest.values(), *adapter))
    with create_scratch_folder(folder.parent, folder.name, n_bytes=n_bytes) as work:
        save_file(rest, work / REST)
        if backbone is not None:
            backbone.save_adapter(work / ADAPTER)
            (work / ADAPTER / CARD).unlink(missing_ok=True)  # PEFT writes an empty template
        (work / CARD).write_text(format_model_card(record), encoding="utf-8")
        replace_folder(work, folder)


def format_model_card(record: RunResult) -> str:
    """Return the model card in Markdown: metadata in the form of the Hugging Face hub, the run result, the settings."""
    values = {key: entry["value"] for key, entry in record.settings.items()}

    def format_figures(phase: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in phase.items())

    source = describe_source(values["llm"]) if values["llm_weights"] == "pretrained" else None
    lines = [
        "---",
        _write_metadata(record, values),
        "---",
        "",
        f"# {record.label} on {record.dataset}",
        "",
        f"Language model: {values['llm']}" + (f", first {values['llm_layers']} layers" if values["llm_layers"] else ""),
        *([source] if source else []),
        f"Item embeddings of: {_list_embeddings(record)}",
        f"Split {record.split_hash[:12]}, history masked ({record.mask_history}), {record.n_candidates:,} candidates, "
        f"seed {record.seed}, epoch {record.best_epoch} of {record.epochs_run} by validation {values['valid_metric']}.",
        "",
        f"- validation: {format_figures(record.metrics['valid'])}",
        f"- test: {format_figures(record.metrics['test'])}",
        "",
        f"`{ADAPTER}/` is a PEFT adapter for the language model; `{REST}` holds projector, prefix and head. "
        "The language model's own terms apply to it.",
        "",
        "```json",
        json.dumps(values, indent=1, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _list_embeddings(record: RunResult) -> str:
    """List the models whose item embeddings a run has read, and the files of those that were made elsewhere."""
    files = list_embedding_files(record.identity)
    return ", ".join(f"{model} (file {files[model]['file']})" if model in files else model for model in record.stages)


def _write_metadata(record: RunResult, values: Mapping[str, Any]) -> str:
    """Write the metadata of a model card as YAML: library, language model, and the metrics of validation and test.

    Args:
        record: run result.
        values: settings of the run.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="recommendation",
            dataset_type=record.dataset,
            dataset_name=record.dataset,
            dataset_split="validation" if phase == "valid" else phase,
            metric_type=name,
            metric_value=round(value, 6),
        )
        for phase, metrics in (("valid", record.metrics["valid"]), ("test", record.metrics["test"]))
        for name, value in metrics.items()
    ]
    data = ModelCardData(
        model_name=f"{record.label} on {record.dataset}",
        library_name="peft",
        tags=["recommender-systems", "sequential-recommendation"],
        base_model=find_hub_id(values["llm"]) if values["llm_weights"] == "pretrained" else None,
        eval_results=results,
    )
    return data.to_yaml()
