"""Checkpoints that lack a tensor are refused, unless the tensor is not used."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hellm_recbole.errors import DataError
from hellm_recbole.identity.loading import LOADING_ERRORS, collect_loading_reports, describe_error
from hellm_recbole.llm.backbone import Backbone
from tests.toy_llm import SHAPE, save_tiny, settings

WEIGHTS = "model.safetensors"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "llama", "llama")


def change(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(edit(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def drop(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def load(folder: Path, **changes: object) -> Backbone:
    return Backbone(settings(folder, **changes).backbone(), ("a customer",))


def test_a_wrong_prefix_is_refused(llama: Path) -> None:
    change(llama, lambda tensors: {f"base_model.model.{name}": value for name, value in tensors.items()})
    sentence = (
        r"language model '.*llama' .* lacks 29 of its 30 tensors, .*\(for example model.embed_tokens.weight\); pass the"
    )
    with pytest.raises(DataError, match=sentence):
        load(llama)


def test_a_missing_layer_is_refused_unless_it_is_cut_off(llama: Path) -> None:
    change(llama, drop("layers.2.self_attn"))
    with pytest.raises(
        DataError, match=r"lacks 4 of its 30 tensors, .*\(for example .*layers\.2\.self_attn\.k_proj\.weight\)"
    ):
        load(llama)
    assert load(llama, llm_layers=2).n_layers == 2


def test_a_missing_head_is_accepted(llama: Path) -> None:
    whole = load(llama).state_dict()
    change(llama, drop("lm_head"))
    assert "lm_head.weight" not in load_file(llama / WEIGHTS)
    found = load(llama).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.items() if "lora_" not in name)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])  # the head of the second is tied to its embeddings
def test_a_model_in_shards_needs_all_shards(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "one", kind)
    model = AutoModelForCausalLM.from_pretrained(folder)
    shutil.copytree(folder, tmp_path / "many")
    (tmp_path / "many" / WEIGHTS).unlink()
    model.save_pretrained(tmp_path / "many", max_shard_size=6000)
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 2
    load(tmp_path / "many")
    save_file(drop("layers.1")(load_file(shards[1])), shards[1], metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks \d+ of its \d+ tensors, .*layers\.1\."):
        load(tmp_path / "many")


def test_a_tensor_of_another_shape_is_refused_in_one_sentence(llama: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change(llama, lambda tensors: {**tensors, name: tensors[name][:-1].clone()})
    with pytest.raises(DataError, match=r"lacks 1 of its 30 tensors, or has them in another shape .*up_proj"):
        load(llama)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, llama: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    change(llama, lambda tensors: {**tensors, name: tensors[name].index_fill(0, torch.tensor([3]), value)})
    with pytest.raises(
        DataError, match=r"has NaN or infinity in 1 tensors \(for example model.layers.1.mlp.up_proj.weight\)"
    ):
        load(llama)
    load(llama, llm_layers=1)


def test_finite_weights_whose_sum_overflows_are_accepted(llama: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    change(llama, lambda tensors: {**tensors, name: torch.full_like(tensors[name], 3e38)})
    load(llama)


def test_a_truncated_file_is_refused_in_one_sentence(llama: Path) -> None:
    content = (llama / WEIGHTS).read_bytes()
    (llama / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot be loaded from .*; pass the folder of a whole causal language model"):
        load(llama)


@pytest.mark.parametrize("kind", ["qwen2", "gemma3"])  # for these, transformers creates an empty tokenizer silently
def test_a_folder_without_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / kind, kind)
    load(folder)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match=r"has no tokenizer in .*; copy the files of its tokenizer"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["customers"])
    tokenizer.save_pretrained(llama)
    load(llama)  # none of the texts holds the new token
    with pytest.raises(DataError, match="has 8 token embeddings, but its tokenizer gives token 8"):
        Backbone(settings(llama).backbone(), ("a customers",))


def test_the_text_part_of_a_model_for_texts_and_images_is_loaded(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    folder = save_tiny(tmp_path / "gemma3", "gemma3")
    (folder / WEIGHTS).unlink()
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = Gemma3Config(
        text_config={**SHAPE, "sliding_window": 4, "query_pre_attn_scalar": 6, "vocab_size": 16},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=9,
        boi_token_index=10,
        eoi_token_index=11,
    )
    model = Gemma3ForConditionalGeneration(config)
    model.save_pretrained(folder)
    found = load(folder).decoder.layers[1].self_attn.k_proj.weight  # type: ignore[index,union-attr]
    assert torch.equal(found, model.model.language_model.layers[1].self_attn.k_proj.weight)


def save_adapter(folder: Path) -> Tensor:
    """Save an adapter in the folder of a model, for a layer that the run adapts, too. Return the merged weight."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["gate_proj"], task_type="CAUSAL_LM"))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    adapted.save_pretrained(folder)
    merged: Tensor = adapted.merge_and_unload().get_decoder().layers[0].mlp.gate_proj.weight.detach()
    return merged


def test_an_adapter_in_the_folder_of_a_model_is_part_of_its_weights(llama: Path) -> None:
    before = load(llama).decoder.layers[0].mlp.gate_proj.base_layer.weight  # type: ignore[index,union-attr]
    merged = save_adapter(llama)
    found = load(llama).decoder.layers[0].mlp.gate_proj.base_layer.weight  # type: ignore[index,union-attr]
    assert torch.allclose(found, merged)
    assert not torch.allclose(found, before)


def test_an_incomplete_adapter_and_an_incomplete_model_with_an_adapter_are_refused(llama: Path) -> None:
    save_adapter(llama)
    adapter = load_file(llama / "adapter_model.safetensors")
    save_file(drop("layers.1")(adapter), llama / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"the adapter in .* lacks 2 of 6 tensors"):
        load(llama)
    save_file(adapter, llama / "adapter_model.safetensors", metadata={"format": "pt"})
    change(llama, drop("layers.2.mlp.down_proj"))
    with pytest.raises(DataError, match=r"lacks 1 of its 30 tensors"):
        load(llama)


def test_collecting_reports_changes_no_return_value_and_is_undone_afterwards(llama: Path) -> None:
    before = PreTrainedModel.__dict__["from_pretrained"]
    with collect_loading_reports() as reports:
        assert isinstance(AutoModelForCausalLM.from_pretrained(llama), PreTrainedModel)
        _, info = AutoModelForCausalLM.from_pretrained(llama, output_loading_info=True)
        assert not info["missing_keys"]
        assert [report.missing for report in reports] == [(), ()]
        assert PreTrainedModel.__dict__["from_pretrained"] is not before
    with pytest.raises(OSError, match="nowhere"), collect_loading_reports():
        AutoModelForCausalLM.from_pretrained(llama / "nowhere", local_files_only=True)
    assert PreTrainedModel.__dict__["from_pretrained"] is before


def test_the_message_of_a_broken_pickle_does_not_advise_to_run_it() -> None:
    with pytest.raises(LOADING_ERRORS) as caught:
        torch.load(io.BytesIO(b"\x80\x04" + b"no pickle" * 20), weights_only=True)
    assert describe_error(caught.value) == "its pytorch_model.bin is broken or holds code"
