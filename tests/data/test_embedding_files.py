"""Embeddings of other programs: each format gives the same matrix, and what is wrong with a file is one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from hellm_recbole.data.embedding_files import (
    READERS,
    FileEmbeddings,
    align_embeddings,
    read_embedding_file,
    refuse_unreadable_file,
)
from hellm_recbole.data.embeddings import export_embeddings
from hellm_recbole.errors import DataError

TOKENS = ["b", "a", "c"]
VALUES = np.array([[1.5, -2.0], [0.25, 3.0], [4.0, 0.0]], dtype=np.float32)
ITEM_TOKENS = np.array(["", "a", "b"])


def write_tokens(path: Path, tokens: Sequence[str]) -> None:
    path.with_name(f"{path.stem}.tokens.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def write_npy(path: Path, values: Any, tokens: Sequence[str]) -> None:
    np.save(path, values)
    write_tokens(path, tokens)


def write_safetensors(path: Path, values: Any, tokens: Sequence[str]) -> None:
    save_file({"anything": torch.as_tensor(values)}, path)
    write_tokens(path, tokens)


def write_lists(path: Path, values: Any, tokens: Sequence[str]) -> None:
    pq.write_table(pa.table({"item_id": list(tokens), "vector": [list(row) for row in values]}), path)


def write_columns(path: Path, values: Any, tokens: Sequence[str]) -> None:
    frame = pd.DataFrame(values, columns=[f"d{number}" for number in range(values.shape[1])])
    frame.assign(item_id=list(tokens)).to_parquet(path, index=False)


def write_tensor(path: Path, values: Any, tokens: Sequence[str]) -> None:
    torch.save(torch.as_tensor(values), path)
    write_tokens(path, tokens)


def write_state(path: Path, values: Any, tokens: Sequence[str]) -> None:
    torch.save(torch.nn.Embedding.from_pretrained(torch.as_tensor(values)).state_dict(), path)
    write_tokens(path, tokens)


Writer = Callable[[Path, Any, Sequence[str]], None]
WRITERS: list[tuple[str, Writer]] = [
    (".npy", write_npy),
    (".safetensors", write_safetensors),
    (".parquet", write_lists),
    (".parquet", write_columns),
    (".pt", write_tensor),
    (".pth", write_state),
]


def catch_sentence(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_format_has_a_writer_here() -> None:
    assert {ending for ending, _ in WRITERS} == READERS.keys()


@pytest.mark.parametrize(("ending", "write"), WRITERS)
def test_every_format_gives_the_same_table_in_the_order_of_the_items(
    tmp_path: Path, ending: str, write: Writer
) -> None:
    path = tmp_path / f"graph{ending}"
    write(path, VALUES, TOKENS)
    aligned = align_embeddings(path, read_embedding_file(path), ITEM_TOKENS, "Toy")
    assert aligned.table.dtype == np.float32
    assert aligned.table.tolist() == [[0, 0], [0.25, 3.0], [1.5, -2.0]]
    assert (aligned.n_ignored, aligned.has_padding) == (1, False)


@pytest.mark.parametrize(("ending", "write"), WRITERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_other_number_types_become_single_precision(
    tmp_path: Path, ending: str, write: Writer, dtype: type[np.generic]
) -> None:
    path = tmp_path / f"graph{ending}"
    write(path, (VALUES * 4).astype(dtype), TOKENS)
    found = read_embedding_file(path)
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, VALUES * 4)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_bfloat16_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"graph{ending}"
    dict(WRITERS)[ending](path, torch.tensor(VALUES, dtype=torch.bfloat16), TOKENS)
    np.testing.assert_array_equal(read_embedding_file(path).values, VALUES)


def test_the_padding_row_of_a_released_table_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sasrec.npy"
    write_npy(path, np.vstack([np.full((1, 2), 9.0), VALUES[:2]]), ["[PAD]", *TOKENS[:2]])
    aligned = align_embeddings(path, read_embedding_file(path), ITEM_TOKENS, "Toy")
    assert aligned.table.tolist() == [[0, 0], [0.25, 3.0], [1.5, -2.0]]
    assert (aligned.n_ignored, aligned.has_padding) == (0, True)
    of_an_item = align_embeddings(path, read_embedding_file(path), np.array(["", "[PAD]", "a"]), "Toy")
    assert of_an_item.table.tolist() == [[0, 0], [9, 9], [0.25, 3.0]]
    assert (of_an_item.n_ignored, of_an_item.has_padding) == (1, False)


@pytest.mark.parametrize(("ending", "write"), [pair for pair in WRITERS if pair[0] != ".parquet"])
def test_rows_without_tokens_are_refused_whatever_their_number(tmp_path: Path, ending: str, write: Writer) -> None:
    path = tmp_path / f"graph{ending}"
    write(path, VALUES[:2], TOKENS[:2])
    (tmp_path / "graph.tokens.txt").unlink()
    sentence = catch_sentence(lambda: read_embedding_file(path))
    assert "does not say which item each of its 2 rows belongs to; write graph.tokens.txt next to it" in sentence
    assert "the released code of HeLLM numbers items by sorted raw key" in sentence


def test_our_own_export_is_read_and_a_change_after_the_export_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    export_embeddings(folder, np.array(["u"]), np.ones((1, 2), np.float32), np.array(TOKENS), VALUES)
    path = folder / "embeddings.safetensors"
    found = read_embedding_file(path)
    assert found.tokens == TOKENS
    np.testing.assert_array_equal(found.values, VALUES)
    (folder / "items.txt").write_text("a\nb\nc\n")
    assert "items.txt has changed since the export" in catch_sentence(lambda: read_embedding_file(path))
    (folder / "SHA256SUMS").unlink()
    assert read_embedding_file(path).tokens == ["a", "b", "c"]


def test_several_tensors_need_one_called_items(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    both = {"users": torch.ones(9, 2), "other": torch.as_tensor(VALUES), "epoch": 3}
    torch.save(both, path)
    write_tokens(path, TOKENS)
    sentence = catch_sentence(lambda: read_embedding_file(path))
    assert sentence.endswith("holds the tensors other, users; keep one matrix in it, or call that of the items 'items'")
    torch.save({**both, "items": torch.as_tensor(VALUES)}, path)
    np.testing.assert_array_equal(read_embedding_file(path).values, VALUES)
    torch.save({"epoch": 3}, path)
    assert "holds no tensor" in catch_sentence(lambda: read_embedding_file(path))


def test_two_tensors_with_the_same_written_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    torch.save({1: torch.as_tensor(VALUES), "1": torch.as_tensor(2 * VALUES)}, path)
    write_tokens(path, TOKENS)
    assert "graph.pt holds two tensors whose names are written the same" in catch_sentence(
        lambda: read_embedding_file(path)
    )


class Harmful:
    """Makes a folder when a reader of pickled objects builds it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("old", [False, True])
def test_code_of_a_file_is_not_executed(tmp_path: Path, old: bool) -> None:
    path, trace = tmp_path / "graph.pt", tmp_path / "trace"
    torch.save({"items": torch.ones(3, 2), "more": Harmful(str(trace))}, path, _use_new_zipfile_serialization=not old)
    write_tokens(path, TOKENS)
    sentence = catch_sentence(lambda: read_embedding_file(path))
    assert re.search(r"graph.pt holds more than tensors \(\w+\.mkdir\): reading it would execute code", sentence)
    assert "save the matrix as a tensor with torch.save, or with numpy.save as .npy" in sentence
    assert not trace.exists()


def test_numpy_arrays_in_a_file_of_torch_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    torch.save(VALUES, path)
    sentence = catch_sentence(lambda: read_embedding_file(path))
    assert "holds more than tensors (numpy._core.multiarray._reconstruct): reading it would execute code" in sentence


@pytest.mark.parametrize("ending", [*READERS])
@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x02\x8a", b"PK\x03\x04 half", bytes(200)])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"graph{ending}"
    path.write_bytes(content)
    assert str(path) in catch_sentence(lambda: read_embedding_file(path))


@pytest.mark.parametrize(("ending", "write"), WRITERS)
def test_a_shortened_file_is_one_sentence(tmp_path: Path, ending: str, write: Writer) -> None:
    path = tmp_path / f"graph{ending}"
    write(path, VALUES, TOKENS)
    whole = path.read_bytes()
    for length in range(1, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:length])
        assert str(path) in catch_sentence(lambda: read_embedding_file(path))


@pytest.mark.parametrize(
    "values",
    [np.ones(3), np.ones((3, 2, 2)), np.ones((3, 0)), np.ones((3, 2), bool), np.ones((3, 2), np.complex64)],
)
def test_other_things_than_matrices_of_numbers_are_refused(tmp_path: Path, values: Any) -> None:
    for ending in (".npy", ".pt", ".safetensors"):
        path = tmp_path / f"graph{ending}"
        dict(WRITERS)[ending](path, values, TOKENS)
        assert "must hold one matrix of numbers" in catch_sentence(lambda path=path: read_embedding_file(path))


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(torch.eye(3).to_sparse(), tmp_path / "graph.pt")
    assert "must hold one matrix of numbers" in catch_sentence(lambda: read_embedding_file(tmp_path / "graph.pt"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a"], "x": [1.0]}, "has the columns id, x and 1 rows; it needs item_id"),
        ({"item_id": ["a"]}, "has the columns item_id and 1 rows; it needs item_id"),
        ({"item_id": pa.array([], pa.string()), "x": pa.array([], pa.float32())}, "and 0 rows"),
        ({"item_id": ["a", "b"], "x": [1.0, 2.0], "title": ["x", "y"]}, "column 'title' holds string, not numbers"),
        ({"item_id": ["a", "b"], "x": [[1.0], [2.0]], "y": [1, 2]}, "column 'x' holds lists, but there are further"),
        ({"item_id": ["a", "b"], "x": [[1.0], [2.0, 3.0]]}, "lists of column 'x' must all have the same length"),
        ({"item_id": ["a", "b"], "x": [[1.0], None]}, "lists of column 'x' must all have the same length"),
        ({"item_id": ["a", "b"], "x": pa.array([[], []], pa.list_(pa.float32()))}, "same length, at least 1"),
        ({"item_id": ["a", "b"], "x": [["1"], ["2"]]}, "column 'x' holds string, not numbers"),
        ({"item_id": [1.0, 2.0], "x": [1, 2]}, "column item_id holds double; save item tokens as text or as integers"),
        ({"item_id": ["a", None], "x": [1, 2]}, "item_id of row 1 is empty"),
        ({"item_id": ["a", "b"], "__index_level_0__": [0, 1], "x": [1, 2]}, "is an index of pandas"),
        ({"item_id": ["a", "a"], "x": [1, 2]}, "has more than one row for 'a'; keep one row for each item"),
    ],
)
def test_a_faulty_parquet_table_is_one_sentence(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    path = tmp_path / "graph.parquet"
    pq.write_table(pa.table(columns), path)
    assert said in catch_sentence(lambda: read_embedding_file(path))


def test_integer_and_dictionary_ids_and_lists_of_fixed_size_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "graph.parquet"
    lists = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2)
    for ids, tokens in ((pa.array([7, 2**60 + 1]), ["7", str(2**60 + 1)]), (pa.array(["x", "y"]), ["x", "y"])):
        pq.write_table(pa.table({"v": lists, "item_id": ids.dictionary_encode()}), path)
        found = read_embedding_file(path)
        assert (found.tokens, found.values.tolist()) == (tokens, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["a", "b"], "has 3 rows but graph.tokens.txt has 2 tokens"),
        (["a", "b", "a"], "has more than one row for 'a'"),
        ([], "graph.tokens.txt is empty"),
    ],
)
def test_faulty_tokens_are_one_sentence(tmp_path: Path, tokens: list[str], said: str) -> None:
    path = tmp_path / "graph.npy"
    write_npy(path, VALUES, tokens)
    assert said in catch_sentence(lambda: read_embedding_file(path))


def test_missing_items_are_counted_and_the_first_ones_are_named() -> None:
    items = np.array(["", "a", *(f"x{number}" for number in range(5))])
    sentence = catch_sentence(lambda: align_embeddings(Path("graph.npy"), FileEmbeddings(TOKENS, VALUES), items, "Toy"))
    assert sentence == (
        "graph.npy has no row for 5 of the 6 items of Toy: 'x0', 'x1', 'x2', ...; its own ids begin with 'b', 'a', "
        "'c', and must be the item tokens of the dataset"
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [[1, 2], [np.nan, 1], [1, 1]],
            "the row of item 'a' contains NaN or infinity in single precision, 1 such rows",
        ),
        (
            [[np.inf, 2], [np.nan, 1], [1, 1]],
            "the row of item 'a' contains NaN or infinity in single precision, 2 such",
        ),
        ([[0, 0], [0, 0], [1, 1]], "the numbers have a mean square of 0 in single precision"),
        ([[1e30, 0], [0, 0], [1, 1]], "the numbers have a mean square of inf in single precision"),
        ([[1e-30, 0], [0, 0], [1, 1]], "the numbers have a mean square of 0 in single precision"),
    ],
)
def test_numbers_that_no_model_can_use_are_refused(rows: Any, said: str) -> None:
    found = FileEmbeddings(TOKENS, np.array(rows, dtype=np.float32))
    assert said in catch_sentence(lambda: align_embeddings(Path("graph.npy"), found, ITEM_TOKENS, "Toy"))


def test_rows_of_other_items_may_hold_anything() -> None:
    found = FileEmbeddings(TOKENS, np.array([[1, 2], [3, 4], [np.nan, np.inf]], dtype=np.float32))
    assert align_embeddings(Path("g.npy"), found, ITEM_TOKENS, "Toy").table.tolist() == [[0, 0], [3, 4], [1, 2]]


def test_numbers_too_large_for_single_precision_are_refused(tmp_path: Path) -> None:
    for ending, write in WRITERS:
        path = tmp_path / f"graph{ending}"
        write(path, np.array([[1e300, 1.0], [1.0, 1.0], [1.0, 1.0]]), TOKENS)
        found = read_embedding_file(path)
        sentence = catch_sentence(lambda path=path, found=found: align_embeddings(path, found, ITEM_TOKENS, "Toy"))
        assert "the row of item 'b' contains NaN or infinity in single precision, 1 such rows" in sentence


def test_a_file_is_refused_by_its_name_before_it_is_read(tmp_path: Path) -> None:
    assert "does not exist" in catch_sentence(lambda: refuse_unreadable_file(tmp_path / "none.npy"))
    assert "is a folder; name the file in it" in catch_sentence(lambda: refuse_unreadable_file(tmp_path))
    (tmp_path / "graph.csv").write_text("a,1\n")
    sentence = catch_sentence(lambda: refuse_unreadable_file(tmp_path / "graph.csv"))
    assert "because of its ending; embeddings can be .npy, .safetensors, .parquet, .pt, .pth" in sentence
