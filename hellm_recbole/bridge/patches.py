"""RecBole 1.2.1 mended for NumPy 2, SciPy >= 1.13, torch >= 2.6 and pandas 3.

Each mend is applied to one RecBole module right after that module has run (see `finder.py`). numpy, scipy, torch and
pandas themselves stay as they are: where RecBole calls a name that is gone or behaves otherwise, the RecBole module's
own global (`np`, `sp`, `torch`, `pd`) becomes a `Namespace` in which that one name is replaced.

| breaks with   | where                                              | mend                                            |
|---------------|----------------------------------------------------|-------------------------------------------------|
| NumPy 2       | `Config.compatibility_settings` writes `np.float_` | no-op; `np.float`, `np.str` where they are used |
| SciPy >= 1.13 | `dok_matrix._update` is gone                       | a `dok_matrix` that has it                      |
| torch >= 2.6  | `torch.load` refuses a pickled `Config`            | `weights_only=False` in RecBole's own calls     |
| pandas 3      | chained `fillna(inplace=True)` changes nothing     | the filled column is assigned                   |
|               | `column.agg(len)` is the column's length           | `len` of a column is that of each field         |
| (none)        | importing SINE turns on torch's anomaly detection  | turned off again                                |
|               | ids such as `NA` and `None` are read as missing    | only an empty field of ids is                   |
|               | sampling never ends where nothing is left to draw  | checked before training (`negatives.py`)        |
|               | BERT4Rec's loss of a batch without mask is NaN     | it is 0                                         |
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from hellm_recbole.bridge import negatives
from hellm_recbole.errors import DataError

Mend = Callable[[ModuleType], None]

SERIES = "1.2."  # versions of RecBole that the mends are written for

_MARK = "__hellm_mended__"
_MISSING = (  # numbers that pandas reads as missing unless it is told otherwise
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
_GENERAL = "recbole.model.general_recommender"
_KNOWLEDGE = "recbole.model.knowledge_aware_recommender"
_DATASETS = "recbole.data.dataset"
_QUICK_START = "recbole.quick_start.quick_start"


class Namespace(ModuleType):
    """A module's names with some of them replaced, seen by one RecBole module only."""

    def __init__(self, original: ModuleType, **replaced: object) -> None:
        """Names of `original`, but `replaced` first."""
        super().__init__(original.__name__)
        self.__dict__.update(replaced)
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        """What is not replaced."""
        return getattr(self.__dict__["_original"], name)


def apply(module: ModuleType) -> None:
    """Apply the mends of a module that has been imported; a second call does nothing."""
    if not getattr(module, _MARK, False):
        for mend in PATCHES[module.__name__]:
            mend(module)
        setattr(module, _MARK, True)


def _numpy_aliases(module: ModuleType) -> None:
    """NumPy 1.24 removed `np.float` and `np.str`; RecBole meant the scalar types."""
    import numpy as np

    module.np = Namespace(np, float=np.float64, str=np.str_)  # type: ignore[attr-defined]


def _dok_update(module: ModuleType) -> None:
    """SciPy 1.13 removed the private `dok_matrix._update`, with which RecBole fills its adjacency matrices."""
    import numpy as np
    import scipy.sparse as sp

    class DokMatrix(sp.dok_matrix):  # type: ignore[misc]
        def _update(self, entries: dict[tuple[int, int], float]) -> None:
            if entries:
                rows, columns = np.array(list(entries)).T
                self[rows, columns] = np.array(list(entries.values()), dtype=self.dtype)

    module.sp = Namespace(sp, dok_matrix=DokMatrix)  # type: ignore[attr-defined]


def _no_anomaly_detection(module: ModuleType) -> None:
    """Importing SINE turns torch's anomaly detection on for the whole process.

    Every backward pass is slower from then on, and fails at a NaN before a trainer can name the loss term.
    """
    import torch

    torch.autograd.set_detect_anomaly(False)


def _load_whole(*args: Any, **options: Any) -> Any:
    """`torch.load` as before torch 2.6.

    A RecBole checkpoint pickles its `Config`, which `weights_only=True` refuses. Unpickling runs code from the file.
    That is acceptable here because these are files the user wrote himself with RecBole, and RecBole has always read
    them so. Our own checkpoints hold nothing pickled.
    """
    import torch

    return torch.load(*args, **{"weights_only": False, **options})


def _torch_load(module: ModuleType) -> None:
    import torch

    module.torch = Namespace(torch, load=_load_whole)  # type: ignore[attr-defined]


def _config(module: ModuleType) -> None:
    """RecBole's `Config` writes removed names into numpy for the whole process; the modules above have them already.

    It also learns to ask a model class for its default settings, for our models have no file among RecBole's own.
    """
    config: Any = module.Config
    load_own = config._load_internal_config_dict

    def compatibility_settings(self: Any) -> None:
        """Nothing to do: each RecBole module has the numpy names it uses."""

    @functools.wraps(load_own)
    def load_internal(self: Any, model: str, model_class: type, dataset: str) -> None:
        load_own(self, model, model_class, dataset)
        if hasattr(model_class, "recbole_defaults"):
            self.internal_config_dict.update(model_class.recbole_defaults())

    config.compatibility_settings = compatibility_settings
    config._load_internal_config_dict = load_internal


def _pandas_copies(module: ModuleType) -> None:
    """With pandas 3, `frame[column].fillna(..., inplace=True)` fills a copy, and NaN ids become garbage integers."""
    import numpy as np
    import pandas as pd

    kinds: Any = module.FeatureType

    def fill_nan(self: Any) -> None:
        """Missing tokens become 0 ([PAD]), missing numbers the column's mean, missing sequences empty."""
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
        """Texts as they stand in the file, an empty one missing; missing sequences become "".

        pandas would read an id `NA`, `None` or `nan` as missing. `_load_feat` splits each sequence next.
        """
        missing = {column: _MISSING if ":float" in column else ("",) for column in options["dtype"]}
        table: pd.DataFrame = pd.read_csv(*args, **options, keep_default_na=False, na_values=missing)
        for column in table.columns:
            if str(column).endswith("_seq"):  # the header is still `name:token_seq` here
                table[column] = table[column].fillna("")
        return table

    to_interaction = module.Dataset._dataframe_to_interaction

    def dataframe_to_interaction(self: Any, data: pd.DataFrame) -> Any:
        """Arrays of a pandas 3 table are read-only, and torch would share their memory; give it copies of its own."""
        return to_interaction(self, {name: SimpleNamespace(values=data[name].to_numpy(copy=True)) for name in data})

    module.Dataset._fill_nan = fill_nan
    module.Dataset._dataframe_to_interaction = dataframe_to_interaction
    module.pd = Namespace(pd, read_csv=read_csv)  # type: ignore[attr-defined]


def _field_lengths(module: ModuleType) -> None:
    """With pandas 3, `column.agg(len)` calls `len(column)`; RecBole wants the length of each sequence in it.

    These modules take the length of a column in no other place.
    """
    import pandas as pd

    def length(value: Any) -> Any:
        return value.map(len) if isinstance(value, pd.Series) else len(value)

    module.len = length  # type: ignore[attr-defined]


def _load_data_and_model(module: ModuleType) -> None:
    """`load_data_and_model` imports torch inside itself, where no namespace reaches; it is written again here."""
    scope: Any = module

    def load_data_and_model(model_file: str) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Config, model, dataset and the three loaders of a RecBole checkpoint."""
        checkpoint = _load_whole(model_file)
        config = checkpoint["config"]
        scope.init_seed(config["seed"], config["reproducibility"])
        scope.init_logger(config)
        logger = scope.getLogger()
        logger.info(config)
        dataset = scope.create_dataset(config)
        logger.info(dataset)
        loaders = scope.data_preparation(config, dataset)
        scope.init_seed(config["seed"], config["reproducibility"])
        model = scope.get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
        model.load_state_dict(checkpoint["state_dict"])
        model.load_other_parameter(checkpoint.get("other_parameter"))
        return (config, model, dataset, *loaders)

    scope.load_data_and_model = load_data_and_model


def _export_load_data_and_model(module: ModuleType) -> None:
    """The package exports the function by name, so a package imported before `install()` still holds the old one."""
    module.load_data_and_model = importlib.import_module(_QUICK_START).load_data_and_model  # type: ignore[attr-defined]


def _ending_samplers(module: ModuleType) -> None:
    """A sampler that would draw for ever is refused when it is made."""
    base: Any = module.AbstractSampler
    make = base.__init__

    @functools.wraps(make)
    def make_checked(self: Any, distribution: str, alpha: float) -> None:
        make(self, distribution, alpha)
        negatives.check_sampler(self)

    base.__init__ = make_checked


def _ending_masks(module: ModuleType) -> None:
    """`MaskItemSequence` draws a negative for each masked item, even for a loss that reads none."""
    transform: Any = module.MaskItemSequence
    draw = transform._neg_sample

    @functools.wraps(draw)
    def draw_if_any(self: Any, item_set: list[int], n_items: int) -> int:
        """A negative, or 0 where there is none: `check_masking` refuses that where a loss would read it."""
        return 0 if negatives.has_every_item(item_set, n_items) else int(draw(self, item_set, n_items))

    transform._neg_sample = draw_if_any


def _checked_masks(module: ModuleType) -> None:
    """Training sequences are checked before the first epoch."""
    loader: Any = module.TrainDataLoader
    make = loader.__init__

    @functools.wraps(make)
    def make_checked(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        if hasattr(self.transform, "mask_item_length"):
            negatives.check_masking(self.transform, self._dataset)

    loader.__init__ = make_checked


def _loss_without_mask(module: ModuleType) -> None:
    """BERT4Rec averages over the masked items of a batch; the mean over none is NaN.

    Where no item after the first ones is masked, the loss and all gradients are 0.
    """
    model: Any = module.BERT4Rec
    loss = model.calculate_loss

    @functools.wraps(loss)
    def loss_or_zero(self: Any, interaction: Any) -> Any:
        if (interaction[self.MASK_INDEX] > 0).any():
            return loss(self, interaction)
        return self.forward(interaction[self.MASK_ITEM_SEQ]).sum() * 0.0  # NaN parameters still show

    model.calculate_loss = loss_or_zero


def _ending_line(module: ModuleType) -> None:
    """LINE draws users who have not met an item; an item that all have met is refused."""
    model: Any = module.LINE
    make = model.__init__

    @functools.wraps(make)
    def make_checked(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        negatives.check_drawn_users(self)

    model.__init__ = make_checked


def _ending_s3rec(module: ModuleType) -> None:
    """S3Rec's pretraining reads a negative for each masked item."""
    model: Any = module.S3Rec
    draw = model._neg_sample

    @functools.wraps(draw)
    def draw_or_refuse(self: Any, item_set: list[int]) -> int:
        if negatives.has_every_item(item_set, self.n_items):
            raise DataError(f"S3Rec: {negatives.NO_NEGATIVE}; drop such users")
        return int(draw(self, item_set))

    model._neg_sample = draw_or_refuse


PATCHES: dict[str, tuple[Mend, ...]] = {
    "recbole.config.configurator": (_config,),
    "recbole.evaluator.metrics": (_numpy_aliases,),
    "recbole.trainer.hyper_tuning": (_numpy_aliases,),
    "recbole.data.interaction": (_numpy_aliases,),
    "recbole.data.transform": (_ending_masks,),
    "recbole.data.dataloader.general_dataloader": (_checked_masks,),
    "recbole.sampler.sampler": (_ending_samplers,),
    f"{_DATASETS}.dataset": (_pandas_copies, _field_lengths),
    f"{_DATASETS}.kg_dataset": (_field_lengths,),
    f"{_DATASETS}.sequential_dataset": (_field_lengths,),
    f"{_GENERAL}.lightgcn": (_dok_update,),
    f"{_GENERAL}.line": (_ending_line,),
    f"{_GENERAL}.ngcf": (_dok_update,),
    f"{_GENERAL}.spectralcf": (_dok_update,),
    f"{_GENERAL}.gcmc": (_dok_update,),
    f"{_GENERAL}.ncl": (_dok_update,),
    f"{_KNOWLEDGE}.kgin": (_dok_update,),
    f"{_KNOWLEDGE}.mcclk": (_dok_update,),
    "recbole.trainer.trainer": (_torch_load,),
    f"{_GENERAL}.convncf": (_torch_load,),
    f"{_GENERAL}.nais": (_torch_load,),
    f"{_GENERAL}.neumf": (_torch_load,),
    f"{_GENERAL}.ract": (_torch_load,),
    "recbole.model.context_aware_recommender.kd_dagfm": (_torch_load,),
    "recbole.model.sequential_recommender.bert4rec": (_loss_without_mask,),
    "recbole.model.sequential_recommender.s3rec": (_torch_load, _ending_s3rec),
    "recbole.model.sequential_recommender.sine": (_no_anomaly_detection,),
    _QUICK_START: (_load_data_and_model,),
    "recbole.quick_start": (_export_load_data_and_model,),
}
