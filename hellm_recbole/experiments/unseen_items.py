"""Which models can score items that no training interaction has, as the split `cold-items` asks for.

A model can if it reads item features or item texts, or the embeddings or scores of a model that can. For any other
model, such items have the vectors or counts with which training began, so its ranks would be noise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hellm_recbole.data.splits.settings import COLD_ITEMS, OPTION, split_option
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.run_config import RunConfig


def holds_items_out(split: str | None) -> bool:
    """Return whether a value of `--split`, or a kind of split, holds items out of training.

    >>> holds_items_out("cold-items:seed=1"), holds_items_out("ratio"), holds_items_out(None)
    (True, False, False)
    """
    return split is not None and split_option(split)[0] == COLD_ITEMS


def can_score_unseen_items(config: RunConfig, others: Mapping[str, RunConfig], modalities: Collection[str]) -> bool:
    """Return whether a model can score items without training interactions.

    Args:
        config: config of its run.
        others: model -> config of its run, for the pretrained models that it reads. A model that is missing here has
            its embeddings in a file, which may have such items.
        modalities: modalities of the dataset.
    """
    if config.reads_texts or config.choose_features(dict.fromkeys(modalities)):
        return True
    read = [*(others.get(model) for model in config.pretrained_models), *config.combined_runs]
    return any(one is None or can_score_unseen_items(one, others, modalities) for one in read)


def refuse_blind_models(
    configs: Sequence[RunConfig], named: Collection[str], split: str, modalities: Collection[str]
) -> None:
    """Refuse models that cannot score the targets of a split.

    Args:
        configs: configs of the named models and of all that they read.
        named: names of the models that are checked.
        split: kind of the split.
        modalities: modalities of the dataset.

    Raises:
        ModelError: the split holds items out of training, and a model cannot score them; the message names all.
    """
    if not holds_items_out(split):
        return
    others = {config.model: config for config in configs if config.search is None}
    blind = [one.model for one in configs if one.model in named and not can_score_unseen_items(one, others, modalities)]
    if blind:
        they = "it reads" if len(blind) == 1 else "they read"
        raise ModelError(
            f"{OPTION} {COLD_ITEMS} ranks items without training interactions, which {', '.join(blind)} cannot score, "
            f"because {they} neither features nor texts of the items; name models that do, or --models all for these"
        )
