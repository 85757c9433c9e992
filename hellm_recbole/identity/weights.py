"""Compute digests of a language model: of the weights that are used, and of its configuration and tokenizer.

Reading gigabytes is slow, so the digests of the tensors of a file are cached in the user's cache folder until the file
changes. A cache that cannot be read or written changes no result: the digests are then computed each time.
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
_SETTLED_NS = 2_000_000_000  # a younger file is not cached: it could change again and keep the same time stamp
_WHOLE_FILE = ""  # name of the only entry of a file that is not split into tensors
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)lm_head\.")
_EMBEDDINGS = re.compile(r"embed|wte")
_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_ADAPTER_CONFIG, _ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
_PARSED = ("config.json", "tokenizer_config.json", "special_tokens_map.json", _ADAPTER_CONFIG)
_HASHED_UNPARSED = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"),
    *("vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
)
# Keys of the parsed files that change no number: version, path, number type of the file, and prompt format of a chat.
_NEUTRAL = frozenset({"transformers_version", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "chat_template"})


def find_cache_root() -> Path:
    """Return the cache folder: `$HELLM_CACHE`, or `hellm-recbole` in the user's cache folder."""
    folder = os.environ.get("HELLM_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hellm-recbole"


def digest_language_model(folder: Path, gguf: str | None = None, n_layers: int | None = None) -> str:
    """Compute the SHA-256 over the weights of a language model that are used.

    Name, dtype, shape and bytes of each tensor are hashed; folder, file names and the number of files do not matter.
    The output head and the layers that are cut off are left out. A GGUF or pickled file is hashed as a whole.

    Args:
        folder: folder of the model.
        gguf: name of a GGUF file in the folder that holds all weights; None for other formats.
        n_layers: number of layers that are used, counted from the first; None for all.

    Returns:
        Digest as hexadecimal digits.

    Raises:
        DataError: there are no weights, or a file of the weights is broken.
    """
    found: list[tuple[str, str]] = []
    for path in [folder / gguf] if gguf else list_weight_files(folder):
        found.extend(_digest_tensors(path).items())
    has_embeddings = any(_EMBEDDINGS.search(name) for name, _ in found)
    used = [
        (name, digest)
        for name, digest in found
        if not is_cut_off(name, n_layers) and not (has_embeddings and is_head(name))
    ]
    return hashlib.sha256(json.dumps(sorted(used)).encode()).hexdigest()


def digest_settings(folder: Path) -> str:
    """Compute the SHA-256 over the configuration and the tokenizer of a language model. Both change its numbers.

    Args:
        folder: folder of the model.

    Returns:
        Digest as hexadecimal digits.

    Raises:
        DataError: a JSON file of the model is broken.
    """
    found: dict[str, Any] = {name: sha256_file(folder / name) for name in _HASHED_UNPARSED if (folder / name).is_file()}
    for name in _PARSED:
        if (folder / name).is_file():
            found[name] = _remove_neutral_keys(_read_json(folder / name))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _remove_neutral_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _remove_neutral_keys(inner) for key, inner in value.items() if key not in _NEUTRAL}
    return [_remove_neutral_keys(inner) for inner in value] if isinstance(value, list) else value


def is_head(name: str) -> bool:
    """Return whether a tensor of this name belongs to the output head, which is not used."""
    return _HEAD.search(name) is not None


def is_cut_off(name: str, n_layers: int | None) -> bool:
    """Return whether a tensor of this name is in a layer after the first `n_layers`, which is not used either."""
    layer = _LAYER.search(name)
    return n_layers is not None and layer is not None and int(layer.group(1)) >= n_layers


def list_weight_files(folder: Path) -> list[Path]:
    """List the weight files that `from_pretrained` reads, followed by the adapter file in the same folder, if any.

    If a folder contains several formats, `from_pretrained` prefers safetensors.

    Raises:
        DataError: there is no weight file, or one is missing.
    """
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    wanted = (named,) if isinstance(named, str) else (_SAFETENSORS, f"{_SAFETENSORS}.index.json", _PICKLED)
    wanted = (*wanted, f"{_PICKLED}.index.json") if named is None else wanted
    for name in wanted:
        path = folder / name
        if path.is_file():
            files = _list_shards(path) if name.endswith(".index.json") else [path]
            return files + _find_adapter_files(folder)
    raise DataError(f"{folder} has no weights ({_SAFETENSORS} or {_PICKLED}); pass the folder of a whole model")


def _find_adapter_files(folder: Path) -> list[Path]:
    if not (folder / _ADAPTER_CONFIG).is_file():
        return []
    return [folder / name for name in _ADAPTERS if (folder / name).is_file()][:1]


def _list_shards(index: Path) -> list[Path]:
    content = _read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{index} names no weight file; download the model again")
    files = [index.parent / str(name) for name in sorted(set(weight_map.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise DataError(f"{index} names {missing[0]}, which does not exist; download the model again")
    return files


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON; download the model again") from error


def _digest_tensors(path: Path) -> dict[str, str]:
    """Return the digest of each tensor of a file, name -> digest, or that of the whole file if it has no header.

    The digests come from the cache if the file has not changed since they were computed.
    """
    path = path.resolve()
    status = path.stat()
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    cache_file = find_cache_root() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    cached = _read_cache_file(cache_file, state)
    if cached is not None:
        return cached
    if path.suffix == ".safetensors":
        digests = dict(_hash_tensors(path))
    else:
        digests = {_WHOLE_FILE: sha256_file(path)}
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return digests
    _write_cache_file(cache_file, {"format": _CACHE_FORMAT, "path": str(path), "state": state, "digests": digests})
    return digests


def _read_cache_file(cache_file: Path, state: list[int]) -> dict[str, str] | None:
    """Read the digests of a weight file from the cache.

    Args:
        cache_file: file of the cache.
        state: size, times and inode of the weight file now.

    Returns:
        Tensor -> digest; None if the cache file is missing or broken, or if the weight file had another state.
    """
    try:
        content = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != _CACHE_FORMAT or content.get("state") != state:
        return None
    digests = content.get("digests")
    if not isinstance(digests, dict) or not digests:
        return None
    is_valid = all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests.values())
    return {str(name): str(digest) for name, digest in digests.items()} if is_valid else None


def _write_cache_file(cache_file: Path, content: Mapping[str, Any]) -> None:
    try:
        ensure_folder(cache_file.parent)
        write_text(cache_file, json.dumps(content))
    except OutputError:
        pass  # the same digests are computed again next time


def _hash_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the digest of each tensor of a safetensors file. At most one block of the file is in memory.

    The file consists of eight bytes with the length of a JSON header, the header, and the bytes of the tensors.
    """
    broken = DataError(f"weights {path} are broken or incomplete; download the model again")
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
    """Add the next bytes of a stream to a digest. Return False if the stream ends too early."""
    block = memoryview(bytearray(min(_BLOCK_BYTES, max(n_bytes, 1))))
    while n_bytes:
        n_read = stream.readinto(block[: min(len(block), n_bytes)])  # type: ignore[attr-defined]
        if not n_read:
            return False
        digest.update(block[:n_read])
        n_bytes -= n_read
    return True
