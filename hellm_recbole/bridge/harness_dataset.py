"""RecBole datasets that are split as `benchmarks/run.py` splits: the same parts, histories and order.

RecBole's leave-one-out holds out an interaction of users with two interactions, and its sequential models lose users
with three. Here, users with fewer than three interactions are trained on and not evaluated. Other splits of RecBole
(`eval_args`) are kept; a user's history is then all that comes in earlier parts.

Importing this module imports recbole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.dataset import Dataset as RecBoleDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.types import Histories, Targets, as_ids, pad_recent

_ROW = "hellm_row"  # field with the number of an interaction in the order of the file
_CPU = torch.device("cpu")


class HarnessDataset(RecBoleDataset):  # type: ignore[misc]
    """Dataset of models that read no histories.

    Attributes:
        split: split of the dataset; None before `build`.
        seen: items that are masked when the targets of this part are ranked; None for the training part.
    """

    uid_field: str
    iid_field: str
    time_field: str
    split: Split | None = None
    seen: Histories | None = None
    _times: npt.NDArray[np.float64] | None = None

    def _change_feat_format(self) -> None:
        """Convert the tables to tensors, and keep the times, which RecBole rounds to single precision."""
        if self.time_field in self.inter_feat:
            self._times = self.inter_feat[self.time_field].to_numpy(dtype=np.float64)
        super()._change_feat_format()
        self.inter_feat.update(Interaction({_ROW: torch.arange(len(self.inter_feat))}))

    def build(self) -> list[HarnessDataset]:
        """Split the dataset.

        Returns:
            Training, validation and test dataset.

        Raises:
            DataError: no user can be evaluated, or a part is empty.
        """
        evaluation = self.config["eval_args"]
        is_leave_one_out = evaluation["split"] == {"LS": "valid_and_test"} and evaluation["order"] == "TO"
        part = None
        if self.benchmark_filename_list is None and is_leave_one_out:
            self._change_feat_format()
            user, item = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        else:
            built = super().build()
            rows = [table.inter_feat[_ROW].numpy() for table in built]
            user, item = np.zeros((2, sum(map(len, rows))), dtype=np.int64)
            part = np.zeros(len(user), dtype=np.int8)
            for code, (table, row) in enumerate(zip(built, rows, strict=True)):
                part[row] = code
                user[row], item[row] = table.inter_feat[self.uid_field], table.inter_feat[self.iid_field]
        self.split = split = split_dataset(self._make_dataset(user, item, part))
        train = Targets(split.train.repeat_users(), split.train.items)
        return [
            self._make_part(train, None),
            self._make_part(split.valid, split.train),
            self._make_part(split.test, split.make_test_history()),
        ]

    def _make_dataset(self, user: Any, item: Any, part: npt.NDArray[np.int8] | None) -> Dataset:
        """Convert the interactions to our dataset, without features and texts.

        Args:
            user: [E] user ids in file order.
            item: [E] item ids in file order.
            part: [E] part of each interaction; None for leave-one-out.
        """
        tokens = [np.array(self.field2id_token[field], dtype=np.str_) for field in (self.uid_field, self.iid_field)]
        for names in tokens:
            names[0] = ""
        return Dataset(
            name=self.dataset_name,
            user_tokens=tokens[0],
            item_tokens=tokens[1],
            user=user.astype(np.int64),
            item=item.astype(np.int64),
            time=self._times,
            time_known=self._times is not None,
            part=part,
            features={},
            k_core=0,
            n_dropped=0,
            paper=None,
        )

    def _make_part(self, targets: Targets, seen: Histories | None) -> HarnessDataset:
        """Make the RecBole dataset of one part.

        Args:
            targets: interactions of the part.
            seen: history of each user before the part; None for the training part.
        """
        part: HarnessDataset = self.copy(Interaction(self._make_columns(targets, seen)))
        part.seen = seen
        return part

    def _make_columns(self, targets: Targets, seen: Histories | None) -> dict[str, torch.Tensor]:
        """Make the columns of the interactions of a part."""
        return {self.uid_field: as_ids(targets.user, _CPU), self.iid_field: as_ids(targets.item, _CPU)}


class HarnessSequentialDataset(HarnessDataset):
    """Dataset of models that read histories: each interaction has the history before its part."""

    def _make_columns(self, targets: Targets, seen: Histories | None) -> dict[str, torch.Tensor]:
        """Make the columns of the interactions of a part, with the most recent items of the history."""
        columns = super()._make_columns(targets, seen)
        if seen is None:
            return columns
        width = int(self.config["MAX_ITEM_LIST_LENGTH"])
        item_list, length = self.iid_field + self.config["LIST_SUFFIX"], self.config["ITEM_LIST_LENGTH_FIELD"]
        self.set_field_property(item_list, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, width)
        self.set_field_property(length, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        recent = pad_recent(seen.indptr, seen.items, targets.user, width)
        return {
            **columns,
            item_list: as_ids(recent, _CPU),
            length: as_ids(np.maximum((recent != 0).sum(axis=1), 1), _CPU),
        }
