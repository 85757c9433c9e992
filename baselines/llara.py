"""LLaRA: a language model that reads the item embeddings of a sequential model, as the HeLLM paper compares it.

Liao et al., "LLaRA: Large Language-Recommendation Assistant", SIGIR 2024.

- Input of an item: SASRec's embedding, projected to one token by two linear maps with GELU between them
  (`llm_inputs.ItemTokens`). There is no prefix, neither of a graph nor learnable.
- Hybrid prompt (variant `text`): the text of each item, then its token (`llm_reader.py`).
- Curriculum (variant `text-curriculum`): with training progress p, a step reads the hybrid prompt with probability p,
  otherwise texts with a placeholder word instead of each token (`llm_inputs.CurriculumTokens`).

**Deviations.** Choosing among 20 titles is replaced by ranking all items, as in the HeLLM paper, and prompt, head and
training are HeLLM's (`models/hellm.py` lists how they differ from its released code). HeLLM's prompt has no titles, so
the plain row `LLaRA` reads embeddings only; `LLaRA-text` is the row with titles. It and `LLaRA-text-curriculum` read
ten items, as LLaRA does, without commas between them. Whether a step reads texts alone is drawn once for each batch.
"""

from __future__ import annotations

from hellm_recbole.models.llm_build import compose
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.types import TrainData


class LLaRA(LLMRecommender):
    """LLaRA: item tokens of one sequential model, and a reader without a prefix."""

    @classmethod
    def build(cls, settings: LLMSettings, data: TrainData) -> LLaRA:
        """Build a model on the pretrained embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
            DataError: the language model cannot be found or loaded.
        """
        return compose(cls, settings, data)
