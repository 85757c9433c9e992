"""Compare the values of models with those of their public code, and print the table of errors."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from hellm_recbole.benchmarks.upstream import initial_values
from hellm_recbole.benchmarks.upstream.bsarec_parity import HEADS, compare_bsarec
from hellm_recbole.benchmarks.upstream.hellm_parity import compare_hellm
from hellm_recbole.benchmarks.upstream.initial_values import OTHER_INITIAL, compare_initial_values
from hellm_recbole.benchmarks.upstream.sample_data import BATCHES, make_batches, make_data
from hellm_recbole.benchmarks.upstream.sides import CHANGED, build_sides, compute_relative_error
from hellm_recbole.types import TrainData

MODALITIES = (("image", "text"), ("image",))
ONCE = ("LightGCN", "HeLLMPre")  # models that are compared on one set of modalities
GRAPH_BOUND, BOUND = 1e-6, 1e-10


def compare(name: str, checkout: Path, data: TrainData) -> list[float]:
    """Compute the errors of graphs, scores, loss and gradients, and of the parameters after one and after three steps.

    Raises:
        DataError: the folder is not a checkout of the public code.
        MissingDependency: a package that MMRec's model imports is not installed.
        HellmError: a parameter without a counterpart has a gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides, graph_error = build_sides(name, checkout.resolve(), data, Path(folder))
    errors = [graph_error, compute_relative_error(*sides.compute_scores())]
    for step, batch in enumerate(make_batches()):
        for optimizer in sides.optimizers:
            optimizer.zero_grad(set_to_none=not sides.zero_idle)
        losses = sides.compute_losses(batch)
        for loss in losses:
            loss.backward()
        if step == 0:
            errors += [compute_relative_error(*(loss.detach() for loss in losses)), sides.compute_gradient_error()]
            errors[0] = max(errors[0], sides.share_learned_graph())
        for optimizer in sides.optimizers:
            optimizer.step()
        if step in (0, len(BATCHES) - 1):
            errors.append(sides.compute_parameter_error())
    return errors


def print_errors(mmrec: Path | None, released: Path | None, hellm: Path | None, bsarec: Path | None) -> int:
    """Compare the models and print the tables of errors. Return 1 if an error is above its bound, else 0.

    Args:
        mmrec: folder with a checkout of MMRec, or None to leave its models out.
        released: folder with a checkout of MMHCL, or None to leave it out.
        hellm: folder with a checkout of the released code of HeLLM, or None to leave it out.
        bsarec: folder with a checkout of BSARec, or None to leave it out.

    Raises:
        HellmError: a folder is not a checkout of the public code, or a package that it imports is not installed.
    """
    codes = [0]
    if mmrec is not None or released is not None:
        codes += [_print_models(mmrec, released), _print_initial_values(mmrec, released)]
    if hellm is not None:
        codes.append(_print_hellm(hellm))
    if bsarec is not None:
        codes.append(_print_bsarec(bsarec))
    return max(codes)


def _print_bsarec(checkout: Path) -> int:
    """Print the errors of BSARec. Return 1 if one is above its bound, else 0."""
    rows = compare_bsarec(checkout)
    lines = [(what, *(f"{error:.1e}" for error in errors)) for what, errors in rows]
    print(tabulate(lines, headers=HEADS, disable_numparse=True))
    failed = [what for what, errors in rows if not max(errors) <= BOUND]
    if failed:
        print(f"BSARec, above {BOUND:g}: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _print_models(mmrec: Path | None, released: Path | None) -> int:
    """Print the errors of the models that train on pairs. Return 1 if one is above its bound, else 0."""
    checkouts = {name: released if name == "HeLLMPre" else mmrec for name in CHANGED}
    rows: list[tuple[str, str, str, list[float]]] = []
    for name, checkout in checkouts.items():
        for modalities in MODALITIES if name not in ONCE else MODALITIES[:1]:
            for hard in (False, True):
                if checkout is None:
                    continue
                with contextlib.redirect_stdout(io.StringIO()):  # hides the output of the public code
                    errors = compare(name, checkout, make_data(modalities, hard=hard))
                read = "none" if name == "LightGCN" else " + ".join(modalities)
                rows.append((name, read, "second" if hard else "first", errors))
    lines = [(*what, *(f"{error:.1e}" for error in errors)) for *what, errors in rows]
    heads = ["Model", "Modalities", "Data", "Graphs", "Scores", "Loss", "Gradients", "1 step", "3 steps"]
    print(tabulate(lines, headers=heads, disable_numparse=True))
    failed = [name for name, _, _, (graphs, *others) in rows if graphs > GRAPH_BOUND or not max(others) <= BOUND]
    if failed:
        print(f"above {GRAPH_BOUND:g} (graphs) or {BOUND:g}: {', '.join(dict.fromkeys(failed))}", file=sys.stderr)
    return 1 if failed else 0


def _print_initial_values(mmrec: Path | None, released: Path | None) -> int:
    """Print how far initial distributions are from the public ones. Return 1 if one is above its bound, else 0."""
    lines, failed = [], []
    for name in CHANGED:
        checkout = released if name == "HeLLMPre" else mmrec
        if checkout is None:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            found = compare_initial_values(name, checkout, make_data(MODALITIES[0], hard=False))
        farthest = max(found, key=found.__getitem__)
        differs = found[farthest] > initial_values.BOUND
        note = "the paper's instead" if name in OTHER_INITIAL else "another one" if differs else "the same"
        lines.append((name, len(found), farthest, f"{found[farthest]:.2f}", note))
        failed += [name] if differs and name not in OTHER_INITIAL else []
    heads = ["Model", "Parameters", "Farthest initial values", "Distance", "Distribution"]
    print(f"\n{tabulate(lines, headers=heads, disable_numparse=True)}")
    if failed:
        print(f"initial values above {initial_values.BOUND:g}: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _print_hellm(hellm: Path) -> int:
    """Print the errors of HeLLM-released. Return 1 if one is above its bound, else 0."""
    with contextlib.redirect_stdout(io.StringIO()):
        lines = compare_hellm(hellm)
    cells = [(what, f"{error:.1e}", f"{bound:.0e}") for what, error, bound in lines]
    print(f"\n{tabulate(cells, headers=['HeLLM-released', 'Error', 'Bound'], disable_numparse=True)}")
    failed = [what for what, error, bound in lines if not error <= bound]
    if failed:
        print(f"HeLLM-released, above its bound: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
