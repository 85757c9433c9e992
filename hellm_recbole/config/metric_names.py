"""Names of the metrics that a report computes on request, such as `MRR`, `HR@10` and `ILD-text@20`.

Recall@K and NDCG@K are not among them: every table has them, at the cut-offs of `--cutoffs`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.errors import SettingsError, shorten

OPTION = "--metrics"
MRR, HR, MAP = "MRR", "HR", "MAP"
COVERAGE, GINI, NOVELTY, POPULARITY, LIFT, DIVERSITY = "Coverage", "Gini", "Novelty", "ARP", "PopLift", "ILD"
RANK_KINDS = (MRR, HR, MAP)  # metrics of saved ranks
LIST_KINDS = (COVERAGE, GINI, NOVELTY, POPULARITY, LIFT, DIVERSITY)  # metrics of test lists
RANK_FORMS = "MRR, MRR@K, HR@K or MAP@K"
_FORMS = (
    f"{RANK_FORMS} (from ranks), Coverage@K, Gini@K, Novelty@K, ARP@K, PopLift@K, ILD@K or ILD-MODALITY@K (from test "
    f"lists), with K at most {LARGEST_CUTOFF:,}"
)
_NAME = re.compile(r"([A-Za-z]+)(?:-([A-Za-z0-9_]+))?(?:@([1-9][0-9]{0,6}))?")


@dataclass(frozen=True)
class MetricName:
    """Name of a metric.

    Attributes:
        kind: one of RANK_KINDS or LIST_KINDS.
        k: cut-off K; None for MRR over all ranks.
        modality: modality of ILD; None means all modalities of the dataset, and is the value for all other metrics.
    """

    kind: str
    k: int | None
    modality: str | None = None

    @property
    def reads_lists(self) -> bool:
        """Whether the metric is computed from test lists, not from ranks."""
        return self.kind in LIST_KINDS

    def __str__(self) -> str:
        modality = "" if self.modality is None else f"-{self.modality}"
        return self.kind + modality + ("" if self.k is None else f"@{self.k}")


def find_metric_name(text: str) -> MetricName | None:
    """Return the metric that a text names; None if it names none.

    >>> find_metric_name("ILD-text@10")
    MetricName(kind='ILD', k=10, modality='text')
    >>> find_metric_name("HR") is find_metric_name("R@10") is None
    True
    """
    match = _NAME.fullmatch(text)
    if match is None or match[1] not in (*RANK_KINDS, *LIST_KINDS):
        return None
    name = MetricName(match[1], None if match[3] is None else int(match[3]), match[2])
    if (name.k is None and name.kind != MRR) or (name.modality is not None and name.kind != DIVERSITY):
        return None
    return None if name.k is not None and name.k > LARGEST_CUTOFF else name


def is_rank_metric(text: str) -> bool:
    """Return whether a text is MRR, MRR@K, HR@K or MAP@K.

    >>> is_rank_metric("MRR"), is_rank_metric("Gini@10"), is_rank_metric("R@10")
    (True, False, False)
    """
    name = find_metric_name(text)
    return name is not None and not name.reads_lists


def parse_metric_names(text: str) -> tuple[MetricName, ...]:
    """Parse the names of `--metrics`. A repeated name is returned once.

    Raises:
        SettingsError: a name is unknown, or there is none.

    >>> [str(name) for name in parse_metric_names("MRR, HR@10,MRR")]
    ['MRR', 'HR@10']
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise SettingsError(f"{OPTION} names nothing; give names separated by commas: {_FORMS}")
    return check_metric_names(parts)


def check_metric_names(texts: Sequence[str]) -> tuple[MetricName, ...]:
    """Return the metrics that some texts name, each once.

    Raises:
        SettingsError: a name is unknown, or is an ILD of lists with one item, which have no pairs.
    """
    names = []
    for text in texts:
        name = find_metric_name(text)
        if name is None:
            raise SettingsError(f"{OPTION} {shorten(text)!r} is unknown; {_suggest(text)}")
        if name.kind == DIVERSITY and name.k == 1:
            raise SettingsError(f"{OPTION} {text}: a list of one item has no pairs of items; choose K from 2")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _suggest(text: str) -> str:
    """Suggest what a name that is unknown may have meant."""
    kind, _, k = text.partition("@")
    if kind.lower() in ("r", "n", "recall", "ndcg"):
        return f"every table has Recall and NDCG; choose their K with --cutoffs{f' {k}' if k.isdigit() else ''}"
    folded = {known.casefold(): known for known in (*RANK_KINDS, *LIST_KINDS)}
    bare, hyphen, modality = kind.partition("-")
    close = difflib.get_close_matches(bare.casefold(), folded, n=1, cutoff=0.7)
    meant = "" if not close else folded[close[0]] + (f"-{modality}" if hyphen else "") + f"@{k or 10}"
    hint = f"did you mean {meant}? " if meant != text and find_metric_name(meant) else ""
    return f"{hint}It can be {_FORMS}" if hint else f"it can be {_FORMS}"
