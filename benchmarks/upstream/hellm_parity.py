"""Compare HeLLM-released with the released code, step by step, on a small Llama and a few users."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.upstream.public_hellm import ReleasedHeLLM, interleave_rotary, keep_single_precision
from hellm_recbole.benchmarks.upstream.sides import compute_relative_error
from hellm_recbole.config.request import Override
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.models.llm_reader import ENDING, PROMPT
from hellm_recbole.system.quiet import silence_loading
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.sampling import PrefixSource
from hellm_recbole.training.schedule import compute_learning_rate_factor
from hellm_recbole.types import Histories, HistoryBatch, PairBatch, TrainData

NAME = "HeLLM-released"
LENGTHS = (3, 4, 6, 7, 8, 9, 20, 60, 7)  # items of each user, held-out ones included
N_ITEMS, WIDTH, SEED = 30, 64, 2024  # the released code is written for embeddings of width 64
LONGEST = 50  # most recent items that the released code keeps
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
BOUND, HALF_BOUND = 5e-5, 2e-2  # single precision, where sums differ in order; bfloat16 has 8 bits
Line = tuple[str, float, float]  # what is compared, its error, the bound of the error


@dataclass
class Compared:
    """Our HeLLM and the released one, with the same weights.

    Attributes:
        learner: our learner.
        config: run config of ours.
        theirs: released code.
        sequences: whole sequences of the users, with items counted from 1.
        data: training part.
    """

    learner: ModelLearner
    config: LLMRunConfig
    theirs: ReleasedHeLLM
    sequences: list[np.ndarray[Any, np.dtype[np.int64]]]
    data: TrainData

    @property
    def model(self) -> Any:
        """Our model."""
        return self.learner.module


def make_llm_data() -> tuple[list[np.ndarray[Any, np.dtype[np.int64]]], TrainData]:
    """Make random sequences of users, and the training part with embeddings of two models."""
    rng = np.random.default_rng(7)
    sequences = [rng.integers(1, N_ITEMS + 1, size=length) for length in LENGTHS]
    train = [items[:-2] for items in sequences]
    users = np.repeat(np.arange(1, len(train) + 1), list(map(len, train)))
    history = Histories.from_pairs(users, np.concatenate(train), len(train))
    tables = {name: rng.normal(size=(N_ITEMS + 1, WIDTH)).astype(np.float32) for name in ("HeLLMPre", "SASRec")}
    for table in tables.values():
        table[0] = 0.0
    return sequences, TrainData(len(train), N_ITEMS, history, {}, pretrained=tables)


def save_small_llama(folder: Path, texts: Sequence[str]) -> Any:
    """Save a random Llama with a tokenizer of the words of some texts, which starts each text with `<s>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", *sorted({word for text in texts for word in text.split()})]
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(words), bos_token_id=1, eos_token_id=None, pad_token_id=0, initializer_range=0.06, **SHAPE
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")
    fast.save_pretrained(folder)
    return fast


def build_compared(checkout: Path, folder: Path, dtype: str) -> Compared:
    """Build ours and the released one on one small Llama, and give the released one our weights.

    Args:
        checkout: folder with a checkout of the released code.
        folder: folder for the language model.
        dtype: number type of the frozen weights.
    """
    sequences, data = make_llm_data()
    plain = resolve_own_run(NAME, "toy", REGISTRY, "paper", [])
    settings: Any = plain.model_settings
    with silence_loading():
        tokenizer = save_small_llama(folder, (settings.prompt, settings.ending))
    changed = {"llm": str(folder), "llm_dtype": dtype, "prefix_dropout": 0.0, "lora_dropout": 0.0}
    overrides = [Override(NAME, key, value, key) for key, value in changed.items()]
    config = resolve_own_run(NAME, "toy", REGISTRY, "paper", overrides)
    assert isinstance(config, LLMRunConfig)
    learner = config.build_learner(data, SEED, torch.device("cpu"))
    model: Any = learner.module
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    tables = data.pretrained["HeLLMPre"][1:], data.pretrained["SASRec"][1:]
    lora = settings.lora_rank, settings.lora_alpha
    torch.manual_seed(SEED)
    theirs = ReleasedHeLLM(checkout, model.backbone._adapted[0].config, tokenizer, tables, lora)
    if dtype == "bfloat16":
        theirs.convert_to_bfloat16()
    theirs.module.set_trainable_params_new()
    _share_weights(model, theirs.module, folder)
    return Compared(learner, config, theirs, sequences, data)


def map_trained(n_layers: int) -> dict[str, str]:
    """Map each parameter that the released code trains, and that has a gradient there, to ours."""
    found = {f"prefix_adapter.prefix_{side}s": f"prefix.{side}" for side in ("key", "value")}
    for number in (0, 2):
        for part in ("weight", "bias"):
            found[f"gnn_input_item_proj.{number}.{part}"] = f"projector.{number}.{part}"
    for index, side in enumerate(("key", "value")):
        for number in (0, 3):
            for part in ("weight", "bias"):
                found[f"gnn_global_{side}.{number}.{part}"] = f"prefix.networks.{index}.{number}.{part}"
        found[f"gnn_global_{side}_norm_pre.weight"] = f"prefix.norms.{index}.weight"
        found[f"gnn_global_{side}_norm.weight"] = f"prefix.{side}_norm.weight"
    for layer in range(n_layers):
        for theirs, ours in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
            start = f"backbone.decoder.layers.{layer}.mlp.{ours}"
            found[f"layers.{layer}.feed_forward.lora_{theirs}.lora_down.weight"] = f"{start}.lora_A.default.weight"
            found[f"layers.{layer}.feed_forward.lora_{theirs}.lora_up.weight"] = f"{start}.lora_B.default.weight"
    return found


@torch.no_grad()
def _share_weights(model: Any, module: Any, folder: Path) -> None:
    """Copy all weights of our model to the released one."""
    from transformers import AutoModelForCausalLM

    with silence_loading():
        words = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    own = dict(model.named_parameters())
    public = dict(module.named_parameters())
    frozen = {"tok_embeddings.weight": words, "norm.weight": own["backbone.decoder.norm.weight"]}
    frozen["score.weight"] = model.encode().items[1:]
    norms = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    maps = {"w1": "mlp.gate_proj.base_layer", "w2": "mlp.down_proj.base_layer", "w3": "mlp.up_proj.base_layer"}
    for layer in range(SHAPE["num_hidden_layers"]):
        start, theirs = f"backbone.decoder.layers.{layer}", f"layers.{layer}"
        for part in "qkvo":
            weight = own[f"{start}.self_attn.{part}_proj.weight"]
            rotated = interleave_rotary(weight, SHAPE["num_attention_heads"]) if part in "qk" else weight
            frozen[f"{theirs}.attention.w{part}.weight"] = rotated
        frozen |= {f"{theirs}.feed_forward.{key}.weight": own[f"{start}.{part}.weight"] for key, part in maps.items()}
        frozen |= {f"{theirs}.{key}.weight": own[f"{start}.{part}.weight"] for key, part in norms.items()}
    trained = {key: own[part] for key, part in map_trained(SHAPE["num_hidden_layers"]).items()}
    for key, value in {**frozen, **trained}.items():
        public[key].copy_(value.view_as(public[key]))


def list_examples(source: PrefixSource, seed: int) -> list[tuple[tuple[int, ...], int]]:
    """List the prefixes and targets of an epoch, with items counted from 0."""
    return [example for batch in source.epoch(seed) for example in split_examples(batch)]


def split_examples(batch: PairBatch | HistoryBatch) -> list[tuple[tuple[int, ...], int]]:
    """Split a batch into its prefixes and targets, with items counted from 0."""
    assert isinstance(batch, HistoryBatch)
    rows = zip(batch.items, batch.targets.amax(dim=1).tolist(), strict=True)
    return [(tuple((items[items > 0] - 1).tolist()), target - 1) for items, target in rows]


def compare_inputs(both: Compared, folder: Path) -> list[Line]:
    """Compare what the language model reads and how it is trained: prompt, examples, learning rates."""
    model, theirs, steps, train = both.model, both.theirs, both.config.steps, both.config.train
    tokens = [model.backbone.tokens[number] for number in (PROMPT, ENDING)]
    public = [theirs.prompter.instruct_ids.tolist(), theirs.prompter.response_ids.tolist()]
    released = theirs.make_examples([(items - 1).tolist() for items in both.sequences], LONGEST, folder)
    everything = PrefixSource(both.data, 1, model.max_history, None, torch.device("cpu"), window=steps.example_items)
    ours = sorted(list_examples(everything, 1))
    wanted = sorted((tuple(map(int, items)), int(label)) for items, label in released.trainData)
    batches = both.learner._batches
    n_steps = batches.count_batches()
    rates = [
        (
            train.learning_rate * compute_learning_rate_factor(train, step / n_steps),
            theirs.compute_learning_rate(train.learning_rate, step / n_steps, train.epochs, train.warmup_epochs),
        )
        for step in range(train.epochs * n_steps)
    ]
    tests = [(items[-model.max_history - 1 : -1] - 1).tolist() for items in both.sequences]
    n_differing = sum(a != b for a, b in zip(tests, (released.testData[u][0] for u in range(len(tests))), strict=True))
    n_batches = len(released) // train.batch_size
    return [
        ("tokens of prompt and ending", float(tokens != public), 0.0),
        ("examples that differ", float(len(set(ours) ^ set(wanted)) + abs(len(ours) - len(wanted))), 0.0),
        ("histories in the test that differ", float(n_differing), 0.0),
        ("steps of an epoch", float(abs(n_steps - n_batches)), 0.0),
        ("learning rate of each step", max(abs(a - b) for a, b in rates) / train.learning_rate, 1e-12),
    ]


def compare_epoch(both: Compared) -> list[Line]:
    """Compare scores, loss and gradients, and the parameters after each of the steps of one epoch."""
    learner, theirs, train = both.learner, both.theirs, both.config.train
    optimizer = _build_released_optimizer(both)
    lines = [("scores of one user at a time", _compare_scores(both), BOUND)]
    first = next(iter(learner._batches.epoch(SEED)))
    learner.module.train()
    theirs.module.train()
    with keep_single_precision():
        loss = theirs.compute_loss([(list(items), label) for items, label in split_examples(first)])
        loss.backward()
    ours = torch.tensor(learner._compute_gradients(first)["cross_entropy"])
    lines += [("loss", compute_relative_error(ours, loss.detach()), BOUND)]
    lines += [("gradients", _compare_parameters(both, gradients=True), BOUND)]
    learner.train_epoch(1, SEED, lambda *_: None)
    n_steps = learner._batches.count_batches()
    for step, batch in enumerate(learner._batches.epoch(SEED)):
        optimizer.zero_grad()
        with keep_single_precision():
            theirs.compute_loss([(list(items), label) for items, label in split_examples(batch)]).backward()
        for group in optimizer.param_groups:
            group["lr"] = theirs.compute_learning_rate(
                train.learning_rate, step / n_steps, train.epochs, train.warmup_epochs
            )
        optimizer.step()
    lines += [(f"parameters after {n_steps} steps", _compare_parameters(both, gradients=False), BOUND)]
    return [*lines, ("scores after these steps", _compare_scores(both), BOUND)]


def _build_released_optimizer(both: Compared) -> torch.optim.AdamW:
    """Build the optimizer of the released script: all trained parameters, normalisations and biases included."""
    adapters, lora = both.theirs.module.set_trainable_params_new()
    groups = [{"params": adapters}, {"params": lora}]
    return torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95))


def _compare_parameters(both: Compared, *, gradients: bool) -> float:
    """Compute the largest error of the trained parameters, or of their gradients."""
    own, public = (dict(model.named_parameters()) for model in (both.model, both.theirs.module))
    errors = []
    for theirs, ours in map_trained(SHAPE["num_hidden_layers"]).items():
        pair: list[Tensor] = []
        for parameter in (own[ours], public[theirs]):
            value = parameter.grad if gradients else parameter.detach()
            assert value is not None, theirs
            pair.append(value)
        errors.append(compute_relative_error(pair[0].view_as(pair[1]), pair[1]))
    return max(errors)


@torch.no_grad()
def _compare_scores(both: Compared) -> float:
    """Compute the error of the scores of all users for their test item."""
    learner, theirs = both.learner, both.theirs
    users = np.repeat(np.arange(1, len(LENGTHS) + 1), [length - 1 for length in LENGTHS])
    history = Histories.from_pairs(users, np.concatenate([items[:-1] for items in both.sequences]), len(LENGTHS))
    learner.prepare()
    theirs.module.eval()
    ours = learner.compute_scores(np.arange(1, len(LENGTHS) + 1), history)[:, -N_ITEMS:]
    with keep_single_precision():
        wanted = [theirs.compute_state_and_scores((items[-LONGEST:-1] - 1).tolist())[1] for items in both.sequences]
    return compute_relative_error(ours, torch.stack(wanted))


@torch.no_grad()
def compare_half_states(both: Compared) -> list[Line]:
    """Compare the states of all users with weights in bfloat16, and in between in single precision."""
    model, theirs = both.model, both.theirs
    model.eval()
    theirs.module.eval()
    errors = []
    for items in both.sequences:
        recent = torch.from_numpy(items[-LONGEST:-1].copy())
        ours = model.reader.read_last(recent[None])[0]
        wanted = theirs.compute_state_and_scores((recent - 1).tolist())[0]
        errors.append(compute_relative_error(ours, wanted))
    return [("states in bfloat16", max(errors), HALF_BOUND)]


def compare_hellm(checkout: Path) -> list[Line]:
    """Compare HeLLM-released with the released code: inputs, values, a whole epoch, and states in bfloat16.

    Raises:
        DataError: the folder is not a checkout of the released code.
    """
    lines: list[Line] = []
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as name:
            both = build_compared(checkout, Path(name) / "llama", dtype)
            if dtype == "float32":
                lines += [*compare_inputs(both, Path(name)), *compare_epoch(both)]
            else:
                lines += compare_half_states(both)
    return lines
