"""Find the files of a language model: the packaged one, a folder, a GGUF file, or a model of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.errors import DataError
from hellm_recbole.llm import packaged

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_ORIGINAL_WEIGHTS = "consolidated.*.pth"  # weight files in Meta's own layout of Llama, as the HeLLM release reads them
_ORIGINAL_SETTINGS = "params.json"  # configuration in the same layout


@dataclass(frozen=True)
class Source:
    """Where the files of a model are: a folder, and the name of the GGUF file in it, if the model is one."""

    folder: Path
    gguf: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def find_source(llm: str) -> Source:
    """Find the files of a language model; those of a hub id are fetched unless they are in the local cache.

    Args:
        llm: `auto`, a hub id, a folder, or a GGUF file.

    Raises:
        MissingDependency: `llm` is `auto` and the packaged model is not installed.
        DataError: `llm` is neither a folder nor a file, and cannot be fetched from the hub; or it is in Meta's own
            layout, which has to be converted.
    """
    if llm == packaged.AUTO:
        return Source(packaged.unpack_model())
    path = Path(llm).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return Source(path.parent, path.name)
    if path.is_file() and path.match(_ORIGINAL_WEIGHTS):
        raise _make_original_error(llm, path.parent)
    if path.is_dir():
        _refuse_original_layout(llm, path)
        if not (path / "config.json").is_file():
            raise DataError(f"--llm {llm} is a folder without config.json; pass a folder that save_pretrained wrote")
        return Source(path)
    folder = _fetch_from_hub(llm)
    _refuse_original_layout(llm, folder)
    return Source(folder)


def _refuse_original_layout(llm: str, folder: Path) -> None:
    """Refuse a checkpoint of Llama in Meta's own layout; a folder that was converted in place is accepted.

    Raises:
        DataError: the folder has only files of that layout.
    """
    has_original = (folder / _ORIGINAL_SETTINGS).is_file() or next(folder.glob(_ORIGINAL_WEIGHTS), None) is not None
    if has_original and not (folder / "config.json").is_file():
        raise _make_original_error(llm, folder)


def _make_original_error(llm: str, folder: Path) -> DataError:
    """Make the error about a checkpoint in Meta's own layout; it names the script that converts such checkpoints."""
    return DataError(
        f"--llm {llm} is a checkpoint of Llama in Meta's own layout (consolidated.00.pth, params.json), which is not "
        "read; convert it with `python src/transformers/models/llama/convert_llama_weights_to_hf.py --input_dir "
        f"{folder} --model_size 7B --output_dir NEW` from the source code of transformers (github.com/huggingface/"
        "transformers) and pass --llm NEW, or pass a hub id such as meta-llama/Llama-2-7b-hf"
    )


def find_hub_id(llm: str) -> str | None:
    """Return the hub id of a language model; None for a folder or a GGUF file.

    Args:
        llm: `auto`, a hub id, a folder, or a GGUF file.

    >>> find_hub_id("meta-llama/Llama-2-7b-hf"), find_hub_id("./folder")
    ('meta-llama/Llama-2-7b-hf', None)
    """
    if llm == packaged.AUTO:
        return packaged.HUB_ID
    is_path = llm.startswith((".", "~", "/")) or llm.endswith(".gguf") or Path(llm).exists()
    return None if is_path else llm


def _fetch_from_hub(llm: str) -> Path:
    """Return the cached files of a hub id; fetch them if they are not in the cache.

    Raises:
        DataError: the id is wrong, or the hub does not give the files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    message = (
        f"language model {llm!r} is neither a local folder nor a GGUF file, and cannot be fetched from the Hugging "
        "Face hub. Check the name, the network and (for gated models) your login, or pass --llm with a local folder"
    )
    try:
        return Path(snapshot_download(llm, local_files_only=True, allow_patterns=_FILES))
    except HFValidationError as error:
        raise DataError(message) from error
    except LocalEntryNotFoundError:
        pass  # not in the cache yet
    try:
        return Path(snapshot_download(llm, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(message) from error
