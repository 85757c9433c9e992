"""Patches that make RecBole 1.2.1 work with NumPy 2, SciPy >= 1.13, torch >= 2.6 and pandas 3.

Each patch is applied to one RecBole module directly after the module has run (see `finder.py`). The packages numpy,
scipy, torch and pandas are not changed. Where RecBole uses a name that was removed or changed, the global of the
RecBole module (`np`, `sp`, `torch`, `pd`) is replaced by a `Namespace` with a compatible version of that one name.
`entry_patches.py` has the patches that lead RecBole to our models.

| breaks with   | problem                                            | fix                                             |
|---------------|----------------------------------------------------|-------------------------------------------------|
| NumPy 2       | `Config.compatibility_settings` writes `np.float_` | no-op; `np.float`, `np.str` where they are used |
| SciPy >= 1.13 | `dok_matrix._update` was removed                   | a `dok_matrix` that has this method             |
| torch >= 2.6  | `torch.load` rejects a pickled `Config`            | `weights_only=False` in RecBole's own calls     |
| pandas 3      | chained `fillna(inplace=True)` has no effect       | the filled column is assigned                   |
|               | `column.agg(len)` returns the column's length      | `len` of a column returns each field's length   |
| (none)        | importing SINE turns on torch's anomaly detection  | turned off again                                |
|               | ids such as `NA` and `None` are read as missing    | only empty ids are missing                      |
|               | sampling never ends if no candidate is left        | checked before training (`negatives.py`)        |
|               | BERT4Rec's loss of a batch without masks is NaN    | the loss is 0                                   |
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from hellm_recbole.bridge.namespace import Namespace
from hellm_recbole.bridge.sampling_patches import (
    check_line,
    check_masks,
    check_s3rec,
    check_samplers,
    fix_loss_without_mask,
    skip_impossible_negatives,
)

Patch = Callable[[ModuleType], None]

SERIES = "1.2."  # start of the RecBole versions that the patches support

_MISSING_NUMBERS = (  # texts that pandas reads as a missing number by default
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
_GENERAL = "recbole.model.general_recommender"
_KNOWLEDGE = "recbole.model.knowledge_aware_recommender"
_DATASETS = "recbole.data.dataset"
_QUICK_START = "recbole.quick_start.quick_start"


def _restore_numpy_aliases(module: ModuleType) -> None:
    """Restore `np.float` and `np.str`, which NumPy 1.24 removed. RecBole means NumPy's scalar types."""
    import numpy as np

    module.np = Namespace(np, float=np.float64, str=np.str_)  # type: ignore[attr-defined]


def _restore_dok_update(module: ModuleType) -> None:
    """Restore the private `dok_matrix._update`, which SciPy 1.13 removed. RecBole fills adjacency matrices with it."""
    import numpy as np
    import scipy.sparse as sp

    class DokMatrix(sp.dok_matrix):  # type: ignore[misc]
        def _update(self, entries: dict[tuple[int, int], float]) -> None:
            if entries:
                rows, columns = np.array(list(entries)).T
                self[rows, columns] = np.array(list(entries.values()), dtype=self.dtype)

    module.sp = Namespace(sp, dok_matrix=DokMatrix)  # type: ignore[attr-defined]


def _turn_off_anomaly_detection(module: ModuleType) -> None:
    """Turn off torch's anomaly detection, which importing SINE turns on for the whole process.

    With anomaly detection, every backward pass is slower and fails at a NaN before a trainer can name the loss term.
    """
    import torch

    torch.autograd.set_detect_anomaly(False)


def load_pickled(*args: Any, **options: Any) -> Any:
    """Load a checkpoint with pickled objects, as `torch.load` did before torch 2.6.

    A RecBole checkpoint contains a pickled `Config`, which `weights_only=True` rejects. Unpickling runs code from the
    file. This is acceptable here, because users wrote these files themselves with RecBole, and RecBole has always read
    them in this way. Our own checkpoints contain no pickled objects.
    """
    import torch

    return torch.load(*args, **{"weights_only": False, **options})


def _allow_pickled_checkpoints(module: ModuleType) -> None:
    """Let a RecBole module load checkpoints that contain pickled objects."""
    import torch

    module.torch = Namespace(torch, load=load_pickled)  # type: ignore[attr-defined]


def _keep_numpy(module: ModuleType) -> None:
    """Stop `Config` from writing removed names into numpy for the whole process.

    They are not needed, because other patches provide them where they are used.
    """

    def compatibility_settings(self: Any) -> None:
        """Do nothing: each RecBole module already has the numpy names that it uses."""

    module.Config.compatibility_settings = compatibility_settings


def _fix_pandas_tables(module: ModuleType) -> None:
    """Fix the reading and filling of tables with pandas 3.

    With pandas 3, `frame[column].fillna(..., inplace=True)` fills a copy, and NaN ids become arbitrary integers.
    """
    import numpy as np
    import pandas as pd

    kinds: Any = module.FeatureType

    def fill_nan(self: Any) -> None:
        """Fill missing values: tokens with 0 ([PAD]), numbers with the column's mean, sequences with empty ones."""
        for name in self.feat_name_list:
            table = getattr(self, name)
            for column in table:
                kind = self.field2type[column]
                if kind == kinds.TOKEN:
                    table[column] = table[column].fillna(0).astype(np.int64)
                elif kind == kinds.FLOAT:
                    table[column] = table[column].fillna(table[column].mean())
                else:
                    empty = np.array([], dtype=np.int64 if kind == kinds.TOKEN_SEQ else np.float64)
                    table[column] = [empty if isinstance(value, float) else value for value in table[column]]

    def read_csv(*args: Any, **options: Any) -> pd.DataFrame:
        """Read texts exactly as in the file. Only an empty text is missing; a missing sequence becomes "".

        By default, pandas reads ids such as `NA`, `None` and `nan` as missing. RecBole's `_load_feat` then splits each
        sequence.
        """
        missing = {column: _MISSING_NUMBERS if ":float" in column else ("",) for column in options["dtype"]}
        table: pd.DataFrame = pd.read_csv(*args, **options, keep_default_na=False, na_values=missing)
        for column in table.columns:
            if str(column).endswith("_seq"):  # the header is still `name:token_seq` here
                table[column] = table[column].fillna("")
        return table

    to_interaction = module.Dataset._dataframe_to_interaction

    def dataframe_to_interaction(self: Any, data: pd.DataFrame) -> Any:
        """Convert a table with copied arrays. Those of pandas 3 are read-only, and torch would share their memory."""
        return to_interaction(self, {name: SimpleNamespace(values=data[name].to_numpy(copy=True)) for name in data})

    module.Dataset._fill_nan = fill_nan
    module.Dataset._dataframe_to_interaction = dataframe_to_interaction
    module.pd = Namespace(pd, read_csv=read_csv)  # type: ignore[attr-defined]


def _fix_field_lengths(module: ModuleType) -> None:
    """Fix `column.agg(len)`, which calls `len(column)` with pandas 3. RecBole needs the length of each sequence.

    The patched modules do not use `len` of a column anywhere else.
    """
    import pandas as pd

    def measure_length(value: Any) -> Any:
        return value.map(len) if isinstance(value, pd.Series) else len(value)

    module.len = measure_length  # type: ignore[attr-defined]


def _replace_load_data_and_model(module: ModuleType) -> None:
    """Replace `load_data_and_model` so that it loads pickled objects.

    The original imports torch inside the function, where a `Namespace` has no effect.
    """
    quick_start: Any = module

    def load_data_and_model(model_file: str) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Load the config, the model, the dataset and the three loaders of a RecBole checkpoint."""
        checkpoint = load_pickled(model_file)
        config = checkpoint["config"]
        quick_start.init_seed(config["seed"], config["reproducibility"])
        quick_start.init_logger(config)
        logger = quick_start.getLogger()
        logger.info(config)
        dataset = quick_start.create_dataset(config)
        logger.info(dataset)
        loaders = quick_start.data_preparation(config, dataset)
        quick_start.init_seed(config["seed"], config["reproducibility"])
        model = quick_start.get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
        model.load_state_dict(checkpoint["state_dict"])
        model.load_other_parameter(checkpoint.get("other_parameter"))
        return (config, model, dataset, *loaders)

    quick_start.load_data_and_model = load_data_and_model


def _export_load_data_and_model(module: ModuleType) -> None:
    """Export the new `load_data_and_model` from the package.

    A package that was imported before `install()` still exports the old function.
    """
    module.load_data_and_model = importlib.import_module(_QUICK_START).load_data_and_model  # type: ignore[attr-defined]


PATCHES: dict[str, tuple[Patch, ...]] = {
    "recbole.config.configurator": (_keep_numpy,),
    "recbole.evaluator.metrics": (_restore_numpy_aliases,),
    "recbole.trainer.hyper_tuning": (_restore_numpy_aliases,),
    "recbole.data.interaction": (_restore_numpy_aliases,),
    "recbole.data.transform": (skip_impossible_negatives,),
    "recbole.data.dataloader.general_dataloader": (check_masks,),
    "recbole.sampler.sampler": (check_samplers,),
    f"{_DATASETS}.dataset": (_fix_pandas_tables, _fix_field_lengths),
    f"{_DATASETS}.kg_dataset": (_fix_field_lengths,),
    f"{_DATASETS}.sequential_dataset": (_fix_field_lengths,),
    f"{_GENERAL}.lightgcn": (_restore_dok_update,),
    f"{_GENERAL}.line": (check_line,),
    f"{_GENERAL}.ngcf": (_restore_dok_update,),
    f"{_GENERAL}.spectralcf": (_restore_dok_update,),
    f"{_GENERAL}.gcmc": (_restore_dok_update,),
    f"{_GENERAL}.ncl": (_restore_dok_update,),
    f"{_KNOWLEDGE}.kgin": (_restore_dok_update,),
    f"{_KNOWLEDGE}.mcclk": (_restore_dok_update,),
    "recbole.trainer.trainer": (_allow_pickled_checkpoints,),
    f"{_GENERAL}.convncf": (_allow_pickled_checkpoints,),
    f"{_GENERAL}.nais": (_allow_pickled_checkpoints,),
    f"{_GENERAL}.neumf": (_allow_pickled_checkpoints,),
    f"{_GENERAL}.ract": (_allow_pickled_checkpoints,),
    "recbole.model.context_aware_recommender.kd_dagfm": (_allow_pickled_checkpoints,),
    "recbole.model.sequential_recommender.bert4rec": (fix_loss_without_mask,),
    "recbole.model.sequential_recommender.s3rec": (_allow_pickled_checkpoints, check_s3rec),
    "recbole.model.sequential_recommender.sine": (_turn_off_anomaly_detection,),
    _QUICK_START: (_replace_load_data_and_model,),
    "recbole.quick_start": (_export_load_data_and_model,),
}
