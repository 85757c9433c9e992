"""CoLLM: a language model that reads the item embeddings of a collaborative model, as the HeLLM paper compares it.

Zhang et al., "CoLLM: Integrating Collaborative Embeddings Into Large Language Models for Recommendation", TKDE 2025.

- Input of an item: LightGCN's embedding, projected to one token by two linear maps with GELU between them
  (`llm_inputs.ItemTokens`). There is no prefix, neither of a graph nor learnable.
- Two-step tuning (variant `two-step`): adapters are trained on item texts alone; then they are frozen, and the
  projection is trained (`llm_inputs.TwoStepTokens`).

**Deviations.** The yes/no question about one item is replaced by ranking all items, as in the HeLLM paper, and prompt,
head and training are HeLLM's (`models/hellm.py` lists how they differ from its released code). The HeLLM paper says
nothing of two steps, so the plain model is trained in one, and reads no titles. With `two-step`, both steps are parts
of one training: the optimizer is not restarted between them, and titles stay in the prompt. Users have no token.
LightGCN is trained on pairs (CoLLM's own: on labels).
"""

from __future__ import annotations

from hellm_recbole.models.llm_build import compose
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.types import TrainData


class CoLLM(LLMRecommender):
    """CoLLM: item tokens of one collaborative model, and a reader without a prefix."""

    @classmethod
    def build(cls, settings: LLMSettings, data: TrainData) -> CoLLM:
        """Build a model on the pretrained embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
            DataError: the language model cannot be found or loaded.
        """
        return compose(cls, settings, data)
