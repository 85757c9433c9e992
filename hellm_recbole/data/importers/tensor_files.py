"""Feature files that another program saved: matrices of torch are read without running code, others are refused."""

from __future__ import annotations

from pathlib import Path

from hellm_recbole.data.feature_files import FEATURES, list_features
from hellm_recbole.data.torch_files import convert_matrix, load_torch_file
from hellm_recbole.errors import DataError
from hellm_recbole.types import FloatArray

TENSOR = "_feat.pt"
_UNREAD = (".pkl", ".pickle", ".npz", ".pth", ".joblib")  # files that may hold pickled objects
_MODALITIES = {"img": "image"}  # names of modalities in the HeLLM release that are not the names of its .npy files


def list_tensor_features(folder: Path) -> dict[str, Path]:
    """List the feature matrices of torch in a folder.

    Returns:
        Modality -> its file, sorted.

    Raises:
        DataError: a modality has two files, or only a file that is not read because it may hold pickled objects.
    """
    found: dict[str, Path] = {}
    arrays = set(list_features(folder))
    for path in sorted(folder.glob(f"[!.]*{TENSOR}")):
        modality = _name_modality(path)
        other = found.get(modality, folder / f"{modality}{FEATURES}" if modality in arrays else None)
        if other is not None:
            raise DataError(f"{path} and {other.name} both hold features of modality {modality!r}; keep one of them")
        found[modality] = path
    for path in sorted(folder.glob("[!.]*_feat.*")):
        modality = _name_modality(path)
        if path.suffix in _UNREAD and modality not in found and modality not in arrays:
            raise DataError(
                f"{path} is not read, because a {path.suffix} file may hold pickled code; save its matrix with "
                f"numpy.save as {modality}{FEATURES}, or remove the file"
            )
    return found


def read_tensor(path: Path) -> FloatArray:
    """Read a matrix that `torch.save` has written. Only tensors are read; code in the file is never run.

    Returns:
        [n, D_m] float32 features.

    Raises:
        DataError: the file is missing, is damaged, or holds anything but one matrix of numbers.
    """
    advice = f"save its matrix with numpy.save as {_name_modality(path)}{FEATURES}"
    return convert_matrix(path, load_torch_file(path, advice))


def _name_modality(path: Path) -> str:
    """Return the modality of a feature file.

    >>> _name_modality(Path("img_feat.pt")), _name_modality(Path("text_feat.pkl"))
    ('image', 'text')
    """
    name = path.name.rpartition("_feat.")[0]
    return _MODALITIES.get(name, name)
