"""Settings of the models whose language model reads histories of items: HeLLM, CoLLM, LLaRA, E4SRec and HeLLM-plus.

Only the functions that build a model read them; its parts get ready values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from hellm_recbole.errors import ModelError
from hellm_recbole.llm.settings import NO_BACKBONE, LanguageModelSettings
from hellm_recbole.models.softmax import SoftmaxSettings
from hellm_recbole.types import name_user_table

USER_SLOT = "{user}"  # place of the user's token in a prompt
BRACES = "{}"
JOINT, CURRICULUM, TWO_STEP = "joint", "curriculum", "two-step"


class ReaderSettings(LanguageModelSettings, SoftmaxSettings):
    """Hyper-parameters of every model whose language model reads histories of items.

    Attributes:
        item_inputs: models whose item embeddings are concatenated into the input of an item.
        prefix_graph: model whose item embeddings are pooled for the graph prefix; None keeps the learnable part only.
        prefix_map: map of the graph embeddings before they are pooled: none (released code), or learned, a trained
            square matrix (paper, M of Eq. 9). Without a graph there is nothing to map.
        prefix_length: n, number of prefixes of each layer; 0 for none.
        prefix_hidden: hidden width of the prefix networks.
        prefix_dropout: dropout probability of the prefix networks.
        prefix_norm: normalisation after (released code) or before (paper) the networks.
        prefix_eps: number added to the mean square in the RMS normalisations of the prefix.
        prompt: text before the items. If examples are not causal, `{user}` in it is the place of the user's token, made
            of the user embeddings of the model of the graph prefix, or else of the first of `item_inputs`.
        max_history: maximum number of items read, the most recent ones.
        item_dropout: dropout probability of an item's embeddings, before the projection.
        head_dropout: dropout probability of the states, before the head.
        scale_sample_users: number of users whose histories are used to measure mean and deviation of the states.
        state_eps: share of the deviation over all dimensions that is added to the deviation of each dimension, so that
            a dimension that hardly changes does not become too large.
        score_rows: number of users read at a time in scoring.
    """

    item_inputs: tuple[str, ...]
    prefix_graph: str | None
    prefix_map: Literal["none", "learned"]
    prefix_length: int = Field(ge=0)
    prefix_hidden: int = Field(ge=1)
    prefix_dropout: float = Field(ge=0, lt=1)
    prefix_norm: Literal["after", "before"]
    prefix_eps: float = Field(gt=0)
    prompt: str
    max_history: int = Field(ge=1)
    item_dropout: float = Field(ge=0, lt=1)
    head_dropout: float = Field(ge=0, lt=1)
    scale_sample_users: int = Field(ge=1)
    state_eps: float = Field(ge=0)
    score_rows: int = Field(ge=1)

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Names of the models whose item embeddings are read."""
        graph = () if self.prefix_graph is None or self.prefix_length == 0 else (self.prefix_graph,)
        user = () if self.user_model is None else (self.user_model,)
        return tuple(dict.fromkeys((*self.item_inputs, *graph, *user)))

    @property
    def user_model(self) -> str | None:
        """Name of the model whose user embeddings are read; None if no user's token is read."""
        return None

    @property
    def pretrained_tables(self) -> tuple[str, ...]:
        """Names of the tables of these models that are read (see `types.TrainData.pretrained`)."""
        user = () if self.user_model is None else (name_user_table(self.user_model),)
        return (*self.pretrained_models, *user)

    @property
    def text_tokens(self) -> int:
        """Maximum number of tokens of an item's text that are read in a history; 0 if none is."""
        return 0

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts that start a sequence or follow the items, in the order of their numbers in `llm_reader.py`."""
        return (self.prompt,)

    @property
    def inner_texts(self) -> tuple[str, ...]:
        """The texts inside a sequence, which get no special tokens."""
        return ()


class LLMSettings(ReaderSettings):
    """Hyper-parameters of HeLLM, CoLLM, LLaRA and E4SRec.

    Attributes:
        item_projector: map from an item's embeddings to its token: mlp (two linear maps with GELU between them) or
            linear (E4SRec).
        pad_pooled_to: in training, each history is padded with the first item before it is pooled for the prefix: to
            the longest history of the batch, and to this number of items at least (released code: 2); 0 pools no
            padding. Scoring never pools padding.
        examples: how a history becomes examples: causal (one example, each item predicts the next one), all (each
            beginning of the history is an example) or random (some beginnings are drawn in each epoch).
        head: vectors that score the items: embedding (the item embeddings that the model reads), linear (a trained
            table) or frozen-random (a random table that is not trained, as in the released code).
        item_text_tokens: maximum number of tokens of an item's text, read before the item's embedding; 0 reads none.
        tuning: joint; curriculum (LLaRA: a step reads texts alone with a probability that falls from 1 to 0 over
            training); two-step (CoLLM: texts alone in the first part of the epochs, then the adapters are frozen).
        text_alone_frac: share of the epochs in which two-step tuning reads texts alone.
        placeholder: text whose last token replaces an item's embedding where texts are read alone.
        item_separator: text between two items.
        ending: text after the items; causal examples do not read it.
        scaled_inputs: whether item tables are brought to mean square 1, item tokens to the mean square of word tokens,
            and each dimension of the states to mean 0 and deviation 1.
    """

    item_projector: Literal["mlp", "linear"]
    pad_pooled_to: int = Field(ge=0)
    examples: Literal["causal", "all", "random"]
    head: Literal["embedding", "linear", "frozen-random"]
    item_text_tokens: int = Field(ge=0)
    tuning: Literal["joint", "curriculum", "two-step"]
    text_alone_frac: float = Field(ge=0, le=1)
    placeholder: str
    item_separator: str
    ending: str
    scaled_inputs: bool

    @model_validator(mode="after")
    def _check_braces(self) -> Self:
        """Refuse braces that the language model would read as they are, though they look like a place for something.

        Raises:
            ValueError: there are braces where nothing is put in.
        """
        if any(brace in self.prompt.replace(USER_SLOT, "") for brace in BRACES):
            raise ValueError(
                f"prompt has braces that are not {USER_SLOT}, the only place that it can have; change or remove them"
            )
        for key, text in (("item_separator", self.item_separator), ("ending", self.ending)):
            if any(brace in text for brace in BRACES):
                raise ValueError(f"{key} has braces, but only the text before the items can have a place; remove them")
        return self

    @property
    def user_model(self) -> str | None:
        """Name of the model whose user embeddings are read; None if no user's token is read."""
        if USER_SLOT not in self.prompt or self.llm_weights == NO_BACKBONE:
            return None
        return self.prefix_graph or next(iter(self.item_inputs), None)

    @property
    def text_tokens(self) -> int:
        """Maximum number of tokens of an item's text that are read in a history; 0 if none is."""
        return self.item_text_tokens

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts that start a sequence or follow the items: prompt up to the user's slot, ending, placeholder."""
        return self.prompt.partition(USER_SLOT)[0], self.ending, self.placeholder

    @property
    def inner_texts(self) -> tuple[str, ...]:
        """The texts inside a sequence: prompt after the user's slot, separator."""
        return self.prompt.partition(USER_SLOT)[2], self.item_separator


def refuse_contradictions(settings: LanguageModelSettings, item_texts: Sequence[str]) -> None:
    """Refuse settings of HeLLM, CoLLM or LLaRA that contradict each other or the dataset.

    Those of a model with settings of its own are checked when they are resolved.

    Args:
        settings: hyper-parameters.
        item_texts: [I + 1] texts of the items; empty if the dataset has none.

    Raises:
        ModelError: they do; the message names the settings.
    """
    if not isinstance(settings, LLMSettings):
        return
    if settings.tuning != JOINT and not settings.item_text_tokens:
        raise ModelError(f"tuning = {settings.tuning} reads item texts; set item_text_tokens, for example to 16")
    if settings.tuning != JOINT and settings.llm_weights == NO_BACKBONE:
        raise ModelError(
            f"tuning = {settings.tuning} reads item texts, and llm_weights = {NO_BACKBONE} leaves no language model "
            f"that could; set tuning to {JOINT}"
        )
    if settings.tuning != JOINT and settings.item_projector != "mlp":
        raise ModelError(
            f"tuning = {settings.tuning} has a projector of two maps; set item_projector to mlp, or tuning to {JOINT}"
        )
    if settings.prompt.count(USER_SLOT) > 1:
        raise ModelError(f"prompt has {settings.prompt.count(USER_SLOT)} places {USER_SLOT}; there can be one")
    if settings.user_model is not None and settings.examples == "causal":
        raise ModelError(
            f"prompt has a place {USER_SLOT}, but examples = causal reads the prompt once for all users; set examples "
            f"to all or random, or take {USER_SLOT} out of the prompt"
        )
    if settings.pad_pooled_to and settings.examples == "causal":
        raise ModelError(
            "pad_pooled_to pools the padding of a batch, and examples = causal pools the items up to each one; set "
            "examples to all or random, or pad_pooled_to to 0"
        )
    if not settings.item_inputs:
        raise ModelError("item_inputs is empty; name at least one model, for example SASRec")
    if settings.llm_weights != NO_BACKBONE and settings.item_text_tokens and not item_texts:
        raise ModelError("item_text_tokens is set, but the dataset has no item texts; set it to 0")
