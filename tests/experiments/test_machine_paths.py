from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.experiments.machine_paths import (
    cut_absolute_paths,
    cut_paths,
    cut_value,
    find_machine_folder,
    hide_names,
    is_path,
)

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("/data/models/tiny", ".../tiny"),
        ("~/models/tiny", ".../tiny"),
        ("~ada", "~ada"),
        ("~ada/tiny", ".../tiny"),
        ("./tiny", ".../tiny"),
        ("../../secret/tiny", ".../tiny"),
        ("my/own/folder/tiny", ".../tiny"),
        (r"C:\Users\ada\tiny.gguf", ".../tiny.gguf"),
        (r"\\server\share\tiny.gguf", ".../tiny.gguf"),
        ("file:///data/tiny", ".../tiny"),
        ("/data/", ".../data"),
        ("/", "..."),
        ("--llm /data/tiny", "--llm .../tiny"),
        ("--set HeLLM.llm=/data/tiny", "--set HeLLM.llm=.../tiny"),
        ("--set files=['/data/a.npy', '/data/b.npy']", "--set files=['.../a.npy', '.../b.npy']"),
        ("text:/data/a.npy,image:/data/b.npy", "text:.../a.npy,image:.../b.npy"),
    ],
)
def test_paths_are_cut(text: str, cut: str) -> None:
    assert cut_paths(text) == cut
    assert cut_paths(cut) == cut, "what was cut is not cut again"


@pytest.mark.parametrize(
    "text",
    [
        *("meta-llama/Llama-2-7b-hf", "model/HeLLMPre.yaml, datasets: Beauty", "RecBole's Pop", "N@20", "fused"),
        *("--set HeLLM.epochs=6", "--llm-layers 2", "[/INST]", "</s>", "title|keywords", "2.13.0+cpu", "and/or"),
        "packaged:all-MiniLM-L6-v2",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert cut_paths(text) == text
    assert cut_value(text) == text


def test_a_path_with_spaces_is_cut_as_a_whole_where_it_is_known() -> None:
    path = "/home/my user/models, all/tiny"
    assert cut_paths(f"--llm {path}", path) == "--llm .../tiny"
    assert cut_value(path) == ".../tiny"
    assert cut_paths("--set optimizer=adam", "adam") == "--set optimizer=adam"


def test_values_keep_their_types_at_any_depth() -> None:
    value = {"a": ("/x/b", 1, None), "c": [{"d": "~/e"}, 0.5, True]}
    assert cut_value(value) == {"a": (".../b", 1, None), "c": [{"d": ".../e"}, 0.5, True]}


@given(folders=st.lists(NAMES, min_size=1, max_size=4), name=NAMES, before=st.sampled_from(["", "--llm ", "a=", "'"]))
def test_no_folder_of_an_absolute_path_stays(folders: list[str], name: str, before: str) -> None:
    assert cut_paths(f"{before}/{'/'.join(folders)}/{name}") in (f"{before}.../{name}", f"{before}...")


def test_the_names_of_user_and_computer_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab7.example.org")
    assert hide_names("--set run=ada on lab7.example.org or lab7") == "--set run=... on ... or ..."
    assert hide_names("--set optimizer=adam") == "--set optimizer=adam"
    assert cut_paths("--llm /home/ada") == "--llm ..."
    assert is_path("/home/ada")


def test_a_folder_of_this_machine_is_found() -> None:
    assert find_machine_folder("tensorboard, adam") is None
    for folder in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        assert find_machine_folder(f'"[{folder}/x]"') is not None


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("/data/my models/tiny", ".../tiny"),
        ("~ada/tiny", ".../tiny"),
        ("file:///data/tiny", ".../tiny"),
        (r"C:\Users\ada\tiny.gguf", ".../tiny.gguf"),
        (r"\\server\share\tiny.gguf", ".../tiny.gguf"),
    ],
)
def test_a_text_that_is_an_absolute_path_is_cut(text: str, cut: str) -> None:
    assert cut_absolute_paths(text) == cut
    assert cut_absolute_paths({"a": [(text, 1, None)]}) == {"a": [(cut, 1, None)]}


@pytest.mark.parametrize(
    "text", ["a/b/c", "see /data/a", "/", " / ", "// a", "../a", "\n/a", "/a\n/b", "</s>", "~", ""]
)
def test_a_text_that_is_no_absolute_path_stays(text: str) -> None:
    assert cut_absolute_paths(text) == text
