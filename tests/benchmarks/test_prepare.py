"""The command prepare.py: its exit codes and its messages, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks.prepare import main
from hellm_recbole.data import encoders
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared
from tests.toy_llm import tiny_llama

REPOSITORY = Path(__file__).resolve().parents[2]
BEAUTY = REPOSITORY.parent / "shared" / "datasets" / "Beauty"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "user_sequences.txt").write_text("u1 a b c\nu2 b c a\nu3 c a b d\n")
    (folder / "item_text.tsv").write_text("item_id\ttitle\tkeywords\na\tred comb\t\nb\t\tbrush\nc\tsoap\t\nd\t\t\n")
    return folder


def command(tmp_path: Path, source: Path, *more: str) -> list[str]:
    return ["Mine", "--from", "sequences", "--source", str(source), "--output", str(tmp_path / "dataset"), *more]


def test_prepare_then_check(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lengths(*settings: object) -> Callable[[Sequence[str]], np.ndarray]:
        return lambda texts: np.array([[len(text)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(encoders, "load_text_encoder", lengths)
    (tmp_path / "encoder").mkdir()
    encoder = ("--encoder", str(tmp_path / "encoder"))
    assert main(command(tmp_path, source, "--k-core", "1", *encoder)) == 0
    out = capsys.readouterr().out
    assert "text: encoded 3 in " in out
    assert f"prepared {tmp_path}/dataset/Mine; train on it with hellm-recbole run" in out
    assert np.load(tmp_path / "dataset" / "Mine" / "text_feat.npy").ravel().tolist() == [8, 5, 4, np.float32(17 / 3)]
    assert main(command(tmp_path, source, "--k-core", "1", *encoder)) == 0
    assert "is already prepared; replace it with --fresh" in capsys.readouterr().out
    assert main(command(tmp_path, source, "--k-core", "1", *encoder, "--fresh")) == 0
    assert "encoded" not in capsys.readouterr().out  # the features were read from the cache
    assert main(["Mine", "--check", "--output", str(tmp_path / "dataset")]) == 0
    card = capsys.readouterr().out
    assert "coverage 75.00%" in card
    assert "1 items have the mean" in card


@pytest.fixture
def known_words(source: Path) -> None:
    """Texts of words that the tiny language model knows."""
    text = "item_id\ttitle\tkeywords\na\ta customer\t\nb\t\tnext\nc\tbought products\t\nd\t\t\n"
    (source / "item_text.tsv").write_text(text)


@pytest.mark.usefixtures("known_words")
def test_a_language_model_is_a_further_encoder(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lengths(*settings: object) -> Callable[[Sequence[str]], np.ndarray]:
        return lambda texts: np.array([[len(text)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(encoders, "load_text_encoder", lengths)
    (tmp_path / "encoder").mkdir()
    text, llm = ("--encoder", str(tmp_path / "encoder")), ("--encoder", f"text_llm={tiny_llama()}")
    assert main(command(tmp_path, source, "--k-core", "1", *text)) == 0
    folder = tmp_path / "dataset" / "Mine"
    only_text = (folder / "text_feat.npy").read_bytes()
    capsys.readouterr()
    add = ["Mine", "--output", str(tmp_path / "dataset"), *llm, "--encoder-layer", "1"]
    assert main(add) == 0  # without the source
    out = capsys.readouterr().out
    assert "text_llm: encoded 3 in " in out
    assert f"added text_llm to {folder}; models read it if their setting modalities names it, such as\n--set" in out
    assert (folder / "text_feat.npy").read_bytes() == only_text
    added = np.load(folder / "text_llm_feat.npy")
    assert main(add) == 0
    assert "is already prepared" in capsys.readouterr().out
    assert main([*add[:-1], "2"]) == 2
    assert "has text_llm features of another revision, layer; give the encoding another name" in capsys.readouterr().err
    assert main(command(tmp_path, source, "--k-core", "1", *text, *llm, "--encoder-layer", "1")) == 0  # with the source
    assert "is already prepared" in capsys.readouterr().out
    assert main(command(tmp_path, source, "--k-core", "1", *text, *llm, "--encoder-layer", "1", "--fresh")) == 0
    assert f"prepared {folder}; train on it" in capsys.readouterr().out  # both at once, from the cache
    np.testing.assert_array_equal(np.load(folder / "text_llm_feat.npy"), added)
    assert (folder / "text_feat.npy").read_bytes() == only_text
    assert main(["Mine", "--output", str(tmp_path / "dataset"), *llm, "--encoder-layer", "4"]) == 2
    assert "has 3 blocks; give at most 3" in capsys.readouterr().err


@pytest.mark.usefixtures("known_words")
def test_a_language_model_encodes_the_modality_text(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = command(tmp_path, source, "--k-core", "1", "--encoder", str(tiny_llama()))
    assert main(options) == 0
    assert np.load(tmp_path / "dataset" / "Mine" / "text_feat.npy").shape == (4, 16)
    capsys.readouterr()
    assert main([*options, "--encoder-tokens", "5"]) == 2
    assert "has text features of another max tokens; replace it with --fresh" in capsys.readouterr().err


def damage(source: Path, name: str, content: str | None) -> None:
    if content is None:
        (source / name).unlink()
    else:
        (source / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("user_sequences.txt", None, "user_sequences.txt cannot be read: No such file"),
        ("user_sequences.txt", "", "user_sequences.txt is empty"),
        ("user_sequences.txt", "u1 a\nu1 b\n", "user_sequences.txt:2: user 'u1' is already on line 1"),
        ("user_sequences.txt", "u1 a b\n", "the 5-core filter drops all 2 interactions"),
        ("item_text.tsv", None, "has no item texts for the columns title|keywords"),
        ("item_text.tsv", "item\ttitle\nx\ty\n", "item_text.tsv:1: no column 'item_id' among item, title"),
        ("item_text.tsv", "item_id\ttitle\nx\n", "item_text.tsv:2: the line has 1 fields, but the header has 2"),
        ("item_text.tsv", "item_id\ttitle\nx\ty\nx\ty\n", "item_text.tsv:3: item 'x' occurs before"),
        ("item_text.tsv", "item_id\tname\na\ty\n", "no text column 'title'; choose --text from name"),
        ("image_feat.tokens.txt", "a\nb\nc\nd\ne\n", "image_feat.npy has 4 rows but image_feat.tokens.txt has 5"),
        ("image_feat.tokens.txt", "a\nb\nc\ne\n", "image_feat.npy has no row for 1 item ('d')"),
        ("image_feat.npy", "", "image_feat.npy cannot be read as a .npy matrix"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, sentence: str
) -> None:
    if name.startswith("image"):
        np.save(source / "image_feat.npy", np.eye(4))
        (source / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    damage(source, name, content)
    more = () if "filter" in sentence else ("--k-core", "0")
    assert main(command(tmp_path, source, *more)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err
    assert not (tmp_path / "dataset" / "Mine").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Beuty"], "unknown dataset 'Beuty'; did you mean 'Beauty'?"),
        (["Beauty", "--check", "--output", "nowhere"], "holds no prepared dataset"),
        (["Mine", "--from", "sequences", "--text", ""], "--text '' contains an empty column name; name columns of"),
        (["Mine", "--from", "sequences", "--text", "a", "b|"], "--text 'b|' contains an empty column name"),
        (
            ["Mine", "--from", "sequences", "--encoder", ""],
            "--encoder '' is empty; give a Hugging Face id",
        ),
        (
            ["Beauty", "--image-encoder", " "],
            "--image-encoder ' ' is empty; give a Hugging",
        ),
        (["Beauty", "--encoder", "image=x"], "is an encoder of texts for the modality image; name the one of pictures"),
        (["Beauty", "--encoder", "sound=x"], "is for the modality 'sound', but encodings of texts are named text, or"),
        (["Beauty", "--encoder", "text_llm= "], "--encoder 'text_llm= ' is empty; give a Hugging Face id or a folder"),
        (
            ["Beauty", "--encoder", "text_llm=x", "--encoder", "text_llm=y"],
            "--encoder gives the modality text_llm twice (x and y); give each encoder a modality of its own",
        ),
        (
            ["Beauty", "--encoder", "x", "--encoder", "text=y"],
            "--encoder gives the modality text twice (x and y); give",
        ),
        (
            ["Beauty", "--encoder", "text_llm=packaged:all-MiniLM-L6-v2", "--encoder-layer", "3"],
            "--encoder-layer can only be used with a causal language model as --encoder, such as packaged:gemma-3-270m",
        ),
        (["Beauty", "--encoder-seed", "3"], "--encoder-seed can only be used with --encoder-weights random; leave it"),
        (["Beauty", "--encoder-dtype", "int8"], "encoder_dtype = 'int8' must be one of float32, bfloat16"),
        (["Beauty", "--k-core", "-2"], "k_core = -2 must be >= 0"),
        (["Beauty", "--source", "nowhere"], "source folder nowhere does not exist"),
        (["Mine", "--from", "recbole"], "dataset Mine: no Mine.inter in any of"),
    ],
)
def test_bad_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error


def test_other_names_of_a_dataset_are_understood(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--from", "sequences", "--source", str(source), "--output", str(tmp_path), "--k-core", "0", "--text"]
    assert main(["Toys_and_Games", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == "dataset Toys_and_Games is named Toys here\n"
    assert f"prepared {tmp_path}/Toys; train on it" in captured.out
    assert main(["toys", "--check", "--output", str(tmp_path)]) == 0
    assert "Toys (kind sequences)" in capsys.readouterr().out
    (tmp_path / "Toys").rename(tmp_path / "toys")
    assert main(["toys", "--check", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""  # a folder of exactly this name comes first


def test_own_data_of_another_kind_keep_a_name_that_a_known_dataset_has(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--from", "sequences", "--source", str(source), "--output", str(tmp_path), "--k-core", "0", "--text"]
    assert main(["sports", *options]) == 0  # Sports cannot be made from sequences
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"prepared {tmp_path}/sports; train on it" in captured.out
    assert main(["Sports", *options]) == 2
    assert "dataset Sports is of kind amazon2014 or amazon2018 or" in capsys.readouterr().err


def test_no_traceback_from_a_shell(tmp_path: Path) -> None:
    arguments = [sys.executable, str(REPOSITORY / "benchmarks" / "prepare.py"), "Nothing"]
    done = subprocess.run(
        arguments, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown dataset 'Nothing'; ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("Mine", "--check", "--fresh"), "--fresh can only be used to prepare a dataset; leave it out"),
        (("Mine", "--check", "--neighbors", "0"), "--neighbors can only be used with --check, and must be from 1"),
        (("Mine", "--from", "splits", "--columns", "user=a"), "--columns can only be used with --from table"),
        (
            ("Mine", "--from", "splits", "--category", "All_Beauty"),
            "--category can only be used with --from amazon2014, ",
        ),
        (("Mine", "--from", "splits", "--encoder", "x"), "--encoder can only be used with text columns, and"),
        (("Mine", "--from", "splits", "--feature-dtype", "float16"), "--feature-dtype can only be used with --text or"),
    ],
)
def test_options_without_effect_are_refused(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_check_and_shuffle_ties_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Mine", "--check", "--shuffle-ties", "1"]) == 2
    assert "--check, --card, --shuffle-ties and --export exclude each other" in capsys.readouterr().err


def test_the_card_gets_the_front_matter_of_the_hub(
    tmp_path: Path, toy_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path / "toy", toy_dataset)
    words = ["toy", "--output", str(tmp_path), "--licence", "mit"]
    assert main(words) == 2
    assert "--licence can only be used with --card" in capsys.readouterr().err
    assert main([*words, "--card"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/toy/README.md\n"
    assert (tmp_path / "toy" / "README.md").read_text().startswith("---\nlicense: mit\n")
    (tmp_path / "toy" / "README.md").write_text("mine")
    assert main([*words, "--card"]) == 2
    assert "README.md is not a card that this project has written" in capsys.readouterr().err
    assert main([*words, "--card", "--fresh"]) == 0


def test_beauty_without_text_takes_less_than_five_seconds(tmp_path: Path) -> None:
    if not BEAUTY.is_dir():
        pytest.skip("no Beauty in ../shared/datasets")
    started = time.process_time()  # whatever else the machine is doing
    assert main(["Beauty", "--source", str(BEAUTY), "--output", str(tmp_path), "--text"]) == 0
    assert time.process_time() - started < 5


def test_fill_needs_feature_files(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(tmp_path, source, "--k-core", "0", "--text", "--fill", "zero")
    assert main(arguments) == 2
    assert "--fill can only be used with --text, --pictures or feature files; leave it out" in capsys.readouterr().err
    np.save(source / "image_feat.npy", np.eye(2))
    (source / "image_feat.tokens.txt").write_text("a\nc\n")
    assert main(arguments) == 0
    folder = tmp_path / "dataset" / "Mine"
    missing = (folder / "image_feat.missing.txt").read_text().split()
    tokens = (folder / "image_feat.tokens.txt").read_text().split()
    assert "b" in missing
    assert np.load(folder / "image_feat.npy")[tokens.index("b")].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["user=item_id"], "--columns user=item_id: item is read from that column as well"),
        (["user=who", "item=who"], "--columns user=who: item is read from that column as well"),
        (["user=who", "time=who"], "--columns user=who: time is read from that column as well"),
        (["user=who", "user=whom"], "--columns names a field twice"),
    ],
)
def test_two_fields_cannot_share_a_column(
    columns: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["Mine", "--from", "table", "--source", str(tmp_path), "--columns", *columns]) == 2
    assert said in capsys.readouterr().err


def test_a_too_large_seed_of_shuffle_ties_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Mine", "--shuffle-ties", str(2**64), "--output", str(tmp_path)]) == 2
    assert "--shuffle-ties" in capsys.readouterr().err


@pytest.mark.parametrize(
    "columns",
    [
        ["--columns", "user=who", "item=what"],
        ["--columns", "user=who", "--columns", "item=what"],
        ["--columns=user=who", "--columns=item=what"],
    ],
)
def test_columns_can_be_given_together_or_one_by_one(columns: list[str], tmp_path: Path) -> None:
    source = tmp_path / "Mine.csv"
    source.write_text("who,what,timestamp\nu1,a,1\nu1,b,2\nu1,c,3\nu2,b,1\nu2,c,2\nu2,a,3\n")
    options = ["Mine", "--from", "table", "--k-core", "0", "--source", str(source), "--output", str(tmp_path / "out")]
    assert main([*options, *columns]) == 0
    assert (tmp_path / "out" / "Mine" / "Mine.inter").read_text().splitlines()[1].startswith("u1\ta\t")


@pytest.mark.parametrize("option", ["--source", "--raw", "--output", "--to"])
def test_an_empty_path_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Mine", option, ""]) == 2
    assert f"Invalid value for '{option}': the name is empty" in capsys.readouterr().err
