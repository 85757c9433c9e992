"""HeLLM: a causal language model that reads item embeddings, with a graph prefix in every attention layer.

Guo et al., "Multi-Modal Hypergraph Enhanced LLM Learning for Recommendation", 2025, Sec. 3.5; released code: HeLLM.

- Input of an item: the embeddings of HeLLMPre and of SASRec, concatenated and projected (`llm_inputs.ItemTokens`).
- Eq. 8 to 10, the graph prefix: pooled HeLLMPre embeddings of a history, added to learnable prefixes of each layer
  (`llm/graph_prefix.py`). Eq. 11, attention with it: `llm/prefix_attention.py`.
- The language model maps `prompt | items | ending` to states. It is frozen, except for its LoRA adapters
  (`llm_reader.EndingReader`, with `examples: all`, where every prefix of every history is an example).
- Eq. 14: cross-entropy over all items (`llm_recommender.py`, `llm_head.py`).

**Deviations** from the released code. The variant `HeLLM-released` has none of them:

- Examples are `causal` (`llm_reader.CausalReader`). `random` reads a few random prefixes of each history in each epoch.
- The head is `embedding`; that of the released code is `frozen-random`.
- Item tables and item tokens are scaled to the same size before and after the projection.
- Items and states have dropout.
- Before the head, each dimension of the states is normalized to mean 0 and standard deviation 1. Both are measured once
  on a sample of training histories: some dimensions of a language model are a hundred times larger than others.
- Padding is never pooled (the released code pools padding as item 0: `pad_pooled_to`).
- States between the layers have the type of the frozen weights (released: float32, `residual_dtype`).
- A target of training has up to `max_history` items before it (released: it and they are among the last 48 training
  items, `example_items`), and the last batch may be smaller (released: left out, `drop_last`).
- Prompt, ending, optimizer steps and the number of epochs (see properties/model/HeLLM.yaml, `released`).

`HeLLM-released` equals the released code value by value on a small input (`benchmarks/upstream/parity.py --hellm`).
What still differs there:

- The head computes scores and loss in float32 (released: in bfloat16, in which the best scores have ties).
- New parameters are drawn in float32 (released: in bfloat16, then converted), in another order, with other random
  numbers. In bfloat16, the terms of LoRA and of the graph prefix are rounded later.
- The epoch is chosen on validation (released: all epochs are reported, none is chosen). Validation reads up to 49
  items before its target (released: 48; the test reads 49 in both).
- The embeddings of HeLLMPre are those of its best epoch on validation (released: of the last one), and those of SASRec
  are of the SASRec here (released: of unknown origin). The item that stands for padding is the first one of the dataset
  (released: the first in the order of its keys).
- The language model is that of `--llm` (released: Llama 2 7B).
- Parameters of the released code that no output depends on are left out.

Where the paper itself differs from the released code, the code's form is the default, and settings give the paper's:

- Eq. 9: the trainable map M, `prefix_map: learned`. Eq. 10: normalisation before the networks, `prefix_norm: before`.
- Figure 2: a prompt with a user and commas between the items, `{user}` in `prompt` and `item_separator`.
- The head is trained: `head: linear`. The preset `published` sets all of these.
"""

from __future__ import annotations

from hellm_recbole.models.llm_build import compose
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.types import TrainData


class HeLLM(LLMRecommender):
    """HeLLM: item tokens of two models, and a reader with the graph prefix."""

    @classmethod
    def build(cls, settings: LLMSettings, data: TrainData) -> HeLLM:
        """Build a model on the pretrained embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
            DataError: the language model cannot be found or loaded.
        """
        return compose(cls, settings, data)
