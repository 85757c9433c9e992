"""Claims of the HeLLM paper's text, each tested with the rows that were run here.

A claim "A is above B" with several rows on a side says that every row of A is above every row of B. Each pair is tested
by the paired bootstrap of `evaluation.significance`. If all differences are positive, the claim needs all of them: its
p-value is the largest one (intersection-union test, Berger 1982). Otherwise a negative difference refutes it: its
p-value is the smallest one of the negative differences after Holm's correction over the claim's pairs.

A claim "A and B are level" is tested for equivalence (two one-sided tests, Schuirmann 1987): under the null hypothesis
the difference is at least the margin. If the observed difference is larger than the margin, the null hypothesis of the
refutation is that it is at most the margin.

The p-values of all claims that can be tested are then corrected by Holm's method. The claims themselves are in
`properties/references/claims.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.errors import SettingsError
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value, correct_holm
from hellm_recbole.report.frame import Floats, ReportFrame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.references import FOLDER, METRIC, read_checked_file
from hellm_recbole.report.settings import ReportSettings
from hellm_recbole.report.slices import BoolArray, slice_by_history

Verdict = Literal["holds", "does not hold", "cannot be said"]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's text.

    Attributes:
        name: short name of the claim.
        statement: the claim as a sentence, without a full stop.
        better: rows that are above each row of `than`; one row if the claim is that two rows are level.
        than: rows below; one row if the claim is that two rows are level.
        margin: largest difference of two level rows, as a fraction of their mean; None if the claim is of rows above
            others.
        short_histories: whether the claim is about users with short histories only.
        metric: metric of the comparison.
    """

    name: str
    statement: str
    better: tuple[str, ...]
    than: tuple[str, ...]
    margin: float | None
    short_histories: bool
    metric: str


@dataclass(frozen=True)
class Pair:
    """The comparison of a row of `better` with a row of `than`.

    Attributes:
        names: labels of the two rows.
        means: means of the two rows over users and seeds.
        difference: mean difference over users.
        low: lower end of its bootstrap interval.
        high: upper end of that interval.
        p: p-value of the pair alone, not corrected.
    """

    names: tuple[str, str]
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class ClaimResult:
    """What the runs say about a claim.

    Attributes:
        claim: the claim.
        verdict: whether it holds here.
        missing: rows of the claim that have no successful run; the claim is then not tested.
        pair: the pair that decides; None if the claim is not tested.
        n_pairs: number of pairs of the claim.
        p: p-value of the claim, Holm-corrected over all tested claims; None if the claim is not tested.
        users: number of users of the comparison; 0 if the claim is not tested.
        slice: name of the group of users; "" for all users.
        n_seeds: smallest and largest number of seeds of the rows.
    """

    claim: Claim
    verdict: Verdict
    missing: tuple[str, ...]
    pair: Pair | None = None
    n_pairs: int = 0
    p: float | None = None
    users: int = 0
    slice: str = ""
    n_seeds: tuple[int, int] = (0, 0)


class _ClaimFile(TypedDict):
    statement: str
    metric: str
    better: NotRequired[tuple[str, ...]]
    than: NotRequired[tuple[str, ...]]
    level: NotRequired[tuple[str, str]]
    margin: NotRequired[float]
    users: NotRequired[Literal["short histories"]]


@dataclass(frozen=True)
class _Candidate:
    """A claim with the runs of its rows in one setup: row -> group, without the missing rows."""

    claim: Claim
    groups: Mapping[str, Group]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in (*self.claim.better, *self.claim.than) if name not in self.groups)


@dataclass(frozen=True)
class _Sample:
    """Metrics of some users and the means of their resamples.

    Attributes:
        name: name of the group of users; "" for all users.
        users: number of users U.
        means: (label of a row and its preset, metric) -> mean.
        resampled: the same keys -> [N] mean of each resample.
    """

    name: str
    users: int
    means: Mapping[tuple[str, str, str], float]
    resampled: Mapping[tuple[str, str, str], Floats]


def read_claims() -> tuple[Claim, ...]:
    """Read the claims in `properties/references/claims.yaml`.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or has a wrong value; the message names the
            file and the key.
    """
    path = find_properties() / FOLDER / "claims.yaml"
    content = read_checked_file(path, dict[str, _ClaimFile])
    claims = []
    for name, claim in content.items():
        level = claim.get("level", ())
        better, than = (level[:1], level[1:]) if level else (claim.get("better", ()), claim.get("than", ()))
        keys = {"level", "margin"} if level else {"better", "than"}
        if not (better and than) or keys != claim.keys() & {"better", "than", "level", "margin"}:
            raise SettingsError(f"{path}: {name} must have either better and than, or level and margin")
        if not METRIC.fullmatch(claim["metric"]):
            raise SettingsError(f"{path}: {name}.metric is {claim['metric']}, neither R@K nor N@K")
        margin, short = claim.get("margin"), "users" in claim
        claims.append(Claim(name, claim["statement"], better, than, margin, short, claim["metric"]))
    return tuple(claims)


def judge_claims(frame: ReportFrame, settings: ReportSettings) -> tuple[ClaimResult, ...]:
    """Judge the claims of the paper with the runs of a dataset, under the masking policy of the protocol `unified`.

    A claim is judged once for each setup (preset, tuned or not, language model) that has all its rows. If there is
    none, the claim cannot be judged, and the result names the missing rows of the most complete setup.

    Args:
        frame: all runs of the dataset, with variants.
        settings: settings of the bootstrap and of the slices.

    Raises:
        SettingsError: the file of the claims is broken.
    """
    candidates = [candidate for claim in read_claims() for candidate in _find_rows(frame, claim)]
    complete = [candidate for candidate in candidates if not candidate.missing]
    samples = {
        short: _resample(frame, [c for c in complete if c.claim.short_histories == short], short, settings)
        for short in {candidate.claim.short_histories for candidate in complete}
    }
    tests = {
        index: _test_claim(candidate, samples[candidate.claim.short_histories], settings)
        for index, candidate in enumerate(candidates)
        if not candidate.missing
    }
    corrected = correct_holm(np.array([p for _, p in tests.values()])).tolist()
    p_values: dict[int, float] = dict(zip(tests, corrected, strict=True))
    results = []
    for index, candidate in enumerate(candidates):
        if index not in tests:
            results.append(ClaimResult(candidate.claim, "cannot be said", candidate.missing))
            continue
        pair, sample = tests[index][0], samples[candidate.claim.short_histories]
        counts = [len(list_successful(group)) for group in candidate.groups.values()]
        results.append(
            ClaimResult(
                claim=candidate.claim,
                verdict=_choose_verdict(candidate.claim, pair, p_values[index], settings),
                missing=(),
                pair=pair,
                n_pairs=len(candidate.claim.better) * len(candidate.claim.than),
                p=p_values[index],
                users=sample.users,
                slice=sample.name,
                n_seeds=(min(counts), max(counts)),
            )
        )
    return tuple(results)


def _find_rows(frame: ReportFrame, claim: Claim) -> list[_Candidate]:
    """Find the rows of a claim in each setup; if no setup has all, only the one with the fewest missing rows."""
    finished = [group for group in frame.groups if list_successful(group)]
    setups = dict.fromkeys((group[0].preset, group[0].search is not None) for group in finished)
    found: dict[tuple[tuple[str, str], ...], _Candidate] = {}
    for preset, tuned in setups or {("", False): None}:
        members = [g for g in finished if (g[0].preset, g[0].search is not None) == (preset, tuned)]
        backbones = sorted({g[0].backbone for g in members if g[0].backbone is not None})
        for backbone in backbones or (None,):
            chosen = {g[0].model: g for g in members if g[0].backbone in (None, backbone)}
            rows = {name: chosen[name] for name in (*claim.better, *claim.than) if name in chosen}
            candidate = _Candidate(claim, rows)
            found.setdefault(tuple(_get_row_key(group) for group in rows.values()), candidate)
    complete = [candidate for candidate in found.values() if not candidate.missing]
    return complete or [min(found.values(), key=lambda candidate: len(candidate.missing))]


def _get_row_key(group: Group) -> tuple[str, str]:
    """Return label and preset of a group, which name a row of a table."""
    return group[0].label, group[0].preset


def _resample(
    frame: ReportFrame, candidates: Sequence[_Candidate], short_histories: bool, settings: ReportSettings
) -> _Sample:
    """Compute and resample all metrics that some claims need.

    Args:
        frame: all runs.
        candidates: claims with all their rows, at least one.
        short_histories: whether to use only the users with short histories.
        settings: settings of the bootstrap and of the slices.
    """
    columns: dict[tuple[str, str, str], Floats] = {}
    for candidate in candidates:
        for group in candidate.groups.values():
            key = (*_get_row_key(group), candidate.claim.metric)
            if key not in columns:
                columns[key] = frame.average_seeds(group, [candidate.claim.metric])[:, 0]
    values, name = np.stack([*columns.values()], axis=1), ""
    if short_histories:
        name, mask = _find_short_histories(frame, next(iter(candidates[0].groups.values())), settings)
        values = values[mask]
    resampled = bootstrap_means(values, settings.n_resamples, settings.bootstrap_seed)
    means = {key: float(mean) for key, mean in zip(columns, values.mean(axis=0), strict=True)}
    return _Sample(name, len(values), means, dict(zip(columns, resampled.T, strict=True)))


def _find_short_histories(frame: ReportFrame, group: Group, settings: ReportSettings) -> tuple[str, BoolArray]:
    """Find the users with the shortest histories.

    Returns:
        Name of the group of users, and [U] mask of its users, sorted by token.
    """
    targets = frame.get_targets(list_successful(group)[0])
    # All targets of a user have the same history, so a user is in one group.
    _, first = np.unique(targets["user"].cat.codes.to_numpy(), return_index=True)
    lengths = targets["history_length"].to_numpy()[first]
    return next(iter(slice_by_history(lengths, settings.history_quantiles).items()))


def _test_claim(candidate: _Candidate, sample: _Sample, settings: ReportSettings) -> tuple[Pair, float]:
    """Test a claim that has all its rows: return the pair that decides, and the p-value of the claim."""
    claim = candidate.claim
    pairs, differences = [], []
    for names in product(claim.better, claim.than):
        keys = [(*_get_row_key(candidate.groups[name]), claim.metric) for name in names]
        means = (sample.means[keys[0]], sample.means[keys[1]])
        resampled = sample.resampled[keys[0]] - sample.resampled[keys[1]]
        low, high = compute_interval(resampled, settings.confidence_level)
        difference = means[0] - means[1]
        p = compute_p_value(difference, resampled)
        pairs.append(Pair((keys[0][0], keys[1][0]), means, difference, float(low), float(high), p))
        differences.append(resampled)
    if claim.margin is not None:
        return pairs[0], _test_level(pairs[0].difference, differences[0], claim.margin * sum(pairs[0].means) / 2)
    if all(pair.difference > 0 for pair in pairs):
        weakest = max(pairs, key=lambda pair: (pair.p, -pair.difference))
        return weakest, weakest.p
    corrected = correct_holm(np.array([pair.p for pair in pairs]))
    contrary = [(float(p), pair) for p, pair in zip(corrected, pairs, strict=True) if pair.difference <= 0]
    p, pair = min(contrary, key=lambda entry: (entry[0], entry[1].difference))
    return pair, p


def _test_level(difference: float, resampled: Floats, margin: float) -> float:
    """Test whether two rows are level, or, if the observed difference exceeds the margin, whether they are not.

    Args:
        difference: observed mean difference.
        resampled: [N] mean difference of each resample.
        margin: largest difference of two level rows.

    Returns:
        The larger p-value of the two one-sided tests; or twice the one-sided p-value of the refutation, at most 1.

    >>> _test_level(0.0, np.array([-0.1, 0.0, 0.1]), 0.2), _test_level(0.5, np.array([0.4, 0.5, 0.6]), 0.45)
    (0.25, 1.0)
    """
    noise = resampled - difference

    def compute_p(extreme: BoolArray) -> float:
        return (1 + int(np.count_nonzero(extreme))) / (1 + len(noise))

    if abs(difference) < margin:
        return max(compute_p(noise <= difference - margin), compute_p(noise >= difference + margin))
    return min(1.0, 2 * compute_p(np.copysign(1.0, difference) * noise >= abs(difference) - margin))


def _choose_verdict(claim: Claim, pair: Pair, p: float, settings: ReportSettings) -> Verdict:
    """Choose the verdict: a p-value that is not significant, or an interval that is not clear, says nothing."""
    if p >= settings.significance_level:
        return "cannot be said"
    if claim.margin is not None:
        margin = claim.margin * sum(pair.means) / 2
        if abs(pair.difference) >= margin:
            return "does not hold"
        return "holds" if -margin < pair.low and pair.high < margin else "cannot be said"
    if pair.low <= 0 <= pair.high:
        return "cannot be said"
    return "holds" if pair.difference > 0 else "does not hold"
