"""E4SRec: a language model that reads the item embeddings of a sequential model through one linear map.

Li et al., "E4SRec: An Elegant Effective Efficient Extensible Solution of Large Language Models for Sequential
Recommendation", 2023. HeLLM's released code starts from that of E4SRec.

- Input of an item: SASRec's frozen embedding, projected to one token by a linear map (`llm_inputs.ItemTokens`). There
  is no prefix, and no item text.
- Score of an item: inner product of the state with the item's row of a trained matrix (`llm_head.LinearVectors`).
- Loss: cross-entropy over all items.

**Deviations.** Prompt, examples, adapters and training are HeLLM's, as for the other models that are compared with it
(`models/hellm.py` lists how they differ from the released code): a target at every item instead of one prefix for each
step, so that the empty prefix, which is an example of the released code, has none; an instruction of one sentence
instead of Alpaca's template. Embeddings, tokens and states are brought to one scale (`scaled_inputs`). The original
evaluation ranks one target among 99 sampled items; here, all items are ranked.
"""

from __future__ import annotations

from hellm_recbole.models.llm_build import compose
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.types import TrainData


class E4SRec(LLMRecommender):
    """E4SRec: item tokens of one sequential model by a linear map, and a trained linear head."""

    @classmethod
    def build(cls, settings: LLMSettings, data: TrainData) -> E4SRec:
        """Build a model on the pretrained embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
            DataError: the language model cannot be found or loaded.
        """
        return compose(cls, settings, data)
