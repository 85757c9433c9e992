from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.importers.memory import FIXED_BYTES, ROW_BYTES, refuse_too_large
from hellm_recbole.errors import DataError


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_refused_with_both_figures(tmp_path: Path, ending: str) -> None:
    path, frame = tmp_path / f"t.{ending}", pd.DataFrame({"user_id": range(1000), "item_id": range(1000)})
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False, header=False)
    refuse_too_large(path, FIXED_BYTES + 1000 * ROW_BYTES)
    with pytest.raises(DataError, match=r"about 1,000 rows.* 0\.5 GiB of memory, but 0\.5 GiB are free; end other"):
        refuse_too_large(path, FIXED_BYTES + 1000 * ROW_BYTES - 1)


def test_a_faulty_or_compressed_file_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("no parquet")
    (tmp_path / "t.csv.gz").write_bytes(b"")
    for path in (tmp_path / "t.parquet", tmp_path / "t.csv.gz", tmp_path / "missing.csv"):
        refuse_too_large(path, FIXED_BYTES)
