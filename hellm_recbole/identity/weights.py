"""Digests of a language model: of all bytes of its weights that are read, and of its configuration and tokenizer.

Reading gigabytes takes its time, so the digest of each tensor is kept in the user's cache folder, for as long as the
file is the same. A cache that cannot be read or written changes no result: digests are then computed each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.files import ensure_folder, sha256_file, write_text

_BLOCK_BYTES = 1 << 22
_CACHE_FORMAT = 1
_SETTLED_NS = 2_000_000_000  # a file that changed later may change again within one tick of the file system's clock
_WHOLE_FILE = ""  # name of the one entry of a file that is not split into tensors
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)lm_head\.")
_EMBEDDINGS = re.compile(r"embed|wte")
_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_ADAPTER_CONFIG, _ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
_PARSED = ("config.json", "tokenizer_config.json", "special_tokens_map.json", _ADAPTER_CONFIG)
_AS_THEY_ARE = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"),
    *("vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
)
# Keys of the parsed files that change no number: who wrote them, where from, and what only a chat reads.
_NEUTRAL = frozenset({"transformers_version", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "chat_template"})


def find_cache_root() -> Path:
    """`$HELLM_CACHE`, or `hellm-recbole` in the user's cache folder."""
    given = os.environ.get("HELLM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hellm-recbole"


def digest_language_model(folder: Path, gguf: str | None = None, n_layers: int | None = None) -> str:
    """SHA-256 over all bytes of a language model's weights that are read.

    Tensors count with name, dtype, shape and bytes, in whatever files of whatever folder they are. The output head and
    the layers that are cut off are left out, unless the file is GGUF or pickled, which counts as a whole.

    Args:
        folder: of the model's files.
        gguf: name of a GGUF file in it, which is then all of the weights.
        n_layers: the first n are read; None for all.

    Returns:
        Hex digits.

    Raises:
        DataError: there are no weights, or a file of them is broken.
    """
    found: list[tuple[str, str]] = []
    for path in [folder / gguf] if gguf else list_weight_files(folder):
        found.extend(_tensor_digests(path).items())
    has_embeddings = any(_EMBEDDINGS.search(name) for name, _ in found)
    used = [
        (name, digest)
        for name, digest in found
        if not is_cut_off(name, n_layers) and not (has_embeddings and is_head(name))
    ]
    return hashlib.sha256(json.dumps(sorted(used)).encode()).hexdigest()


def digest_settings(folder: Path) -> str:
    """SHA-256 over the configuration and the tokenizer of a language model, which decide numbers like the weights.

    Args:
        folder: of the model's files.

    Returns:
        Hex digits.

    Raises:
        DataError: a JSON file of it is broken.
    """
    found: dict[str, Any] = {name: sha256_file(folder / name) for name in _AS_THEY_ARE if (folder / name).is_file()}
    for name in _PARSED:
        if (folder / name).is_file():
            found[name] = _without_neutral(_read_json(folder / name))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _without_neutral(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_neutral(inner) for key, inner in value.items() if key not in _NEUTRAL}
    return [_without_neutral(inner) for inner in value] if isinstance(value, list) else value


def is_head(name: str) -> bool:
    """Whether a tensor of that name belongs to the output head, which is not read."""
    return _HEAD.search(name) is not None


def is_cut_off(name: str, n_layers: int | None) -> bool:
    """Whether a tensor of that name is in a layer after the first n, which is not read either."""
    layer = _LAYER.search(name)
    return n_layers is not None and layer is not None and int(layer.group(1)) >= n_layers


def list_weight_files(folder: Path) -> list[Path]:
    """The files that `from_pretrained` reads, in its own order of preference, and those of an adapter beside them.

    Raises:
        DataError: there are none, or one is missing.
    """
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    wanted = (named,) if isinstance(named, str) else (_SAFETENSORS, f"{_SAFETENSORS}.index.json", _PICKLED)
    wanted = (*wanted, f"{_PICKLED}.index.json") if named is None else wanted
    for name in wanted:
        path = folder / name
        if path.is_file():
            files = _shards(path) if name.endswith(".index.json") else [path]
            return files + _adapter_files(folder)
    raise DataError(f"{folder} has no weights ({_SAFETENSORS} or {_PICKLED}); pass the folder of a whole model")


def _adapter_files(folder: Path) -> list[Path]:
    if not (folder / _ADAPTER_CONFIG).is_file():
        return []
    return [folder / name for name in _ADAPTERS if (folder / name).is_file()][:1]


def _shards(index: Path) -> list[Path]:
    content = _read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise DataError(f"{index} names no file of weights; fetch the model again")
    files = [index.parent / str(name) for name in sorted(set(places.values()))]
    lost = [path.name for path in files if not path.is_file()]
    if lost:
        raise DataError(f"{index} names {lost[0]}, which is not there; fetch the model again")
    return files


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON; fetch the model again") from error


def _tensor_digests(path: Path) -> dict[str, str]:
    """Name -> digest of each tensor of a file, or of the whole file, from the cache where it is the same file."""
    path = path.resolve()
    status = path.stat()
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    place = find_cache_root() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    cached = _read_cached(place, state)
    if cached is not None:
        return cached
    if path.suffix == ".safetensors":
        digests = dict(_hash_tensors(path))
    else:
        digests = {_WHOLE_FILE: sha256_file(path)}
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return digests
    _write_cached(place, {"format": _CACHE_FORMAT, "path": str(path), "state": state, "digests": digests})
    return digests


def _read_cached(place: Path, state: list[int]) -> dict[str, str] | None:
    """Digests that were written for the same state of the file; None where there are none or they cannot be read."""
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != _CACHE_FORMAT or content.get("state") != state:
        return None
    digests = content.get("digests")
    if not isinstance(digests, dict) or not digests:
        return None
    whole = all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests.values())
    return {str(name): str(digest) for name, digest in digests.items()} if whole else None


def _write_cached(place: Path, content: Mapping[str, Any]) -> None:
    try:
        ensure_folder(place.parent)
        write_text(place, json.dumps(content))
    except OutputError:
        pass  # computed again next time, to the same result


def _hash_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each tensor of a safetensors file; at most one block of it is in memory.

    The layout is eight bytes with the length of a JSON header, the header, and the tensors' bytes.
    """
    broken = DataError(f"weights {path} are broken or cut short; fetch the model again")
    with path.open("rb") as stream:
        try:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if header_bytes > path.stat().st_size:
                raise broken
            header = json.loads(stream.read(header_bytes))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            spans = sorted((*entry["data_offsets"], name) for name, entry in tensors.items())
            for begin, end, name in spans:
                digest = hashlib.sha256(json.dumps([tensors[name]["dtype"], tensors[name]["shape"]]).encode())
                stream.seek(8 + header_bytes + begin)
                if not _hash_bytes(stream, end - begin, digest):
                    raise broken
                yield name, digest.hexdigest()
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise broken from error


def _hash_bytes(stream: BinaryIO, n_bytes: int, digest: Any) -> bool:
    """Feed the next bytes of a stream to a digest; False where it ends too soon."""
    block = memoryview(bytearray(min(_BLOCK_BYTES, max(n_bytes, 1))))
    while n_bytes:
        n_read = stream.readinto(block[: min(len(block), n_bytes)])  # type: ignore[attr-defined]
        if not n_read:
            return False
        digest.update(block[:n_read])
        n_bytes -= n_read
    return True
