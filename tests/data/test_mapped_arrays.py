"""What is sent to another process has the paths of mapped arrays, and the content of all others."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np

from hellm_recbole.data.mapped_arrays import map_file, send_paths_of_mapped_arrays


def test_a_mapped_array_is_mapped_again_and_others_are_copied(tmp_path: Path) -> None:
    send_paths_of_mapped_arrays()
    path = tmp_path / "items.npy"
    np.save(path, np.arange(100_000))
    mapped = map_file(str(path))
    content = {"mapped": mapped, "part": mapped[:10], "twice": mapped[:5] * 2, "own": np.array(["x"]), "text": "x"}
    sent = ForkingPickler.dumps(content)
    assert len(sent) < 3_000
    read = ForkingPickler.loads(sent)
    assert isinstance(read["mapped"].base, np.memmap)
    for name in ("mapped", "part", "twice", "own"):
        assert np.array_equal(read[name], content[name])
    assert read["text"] == "x"
    read["mapped"][0] = 7
    assert mapped[0] == map_file(str(path))[0] == 0, "a change stays in the process"
