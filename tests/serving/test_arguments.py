"""Arguments of a wrong kind are one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.api import evaluate, load_dataset, load_run, run, train_all
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import SettingsError
from hellm_recbole.serving.arguments import check_arguments, list_values
from tests.serving.test_frames import make_interactions
from tests.toy import write_prepared

FRAME = make_interactions()


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (load_dataset, {"source": None}, "source = None is not understood; give the name of a dataset, a folder, or a"),
        (load_dataset, {"source": ["Beauty"]}, r"source = \['Beauty'\] is not understood"),
        (load_dataset, {"source": {}}, "source = {} is not understood"),
        (load_dataset, {"source": FRAME, "name": 5}, "name = 5 is not understood; give a text"),
        (load_dataset, {"source": FRAME, "items": [1]}, r"items = \[1\] is not understood; give a frame"),
        (run, {"models": None, "dataset": "toy"}, "models = None is not understood; give a list of names"),
        (run, {"models": [1], "dataset": "toy"}, r"models = \[1\] is not understood"),
        (run, {"models": "Pop", "dataset": "toy", "seeds": "1"}, "seeds = '1' is not understood; give a whole number"),
        (run, {"models": "Pop", "dataset": "toy", "seeds": 1.5}, "seeds = 1.5 is not understood"),
        (run, {"models": "Pop", "dataset": "toy", "seeds": True}, "seeds = True is not understood"),
        (run, {"models": "Pop", "dataset": "toy", "threads": "x"}, "threads = 'x' is not understood"),
        (run, {"models": "Pop", "dataset": "toy", "settings": ["a"]}, r"settings = \['a'\] is not understood"),
        (run, {"models": "Pop", "dataset": None}, "dataset = None is not understood|source = None is not understood"),
        (load_run, {"folder": None}, "folder = None is not understood; give a path, or a text"),
        (train_all, {"folder": 3}, "folder = 3 is not understood"),
    ],
)
def test_a_wrong_kind_is_one_sentence(function: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        function(**arguments)


@pytest.mark.parametrize("cutoffs", [[-1], [1.5], [0], [], ["10"], 10])
def test_cutoffs_are_a_list_of_positive_whole_numbers(cutoffs: Any) -> None:
    with pytest.raises(SettingsError, match=r"cutoffs = .* is not understood; give a list of whole numbers from 1 to"):
        evaluate(np.zeros((1, 1)), cutoffs=cutoffs)


def test_a_separator_means_a_folder(tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "shop", toy_dataset)
    assert load_dataset("./shop").split_hash == load_dataset("shop/").split_hash
    assert evaluate(np.zeros((60, 40)), "./shop", cutoffs=[40], policy="none")["R@40"] == 1.0


def test_usual_arguments_are_accepted() -> None:
    check_arguments(models=("A", "B"), seeds=range(3), text="title", settings={"A.x": [1]}, output=Path("results"))
    check_arguments(source=pd.DataFrame(), cutoffs=(5, 10), embeddings={"HeLLMPre": Path("x")}, exports=["embeddings"])


def test_any_list_is_accepted_but_no_single_value() -> None:
    for values in (("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"]), {"a": 1, "b": 2}.keys()):
        assert list_values(values, "users") == ["a", "b"]
    for values in (None, 5, "a", b"a", {"a": 1}):
        with pytest.raises(SettingsError, match=r"history 0 is .*, not a list; give a list"):
            list_values(values, "history 0")
