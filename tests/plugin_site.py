"""Write installed packages with entry points, as pip leaves them, and let this process find them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hellm_recbole.config import plugin_points
from hellm_recbole.plugins import loading, metrics, models

CACHES = (
    plugin_points.list_points,
    plugin_points.find_properties_folder,
    models.load_plugin_models,
    metrics.load_metrics,
    loading.report_unusable,
)
MODEL_CODE = """
from hellm_recbole.baselines.lightgcn import LightGCN, LightGCNSettings
from hellm_recbole.models.base import ModelSpec

MODELS = {"NAME": ModelSpec(LightGCN, LightGCNSettings, "collaborative", "pairs")}
"""
MODEL_SETTINGS = """
emb_dim: 8
n_layers: 1
init_std: 0.1
l2_weight: 0.0
sampling: interactions
batch_size: 64
learning_rate: 0.01
weight_decay: 0.0
variants:
  flat: {n_layers: 0}
"""


def write_package(site: Path, package: str, points: Mapping[str, Mapping[str, str]], files: Mapping[str, str]) -> None:
    """Write a package and its metadata.

    Args:
        site: folder of packages.
        package: name of the package.
        points: group of entry points -> name -> object.
        files: path in the package -> content; `__init__.py` is added.
    """
    for name, content in {"__init__.py": "", **files}.items():
        path = site / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    about = site / f"{package}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items())
    (about / "entry_points.txt").write_text("\n".join(lines))


def write_model(site: Path, package: str, model: str, *, settings: str | None = MODEL_SETTINGS) -> None:
    """Write a package with a model; `settings` is its settings file, None for a package without one."""
    files = {"registry.py": MODEL_CODE.replace("NAME", model)}
    if settings is not None:
        files[f"properties/model/{model}.yaml"] = settings
    write_package(site, package, {plugin_points.MODELS: {"x": f"{package}.registry:MODELS"}}, files)


@contextmanager
def use_site(site: Path) -> Iterator[None]:
    """Let this process find the packages of a folder, and forget them at the end."""
    before = set(sys.modules)
    sys.path.insert(0, str(site))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        _forget()
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(site)):
                del sys.modules[name]


def _forget() -> None:
    importlib.invalidate_caches()
    for cached in CACHES:
        cached.cache_clear()
