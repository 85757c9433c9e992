"""Compare the results of two versions of this project: `python tests/golden.py BASE [NEW]`.

Both versions run the same commands on the same small dataset, at the same time on this machine, with one thread each.
All files that they write are compared: prepared data, run results, ranks, tables, exported embeddings, and the tensors
of the checkpoints after three epochs. No expected values are stored in the repository, because float tensors differ
between processors. Keys that may differ are listed in `VARYING`. The inputs are made here, without anything of the
project, so that both versions read the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("LightGCN", "VBPR", "SASRec", "HeLLMPre", "HeLLM", "RecBole-LightGCN")  # the last one is RecBole's
SMALL = (
    *("epochs=3", "batch_size=64", "HeLLM.batch_size=24", "HeLLM.micro_batch_size=12", "emb_dim=8"),
    "HeLLM.prefix_hidden=8",
)
# Keys of JSON and YAML files that may differ, at any depth: times, versions, memory, digests of the code, and checksums
# of files that contain these.
VARYING = frozenset(
    {
        *("train_seconds", "eval_seconds", "seconds", "started", "finished", "peak_memory_bytes"),
        *("versions", "git_commit", "git_dirty", "code", "sha256", "inputs", "created", "command", "run", "run_sha256"),
    }
)
VARYING_COLUMNS = ("train_seconds", "host_bytes", "device_bytes")
# Files that are not compared: they contain times (figures, the page, training logs, openings) or checksums of files
# with times.
LEFT_OUT = (
    *("*.html", "*.png", "*.svg", "*.pdf", "*tfevents*", "*.lock", "sums.json", "neighbors-*.npz"),
    "test-openings.jsonl",
)
N_CLUSTERS, CLUSTER_USERS, CLUSTER_ITEMS = 4, 15, 10


def write_source(folder: Path) -> None:
    """Write a table of interactions and two feature files.

    There are `N_CLUSTERS` clusters of users and items. The items of a cluster form a circle. Each user starts at a
    random item of the cluster and takes the following items in order.
    """
    folder.mkdir()
    rng = np.random.default_rng(11)
    lines = ["user_id,item_id,timestamp"]
    for user in range(N_CLUSTERS * CLUSTER_USERS):
        cluster, start = user // CLUSTER_USERS, int(rng.integers(CLUSTER_ITEMS))
        for step in range(int(rng.integers(6, 10))):
            lines.append(f"u{user},i{cluster * CLUSTER_ITEMS + (start + step) % CLUSTER_ITEMS},{1000 + step}")
    (folder / "toy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items = [f"i{item}" for item in range(N_CLUSTERS * CLUSTER_ITEMS)]
    for name, width in (("image", 8), ("text", 6)):
        centres = rng.normal(size=(N_CLUSTERS, width))
        values = centres[np.repeat(np.arange(N_CLUSTERS), CLUSTER_ITEMS)] + 0.1 * rng.normal(size=(len(items), width))
        np.save(folder / f"{name}_feat.npy", values.astype(np.float32))
        (folder / f"{name}_feat.tokens.txt").write_text("\n".join(items) + "\n", encoding="utf-8")


def write_language_model(folder: Path) -> None:
    """Write a random Llama of two layers and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "products", "bought", "next", ":", "a", "customer"]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        pad_token_id=0,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)


def list_commands(inputs: Path) -> list[list[str]]:
    """List the commands that each version runs, in this order."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    prepare = ["prepare", "toy", "--from", "table", "--source", str(inputs / "source"), "--k-core", "0"]
    train = ["run", "--models", ",".join(MODELS), "--dataset", "toy", "--llm", str(inputs / "tiny"), "--threads", "1"]
    return [prepare, [*train, *settings, "--seeds", "1,2"], ["report", "--dataset", "toy"]]


def start_version(checkout: Path, folder: Path, inputs: Path) -> subprocess.Popen[bytes]:
    """Start a process that runs all commands of one version in `folder`; it stops at the first command that fails."""
    folder.mkdir()
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": str(checkout), "HELLM_CACHE": str(folder / "cache")}
    script = " && ".join(
        subprocess.list2cmdline([sys.executable, str(checkout / "benchmarks" / f"{command}.py"), *words])
        for command, *words in list_commands(inputs)
    )
    with open(folder / "output.txt", "wb") as output:
        return subprocess.Popen(script, shell=True, cwd=folder, env=environment, stdout=output, stderr=output)


def read_folder(folder: Path, ignored: frozenset[str] = frozenset()) -> dict[str, str]:
    """Compute a digest of each file that a version wrote.

    Args:
        folder: folder in which the version ran.
        ignored: keys of JSON and YAML files that are left out. Of the keys in `VARYING` only null or not null counts.

    Returns:
        Path of the file -> digest of its content.
    """
    readers: dict[str, Callable[[Path], bytes]] = {
        ".json": lambda path: _dump(_remove_varying(json.loads(path.read_text(encoding="utf-8")), ignored)),
        ".yaml": lambda path: _dump(_remove_varying(yaml.safe_load(path.read_text(encoding="utf-8")), ignored)),
        ".npz": lambda path: _dump_arrays(dict(np.load(path))),
        ".npy": lambda path: _dump_arrays({"": np.load(path)}),
        ".safetensors": lambda path: _dump_arrays(load_file(path)),
        ".md": lambda path: _read_table(path, ignored),
        ".tex": lambda path: _read_table(path, ignored),
        ".csv": _read_csv,
    }
    digests = {}
    for part in ("dataset", "results"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and not any(path.match(pattern) for pattern in LEFT_OUT):
                content = readers.get(path.suffix, Path.read_bytes)(path)
                digests[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return digests


def _remove_varying(value: Any, ignored: frozenset[str]) -> Any:
    """Return a value of a JSON or YAML file without what may differ.

    Keys in `VARYING` keep only whether they are null. Lists of texts are sorted, because PEFT writes sets.
    """
    if isinstance(value, dict):
        entries_by_key = {
            key: entry is None if key in VARYING else entry for key, entry in value.items() if key not in ignored
        }
        return {key: _remove_varying(entry, ignored) for key, entry in entries_by_key.items()}
    if isinstance(value, list):
        entries = [_remove_varying(entry, ignored) for entry in value]
        return sorted(entries) if all(isinstance(entry, str) for entry in entries) else entries
    return value


def _read_table(path: Path, ignored: frozenset[str]) -> bytes:
    """Read a Markdown or LaTeX file without times, memory, column widths, and lines that set an ignored key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not any(f'"{key}":' in line for key in ignored))
    text = re.sub(r"\d+(\.\d)? (s|min|h|MiB|GiB)\b", "", text)
    return re.sub(r"[ -]+", " ", text).encode()


def _read_csv(path: Path) -> bytes:
    """Read a CSV file without the columns that may differ."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return _dump([{key: value for key, value in row.items() if key not in VARYING_COLUMNS} for row in rows])


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _dump_arrays(arrays: dict[str, Any]) -> bytes:
    """Turn named arrays into bytes: name, dtype, shape and values of each, in the order of these bytes."""
    parts = [f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes() for name in arrays]
    return b"".join(sorted(parts))


def describe_differences(base: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return one line for each file that only one version wrote, or that differs."""
    lines = {name: "only in the base" for name in base.keys() - new.keys()}
    lines |= {name: "only in the new version" for name in new.keys() - base.keys()}
    lines |= {name: "differs" for name in base.keys() & new.keys() if base[name] != new[name]}
    return [f"{name}: {line}" for name, line in sorted(lines.items())]


def write_metadata(checkout: Path) -> None:
    """Write the metadata of a checkout into it, so that its own entry points are found before the installed ones.

    The checkout is first in the path of its processes. Its models may stand in other modules than those of today.
    """
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = importlib.metadata.distribution("hellm-recbole").read_text("METADATA")
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    folder = checkout / f"hellm_recbole-{importlib.metadata.version('hellm-recbole')}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(str(installed), encoding="utf-8")
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def check_out(revision: str | None, folder: Path) -> Iterator[Path]:
    """Check out a revision into a new folder and remove it at the end; None gives the working tree."""
    if revision is None:
        yield ROOT
        return
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", folder, revision], check=True)
    write_metadata(folder)
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", folder], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two versions; exit code 0 if nothing differs, 1 if something does, 2 if a version could not be run."""
    parser = argparse.ArgumentParser(prog="golden.py", description=__doc__.splitlines()[0])
    parser.add_argument("base", help="revision to compare with")
    parser.add_argument("new", nargs="?", help="revision to compare; the working tree if not given")
    parser.add_argument(
        "--ignore", default="", metavar="KEYS", help="keys to leave out, such as new settings, separated by commas"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        write_source(scratch / "source")
        write_language_model(scratch / "tiny")
        with check_out(options.base, scratch / "a") as base, check_out(options.new, scratch / "b") as new:
            folders = [scratch / "base", scratch / "new"]
            processes = [
                start_version(checkout, folder, scratch) for checkout, folder in zip((base, new), folders, strict=True)
            ]
            codes = [process.wait() for process in processes]
        for folder, code in zip(folders, codes, strict=True):
            if code:
                print(f"{folder.name}: exit code {code}\n{(folder / 'output.txt').read_text()}", file=sys.stderr)
                return 2
        ignored = frozenset(options.ignore.split(",")) - {""}
        results = [read_folder(folder, ignored) for folder in folders]
    differences = describe_differences(*results)
    print("\n".join(differences) or f"equal: {len(results[0])} files")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
