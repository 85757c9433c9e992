"""Captions of a table: the sentences about data, protocol, seeds, searches, failed runs and stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hellm_recbole.config.comparison import DEFAULT, Comparison
from hellm_recbole.config.request import Protocol
from hellm_recbole.data.splits.named import describe_details
from hellm_recbole.data.splits.settings import COLD_ITEMS
from hellm_recbole.experiments.earlier_names import RECBOLE_PREFIX
from hellm_recbole.experiments.external_lists import has_unknown_seed
from hellm_recbole.experiments.openings import describe_openings
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.models.base import Family
from hellm_recbole.report.best_rows import find_language_models
from hellm_recbole.report.comparisons import describe_correction, describe_tests
from hellm_recbole.report.footnotes import find_repacked_models
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.groups import list_successful
from hellm_recbole.report.protocols import READS_HISTORY, describe_inputs, describe_policies
from hellm_recbole.report.settings import ReportSettings
from hellm_recbole.report.shared_parts import write_shared_parts_note

# A table with a language model needs these rows for comparison, ours or RecBole's.
STRONG_BASELINES = ("Pop", "ItemKNN", "Transitions", "SASRec", "BSARec")
_READS_NO_TITLES = "LLaRA reads embeddings only; LLaRA-text is the row that also reads titles."
_HASH_DIGITS = 12


def write_notes(
    frame: ReportFrame, protocol: Protocol, policies: Mapping[Family, Policy], cutoffs: Sequence[int]
) -> list[str]:
    """Write the sentences of the caption, which say what the numbers are.

    Args:
        frame: runs of the table.
        protocol: protocol of the table.
        policies: masking policy of each family under this protocol.
        cutoffs: cut-offs K of the table.
    """
    records, first = frame.records, frame.records[0]
    own = [record for record in records if record.external is None]
    presets = sorted({r.preset for r in own})
    seeds = sorted({r.seed for r in records if not has_unknown_seed(r.external)})
    notes = [
        f"{first.dataset}, test part, full ranking over {first.n_candidates:,} candidates, K = {_join(cutoffs)}.",
        describe_policies(protocol, policies, {record.family for record in records}),
        *_write_input_note(frame),
        f"Split {first.split_kind}, {first.split_hash[:_HASH_DIGITS]}.",
        *_write_split_note(first),
        *_write_preset_note(presets, seeds),
    ]
    notes += write_sample_note(records)
    notes += _write_budget_note(records)
    notes += _write_last_epoch_note(records)
    if frame.paper:
        notes.append(
            "Paper: Table 1 of the HeLLM paper."
            if protocol == "paper"
            else "The paper's own numbers stand in table-paper, where each family keeps the mask policy of its source."
        )
    notes += write_shared_parts_note(records)
    notes += find_repacked_models(records)
    if any(record.model == "LLaRA" for record in records):
        notes.append(_READS_NO_TITLES)
    for group in frame.groups:
        if list_successful(group):
            others = [record for record in group if record.status != "success"]
            notes += [f"{record.label}, seed {record.seed}, {describe_problem(record)}." for record in others]
    opened = describe_openings(frame.openings, records)
    return notes if opened is None else [*notes, opened]


def _write_preset_note(presets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Name presets and seeds, where they are known; external rows have no preset, and may have no known seed."""
    parts = [f"{'Presets' if len(presets) > 1 else 'Preset'} {_join(presets)}"] if presets else []
    if seeds:
        several = f"seeds {_join(seeds)}; mean \u00b1 sd where a row has several"
        parts.append(several if len(seeds) > 1 else f"seed {seeds[0]}")
    return ["; ".join(parts) + "."] if parts else []


def _write_input_note(frame: ReportFrame) -> list[str]:
    """Say which rows read the validation item at test, in a table whose masking policy was asked for."""
    if frame.mask is None:
        return []
    others = [record for record in frame.records if record.family not in READS_HISTORY]
    combined = sorted({record.label for record in others if record.combination is not None})
    return [describe_inputs(frame.mask, {record.family for record in frame.records}, combined)]


def _write_split_note(record: RunResult) -> list[str]:
    """Say how a split of `--split` cuts and what it leaves out."""
    if record.split_details is None:
        return []
    described = describe_details(record.split_kind, record.split_details)
    notes = [f"{described[0].upper()}{described[1:]}.", f"{record.counts['test']:,} test targets."]
    if record.split_kind.startswith(COLD_ITEMS):
        notes.append("Items without training are still negatives in training, as all items are.")
    return notes


def write_sample_note(records: Sequence[RunResult]) -> list[str]:
    """Say which rows were validated on a sample of users, which changes the epoch that is chosen; nothing if none was.

    Args:
        records: runs of the table.
    """
    own = [record for record in records if record.external is None and record.status == "success"]
    rows: dict[str, set[str]] = {}
    for record in own:
        sample = record.valid_sample
        size = "all users" if sample is None else f"{sample['users']:,} of {sample['of']:,} users"
        rows.setdefault(size, set()).add(record.label)
    if all(record.valid_sample is None for record in own):
        return []
    start = "Validation, which chooses epochs and weights, evaluated a fixed random sample of users"
    if len(rows) == 1:
        return [f"{start}: {next(iter(rows))}. The test part is whole."]
    each = "; ".join(f"{_join(sorted(labels))} on {size}" for size, labels in sorted(rows.items()))
    return [
        f"Rows differ in the users of validation, which chooses epochs and weights: {each}. The test part is whole."
    ]


def _write_last_epoch_note(records: Sequence[RunResult]) -> list[str]:
    """Name the rows that were best at the last epoch that they may train, so that more epochs may improve them."""
    limited = {
        record.label
        for record in records
        if record.combination is None
        and "epochs" in record.settings
        and record.best_epoch == record.settings["epochs"]["value"]
    }
    return (
        [f"Best at the last epoch allowed, so more epochs may improve them: {_join(sorted(limited))}."]
        if limited
        else []
    )


def _write_budget_note(records: Sequence[RunResult]) -> list[str]:
    """Say with which budgets the values of tuned rows were searched, if there are any."""
    budgets = {record.label: record.search["budget"] for record in records if record.search is not None}
    if not budgets:
        return []
    kind = "equal budgets" if len(set(budgets.values())) == 1 else "UNEQUAL budgets"
    each = _join([f"{row} {budget}" for row, budget in sorted(budgets.items())])
    return [f"Values of tuned rows were searched on validation with {kind}: {each}."]


def write_seed_note(models: Sequence[tuple[str, int]]) -> list[str]:
    """Say that rows have different numbers of seeds, if they do: a mean over more seeds varies less.

    Args:
        models: model and number of successful seeds of each row, in the order of the table.

    >>> write_seed_note([("Pop", 2), ("BM3", 2), ("VBPR", 0)])
    []
    """
    counts: dict[int, list[str]] = {}
    for model, n_seeds in models:
        if n_seeds:
            counts.setdefault(n_seeds, []).append(model)
    if len(counts) < 2:
        return []
    usual = max(counts, key=lambda count: len(counts[count]))  # the number of seeds that most rows have
    others = [f"{model} {count}" for count in sorted(counts) if count != usual for model in counts[count]]
    return [
        f"Numbers of seeds differ ({_join(others)}, all others {usual}), so no star stands between a row and a rival "
        "with another number of seeds."
    ]


def write_stamp(records: Sequence[RunResult]) -> str | None:
    """Warn that the table has a language model but not all strong baselines; None where there is nothing to warn of."""
    successful = list_successful(records)
    models = {record.model.removeprefix(RECBOLE_PREFIX) for record in successful}
    missing = [name for name in STRONG_BASELINES if name not in models]
    if not missing or not find_language_models(successful):
        return None
    start = "No strong baseline" if len(missing) == len(STRONG_BASELINES) else "Missing baselines"
    return f"{start}: rows with a language model stand here without {_join(missing)} on the same split."


def write_mark_note(
    settings: ReportSettings, n_tests: int, comparison: Comparison = DEFAULT, against: str | None = None
) -> str | None:
    """Write the sentence that explains the star; None if the table has no comparison.

    Args:
        settings: settings of the report.
        n_tests: number of comparisons in the table.
        comparison: how the rows are compared.
        against: name of the row that all others are compared with; None for the best rival of each row.
    """
    if n_tests == 0:
        return None
    subject = (
        "the best row of a column is better than its best rival"
        if against is None
        else f"a row is better or worse than {against}"
    )
    further = ", ".join(comparison.tests[1:])
    return (
        f"{subject} at p < {settings.significance_level:g}: {describe_tests(comparison, settings)}, "
        f"{describe_correction(comparison, n_tests)} of a row with {against or 'its best rival'} in this table."
        + (f" The CSV file also has p-values of these tests, corrected in the same way: {further}." if further else "")
    )


def describe_problem(record: RunResult) -> str:
    """Return the status of a run and the reason for it, on one line."""
    return f"{record.status}: {' '.join((record.reason or '').split())}"


def _join(values: Sequence[object]) -> str:
    """Write the values with commas between them."""
    return ", ".join(map(str, values))
