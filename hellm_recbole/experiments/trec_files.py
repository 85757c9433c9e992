"""Write test lists as a TREC run and their targets as qrels, which trec_eval, ranx and ir-measures read.

Evaluators sort a run by its scores, and order equal scores in ways of their own. So the scores here are not those of
the model: they are K, K - 1, ..., 1 in the order of the list, in which a target stands last among the items of its
score. Whole numbers of this size are exact in the 32-bit floats of trec_eval. If each user has one target, Recall@K,
NDCG@K and the reciprocal rank of an evaluator then equal those of the saved ranks, up to the length of the lists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.split import Split
from hellm_recbole.errors import OutputError
from hellm_recbole.system.files import atomic_write, ensure_folder, write_text
from hellm_recbole.types import IdArray, TokenArray

RUN_FILE, QRELS_FILE = "test-lists.run", "test-lists.qrels"


def write_trec(folder: Path, user: IdArray, item: IdArray, rank: IdArray, split: Split, tag: str) -> None:
    """Write the lists as `test-lists.run`, and all test targets as `test-lists.qrels`.

    Args:
        folder: folder of the run.
        user: [N] user id of each entry of the lists.
        item: [N] item id.
        rank: [N] position in the user's list, from 1; a target stands last among the items of its score.
        split: split with the tokens and the test targets.
        tag: name of the run, the last field of each line; blanks in it become `_`.

    Raises:
        OutputError: a file cannot be written, or a token contains a blank, which separates the fields.
    """
    users, items = split.user_tokens[user], split.item_tokens[item]
    target_users, target_items = split.user_tokens[split.test.user], split.item_tokens[split.test.item]
    for what, tokens in (("user", target_users), ("item", items), ("item", target_items)):
        _refuse_blanks(what, tokens, split.dataset)
    score = int(rank.max(initial=1)) + 1 - rank
    name = "_".join(tag.split())
    run = (
        f"{owner} Q0 {listed} {position} {value} {name}\n"
        for owner, listed, position, value in zip(users, items, rank.tolist(), score.tolist(), strict=True)
    )
    ensure_folder(folder)
    with atomic_write(folder / RUN_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(run)
    qrels = (f"{owner} 0 {target} 1\n" for owner, target in zip(target_users, target_items, strict=True))
    write_text(folder / QRELS_FILE, "".join(qrels))


def _refuse_blanks(what: str, tokens: TokenArray, dataset: str) -> None:
    """Refuse tokens with a blank.

    Raises:
        OutputError: there is one; the message names the first.
    """
    unique: npt.NDArray[np.str_] = np.unique(tokens)
    bad = next((str(token) for token in unique if len(str(token).split()) != 1), None)
    if bad is not None:
        raise OutputError(
            f"--export trec: the {what} {bad!r} of {dataset} contains a blank, which separates the fields of a TREC "
            "run; export test-lists, which are Parquet"
        )
