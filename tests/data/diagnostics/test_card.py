from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.benchmarks.prepare import main
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.diagnostics.card import CARD, format_card, write_card
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset

Prepare = Callable[..., Prepared]


def read_card_file(folder: Path) -> str:
    """Write the card of a prepared dataset, and return its Markdown."""
    write_card(folder)
    return (folder / CARD).read_text(encoding="utf-8")


def read_card(folder: Path) -> list[tuple[str, str]]:
    """Return name and value of the lines above the findings."""
    lines = format_card(folder).split("\n\n")[0].splitlines()
    return [tuple(part.strip() for part in line.split("  ", 1)) for line in lines]  # type: ignore[misc]


def read_findings(folder: Path) -> str:
    """Return the findings as one line."""
    return " ".join(format_card(folder).split("\n\n")[1].split())


def parse_tables(markdown: str) -> list[list[list[str]]]:
    """Return the cells of each table, row by row, without the row of dashes."""
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    return [
        [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in block[:1] + block[2:]]
        for block in blocks
    ]


def test_a_card_counted_by_hand(sequences: Path, prepare_toy: Prepare) -> None:
    values = dict(read_card(prepare_toy(sequences, "sequences", k_core=3).folder))
    assert values["dataset"] == "Toy (kind sequences)"
    assert (values["users"], values["items"], values["interactions"]) == ("3", "3", "9")
    assert values["sparsity"] == "0.0000%"  # 9 of 3 x 3
    assert values["filter"] == "requested 3-core, actual 3-core; before the filter 3 users, 4 items, 10 interactions"
    assert values["history length"] == "min 3, 25% 3, median 3, 75% 3, 95% 3, max 3"
    assert values["last two items tie in time"] == "not known: the source has no times"
    assert values["train / valid / test"] == "3 / 3 / 3"
    assert values["cold items"] == "0 without a training interaction; 0 test targets are such items"
    assert (values["modalities"], values["findings"]) == ("none", "0 errors, 0 warnings, 2 notes")


def test_cold_items_and_given_splits(splits: Path, prepare_toy: Prepare) -> None:
    values = dict(read_card(prepare_toy(splits, "splits").folder))
    assert values["split"].startswith("given, ")
    assert values["sparsity"] == "16.6667%"  # 5 of 2 x 3
    assert values["users with fewer than 3"] == "1"
    assert values["cold items"] == "1 without a training interaction; 1 test targets are such items"  # item 1, user 1
    assert values["modality image"] == "2-d, coverage 100.00%, dtype float32"
    assert values["warning"].startswith("image_feat.npy: 1 rows belong to no item")


def test_ties_of_the_last_two_items(recbole: Path, prepare_toy: Prepare) -> None:
    assert dict(read_card(prepare_toy(recbole, "recbole").folder))["last two items tie in time"] == "50.0% of users"


def test_findings_follow_the_counts(splits: Path, prepare_toy: Prepare) -> None:
    rows = ["0\t3\ttrain", "0\t3\tvalid", "0\t3\ttest", "0\t1\ttest", "1\t1\ttrain", "1\t0\tvalid", "1\t0\ttest"]
    (splits / "interactions.tsv").write_text("user_id\titem_id\tsplit\n" + "\n".join(rows) + "\n")
    folder = prepare_toy(splits, "splits").folder
    with (folder / "image_feat.npy").open("ab") as stream:
        stream.write(b"x")
    assert ("repeated user-item pairs", "3") in read_card(folder)
    assert ("findings", "3 errors, 1 warning, 3 notes") in read_card(folder)
    text = read_findings(folder)
    parts = [
        "error file changed: image_feat.npy has changed since it was prepared Results would not be of",
        "error repeated targets: 1 of 2 validation targets are in the same user's earlier interactions The parts",
        "error repeated targets: 2 of 3 test targets are in the same user's earlier interactions The parts",
        "warning cold items: 1 of 3 items have no training interaction; 1 of 3 test targets are such items A model",
        "note ties: not known: the source has no times",
        "note repeated pairs: 3 of 7 interactions repeat one of the same user with the same item",
        "note popularity: Recall@20 of the most popular training items is 100.00%, by chance 100.00%",
    ]
    assert [part for part in parts if part not in text] == []
    assert sorted(parts, key=text.index) == parts


def test_a_finding_is_wrapped_and_indented(recbole: Path, prepare_toy: Prepare) -> None:
    lines = format_card(prepare_toy(recbole, "recbole").folder).split("\n\n")[1].splitlines()
    assert lines[0].startswith("warning  ties: the last two interactions of 50.0% of users")
    assert lines[1].startswith("         ")
    assert max(map(len, lines)) <= 120


def test_features_that_do_not_fit_are_a_finding_of_the_card(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    (folder / "image_feat.tokens.txt").write_text("3\n")
    assert ("modalities", "none") in read_card(folder)
    assert "error features do not fit: image: " in read_findings(folder)


def edit_manifest(folder: Path, **keys: Any) -> None:
    manifest = read_manifest(folder).to_json()  # without its checksum, as in an earlier version
    (folder / "dataset.json").write_text(json.dumps({**manifest, **keys}))


def test_all_entries_of_a_modality_in_the_manifest_are_shown(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    about = {
        "encoder": "some/encoder",
        "coverage": 0.5,
        "missing": 3,
        "fill": "zero",
        "rows": 3,
        "dim": 2,
        "sha256": "f0",
    }
    edit_manifest(folder, modalities={"image": {**about, "pooling": "cls", "of_day": "Monday"}})
    line = "2-d, coverage 50.00%, by some/encoder, 3 items have zeros, pooling cls, of day Monday"
    assert dict(read_card(folder))["modality image"] == line
    head, row = parse_tables(read_card_file(folder))[2]
    assert dict(zip(head, row, strict=True)) == {
        "modality": "image",
        "encoder": "some/encoder",
        "dimension": "2",
        "coverage": "50.00%",
        "missing": "3",
        "fill": "zero",
        "rows": "3",
        "sha256": "f0",
        "pooling": "cls",
        "of day": "Monday",
    }


def test_entries_of_a_modality_may_be_missing_in_the_manifest(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    manifest = {key: value for key, value in read_manifest(folder).to_json().items() if key not in ("inputs", "origin")}
    (folder / "dataset.json").write_text(json.dumps({**manifest, "modalities": {"image": {"rows": 3}}}))
    assert dict(read_card(folder))["modality image"] == "2-d, coverage not known"
    head, row = parse_tables(read_card_file(folder))[2]
    assert dict(zip(head, row, strict=True)) == {
        "modality": "image",
        "encoder": "as given",
        "dimension": "",
        "coverage": "",
        "rows": "3",
    }


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"counts": {"before": {"users": 1}}}, "key counts.before.items is missing"),
        ({"counts": []}, "key counts is [], it must be an object"),
        ({"modalities": {"image": {"coverage": "most"}}}, "key modalities.image.coverage is 'most'"),
        ({"modalities": {"image": 1}}, "key modalities.image is 1, it must be an object"),
        ({"warnings": None}, "key warnings is None, it must be a list"),
        ({"files": ["Clips.inter"]}, "key files is ['Clips.inter'], it must be an object"),
        ({"inputs": {"source": 3}}, "key inputs.source is 3, it must be an object"),
        ({"time_known": "yes"}, "key time_known is 'yes', it must be of type bool"),
    ],
)
def test_a_malformed_manifest_is_reported_in_one_sentence(
    splits: Path, prepare_toy: Prepare, keys: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare_toy(splits, "splits").folder
    edit_manifest(folder, **keys)
    assert main(["Clips", "--check", "--output", str(folder.parent)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"error: {folder / 'dataset.json'}: {text}" in err
    assert err.endswith("; prepare the dataset again with --fresh\n")


def test_the_markdown_card(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences", k_core=3).folder
    text = read_card_file(folder)
    sections = [line for line in text.splitlines() if line.startswith("#")]
    assert sections == [
        "# Toy",
        "## Source",
        "## Counts",
        "## Split",
        "## Modalities",
        "## What was dropped and why",
        "## Findings",
        "## To check it again",
    ]
    files, counts, findings = parse_tables(text)
    digest = hashlib.sha256((sequences / "user_sequences.txt").read_bytes()).hexdigest()
    assert files == [["file", "SHA-256"], ["user_sequences.txt", digest]]
    assert counts == [
        ["", "before filter", "after filter"],
        ["users", "3", "3"],
        ["items", "4", "3"],
        ["interactions", "10", "9"],
    ]
    assert "- kind: sequences\n" in text
    assert "- The 3-core filter on users and items dropped 1 items, 1 interactions.\n" in text
    assert f"- SHA-256: {split_dataset(load_dataset(folder, modalities=None)).sha256}\n" in text
    assert "## Modalities\n\nNone.\n" in text
    assert [row[:2] for row in findings[1:]] == [["note", "ties"], ["note", "popularity"]]
    assert text.endswith("```\nhellm-recbole prepare Toy --check\n```\n")


def test_the_card_states_that_times_became_ranks(recbole: Path, prepare_toy: Prepare) -> None:
    assert "- times: known\n" in read_card_file(prepare_toy(recbole, "recbole").folder)
    path = recbole / "films.inter"
    path.write_text(path.read_text().replace("\t30\n", "\t1700000000\n"))
    text = "- times: known: source_time in films.inter; timestamp holds their ranks, which RecBole's float32 keeps\n"
    assert text in read_card_file(prepare_toy(recbole, "recbole", fresh=True).folder)


def test_the_card_states_that_nothing_was_dropped(splits: Path, prepare_toy: Prepare) -> None:
    np.save(splits / "image_feat.npy", np.eye(4, dtype=np.float16))
    rows = ["0\t3\ttrain\t9", "0\t1\tvalid\t8", "0\t0\ttest\t7", "1\t2\ttrain\t7"]
    (splits / "interactions.tsv").write_text("user_id\titem_id\tsplit\ttimestamp\n" + "\n".join(rows) + "\n")
    assert "## What was dropped and why\n\nNothing.\n" in read_card_file(prepare_toy(splits, "splits").folder)


def test_values_cannot_break_the_markdown(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    known = read_manifest(folder).to_json()
    image = {**known["modalities"]["image"], "encoder": "a|b\n| c | <script>*x*"}
    inputs = {**known["inputs"], "source": {"a|b.tsv": "f0"}}
    edit_manifest(folder, modalities={"image": image}, inputs=inputs, warnings=["x\n# y <b>"])
    text = read_card_file(folder)
    assert all(len({len(row) for row in table}) == 1 for table in parse_tables(text))
    assert parse_tables(text)[0][1] == [r"a\|b.tsv", "f0"]
    assert parse_tables(text)[2][1][1] == r"a\|b \| c \| &lt;script&gt;\*x\*"
    assert "\n- x # y &lt;b&gt;\n" in text


@pytest.mark.parametrize("added", ["image", "audio"])
def test_features_added_by_hand_are_marked(sequences: Path, prepare_toy: Prepare, added: str) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / f"{added}_feat.npy", np.eye(4))
    (folder / f"{added}_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    assert dict(read_card(folder))[f"modality {added}"] == "4-d, added by hand"
    head, row = parse_tables(read_card_file(folder))[2]
    assert dict(zip(head, row, strict=True))["encoder"] == "added by hand"
