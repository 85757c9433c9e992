"""Costs measured from outside of a run: examples against the real batches, tokens, and the memory of the run alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import cost_meter
from hellm_recbole.experiments.cost_meter import CostMeter, count_examples, measure_resident_memory
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.system import runtime
from hellm_recbole.training.sampling import make_batch_source
from hellm_recbole.types import PairBatch
from tests.toy_llm import tiny_llama
from tests.toy_records import toy_record

MIB = 2**20
CPU = torch.device("cpu")
needs_linux = pytest.mark.skipif(not cost_meter.STATUS.exists(), reason="only Linux has /proc")


def resolve(name: str, **settings: Any) -> Any:
    overrides = [Override(name, key, value, "--set") for key, value in settings.items()]
    llm = [Override(None, "llm", str(tiny_llama()), "--llm")]
    return Resolver("toy", REGISTRY, "quick", [*overrides, *llm]).resolve(name)


def count_slowly(config: OwnRunConfig, split: Split, epoch_seed: int = 1) -> int:
    """Count the targets in all batches of an epoch."""
    steps = getattr(config, "steps", None)
    source = make_batch_source(
        config.spec.batches, config.model_settings, config.train, config.pairs, steps, split.make_train_data(), CPU
    )
    batches = list(source.epoch(epoch_seed))
    return sum(len(b.user) if isinstance(b, PairBatch) else int((b.targets != 0).sum()) for b in batches)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("VBPR", {}),
        ("BPR", {"sampling": "users"}),
        ("SASRec", {}),
        ("SASRec", {"max_history": 3}),
        ("BSARec", {"max_history": 3, "frequency_cutoff": 2}),
        ("LLaRA", {}),
        ("LLaRA", {"examples": "all"}),
        ("LLaRA", {"examples": "all", "example_items": 4}),
        ("LLaRA", {"examples": "random", "examples_per_user": 2}),
        ("LLaRA", {"examples": "all", "drop_last": True, "batch_size": 16}),
    ],
)
def test_the_examples_are_the_targets_of_the_batches(toy_split: Split, name: str, settings: dict[str, Any]) -> None:
    config = resolve(name, **settings)
    assert count_examples(config, toy_split) == count_slowly(config, toy_split)


def test_sequences_of_a_dropped_batch_are_counted_by_their_mean(toy_split: Split) -> None:
    config = resolve("LLaRA", drop_last=True, batch_size=32)  # 32 of 60 users; the sequences have 3 to 6 targets
    counted = [count_slowly(config, toy_split, seed) for seed in range(200)]
    assert count_examples(config, toy_split) == pytest.approx(np.mean(counted), abs=1.0)


@pytest.mark.parametrize("name", ["Pop", "EASE", "RecBole-BPR", "VBPR-priors", "Transitions"])
def test_examples_of_other_rows_are_unknown(toy_split: Split, name: str) -> None:
    assert count_examples(resolve(name), toy_split) is None


def test_positions_with_gradients_are_counted_and_the_class_is_put_back(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "compute_states", lambda self, embedded, context: embedded)
    backbone = object.__new__(Backbone)
    original = Backbone.compute_states
    meter = CostMeter(resolve("LLaRA"), toy_split)
    with meter.count_tokens():
        for epoch in (1, 2):
            backbone.compute_states(torch.zeros(7, 4), None)  # type: ignore[arg-type]
            backbone.compute_states(torch.zeros(3, 4), None)  # type: ignore[arg-type]
            with torch.no_grad():  # ranking
                backbone.compute_states(torch.zeros(100, 4), None)  # type: ignore[arg-type]
            meter.log(epoch, {})
    assert Backbone.compute_states is original
    assert meter.measure(toy_record())["tokens_per_epoch"] == 10
    assert meter.measure(toy_record(), 2)["tokens_per_epoch"] is None


def test_a_row_without_language_model_has_no_tokens(toy_split: Split) -> None:
    meter = CostMeter(resolve("SASRec"), toy_split)
    original = Backbone.compute_states
    with meter.count_tokens():
        assert Backbone.compute_states is original
    meter.log(1, {})
    assert meter.measure(toy_record())["tokens_per_epoch"] is None


@needs_linux
def test_the_memory_of_a_row_is_its_own(toy_split: Split) -> None:
    """What an earlier row holds or has freed is not the memory of this one."""
    runtime.keep_freed_memory()
    held = np.ones(64 * MIB // 8)
    freed = [np.ones(MIB // 16) for _ in range(256)]  # small enough for the heap, which glibc keeps
    del freed
    meter = CostMeter(resolve("VBPR"), toy_split)
    runtime.reset_peak_memory(CPU)
    small = [np.ones(MIB // 16) for _ in range(96)]  # half a MiB each
    del small
    peak: Any = runtime.measure_peak_memory(CPU)
    costs = meter.measure(toy_record(peak_memory_bytes=peak))
    assert costs["row_bytes"] == pytest.approx(48 * MIB, abs=12 * MIB)
    assert costs["resident_bytes"] is not None
    assert costs["resident_bytes"] >= held.nbytes


def test_without_proc_the_memory_is_unknown(toy_split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(cost_meter, "STATUS", tmp_path / "missing")
    assert measure_resident_memory() is None
    costs = CostMeter(resolve("VBPR"), toy_split).measure(toy_record())
    assert (costs["resident_bytes"], costs["row_bytes"]) == (None, None)
