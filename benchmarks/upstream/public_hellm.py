"""The released code of HeLLM's language model, which runs from a checkout of its repository, on a small Llama.

This project contains no code of it. Run `git clone https://github.com/Xu107/HeLLM` and pass the folder. Model, prompt,
examples, collation and learning rate are those of its files. Three things are changed when they run:

- The language model is narrower than 4,096, which the release writes into four normalisations; these are made again.
- Dropout is 0, because two sides draw from different random streams.
- The settings that one of its modules imports from a file that does not exist are left out; nothing here reads them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from hellm_recbole.benchmarks.upstream.checkouts import HELLM, find_file
from hellm_recbole.types import FloatArray

PACKAGE = "released_hellm"  # name under which the folder `llama` of the checkout is imported
DATASET = "small"
TABLES = ("user_embedding", "item_embedding")  # beginnings of the names of the pretrained embeddings
HARD_CODED_NORMS = ("key_norm", "value_norm", "key_norm_pre", "value_norm_pre")


class ReleasedHeLLM:
    """The released model, with its prompt, its examples and its schedule.

    Args:
        checkout: folder with a checkout of the repository.
        config: configuration of the language model, as transformers has it (a Llama).
        tokenizer: its tokenizer.
        tables: [I, 64] graph and sequence embeddings of the items, without padding.
        lora: rank and alpha of the adapters.

    Raises:
        DataError: the folder is not a checkout.
    """

    def __init__(
        self, checkout: Path, config: Any, tokenizer: Any, tables: tuple[FloatArray, FloatArray], lora: tuple[int, int]
    ) -> None:
        folder = find_file(checkout, "llama/HeLLM.py", HELLM).parents[1].resolve()
        self.data = _import_file(folder, "utils/data_utils.py")
        self._schedule = _import_file(folder, "utils/lr_sched.py")
        prompter = _import_file(folder, "utils/prompter.py").Prompter
        package: Any = types.ModuleType(PACKAGE)
        package.__path__ = [str(folder / "llama")]
        sys.modules[PACKAGE] = package
        code = importlib.import_module(f"{PACKAGE}.HeLLM")
        with contextlib.chdir(folder):
            self.prompter = prompter(tokenizer, "sequential", "alpaca")
            self.prompter.generate_prompt()  # reads the template
        self.module: Any = code.Transformer(_make_arguments(code, config, self.prompter, tables, lora))
        for norm in HARD_CODED_NORMS:
            setattr(self.module, f"gnn_global_{norm}", code.RMSNorm(config.hidden_size, eps=config.rms_norm_eps))
        for part in self.module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0

    def convert_to_bfloat16(self) -> None:
        """Convert the weights as the released script does, which builds all but the item embeddings in bfloat16."""
        for name, parameter in self.module.named_parameters():
            if not name.startswith(TABLES):
                parameter.data = parameter.data.bfloat16()

    def make_examples(self, sequences: Sequence[Sequence[int]], longest: int, folder: Path) -> Any:
        """Make the released dataset of the whole sequences of users, with items counted from 0.

        Args:
            sequences: items of each user, with the validation and the test item.
            longest: number of most recent items that are kept.
            folder: folder for its file.
        """
        path = folder / "datasets" / "sequential" / DATASET / f"{DATASET}.txt"
        path.parent.mkdir(parents=True)
        lines = [" ".join(map(str, (user, *items))) for user, items in enumerate(sequences)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with contextlib.chdir(folder):
            return self.data.SequentialDataset(DATASET, longest)

    def compute_learning_rate(self, rate: float, done: float, epochs: int, warmup: int) -> float:
        """Compute the learning rate after `done` epochs."""
        arguments = types.SimpleNamespace(num_epochs=epochs, warmup_epochs=warmup)
        found: float = self._schedule.adjust_learning_rate({}, rate, done, arguments)
        return found

    def compute_loss(self, examples: Sequence[tuple[list[int], int]]) -> Tensor:
        """Compute the loss of a batch of examples, collated as released."""
        batch = self.data.SequentialCollator()(examples)
        loss: Tensor = self.module(batch["inputs"], batch["labels"], batch["inputs_mask"])
        return loss

    def compute_state_and_scores(self, items: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the [H] state and the [I] scores of one user, as released code scores."""
        inputs = torch.tensor([list(items)])
        states, scores = self.module.forward_inference(inputs, torch.ones_like(inputs))
        return states[0, -1], scores[0]


def _import_file(folder: Path, file: str) -> Any:
    """Import one file of the checkout, without the rest of its package."""
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}_{Path(file).stem}", find_file(folder, file, HELLM))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    settings: Any = types.ModuleType("config")
    settings.parse_args_llama = lambda: None
    with patch.dict(sys.modules, {"config": settings}):
        spec.loader.exec_module(module)
    return module


def _make_arguments(
    code: Any, config: Any, prompter: Any, tables: tuple[FloatArray, FloatArray], lora: tuple[int, int]
) -> Any:
    """Make the arguments of the released model for the shape of a language model."""
    graph, sequence = (torch.from_numpy(table).float() for table in tables)
    found = code.ModelArgs(
        dim=config.hidden_size,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        multiple_of=config.intermediate_size,
        norm_eps=config.rms_norm_eps,
        lora_r=lora[0],
        lora_alpha=lora[1],
        lora_dropout=0.0,
    )
    found.prompter, found.task_type, found.output_dim = prompter, "sequential", len(graph)
    found.user_embed = nn.Embedding.from_pretrained(torch.zeros(1, graph.shape[1]))  # the sequential task reads no user
    found.item_embed = nn.Embedding.from_pretrained(graph)
    padding = torch.zeros(1, sequence.shape[1])  # its file of SASRec has a first row that no item uses
    found.SASRec_item_embed = nn.Embedding.from_pretrained(torch.cat([padding, sequence]))
    return found


@contextlib.contextmanager
def keep_single_precision() -> Iterator[None]:
    """Leave tensors in single precision where the released code converts them to bfloat16 by name."""
    with patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor):
        yield


def interleave_rotary(weight: Tensor, n_heads: int) -> Tensor:
    """Reorder the rows of a query or key map from the rotary layout of transformers to that of Llama's own code.

    transformers rotates dimension j of a head with dimension j + d / 2, Llama's own code 2 j with 2 j + 1.
    """
    width = weight.shape[1]
    return weight.view(n_heads, 2, -1, width).transpose(1, 2).reshape(-1, width)
