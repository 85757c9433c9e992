from pathlib import Path

from tests.check_sizes import FOLDERS, find_long_parts


def test_long_functions_and_long_files_are_found(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    body = "    x = 1\n"
    (tmp_path / "tests" / "long.py").write_text("def allowed():\n" + 59 * body + "\n\ndef too_long():\n" + 60 * body)
    (tmp_path / "baselines" / "allowed.py").write_text(400 * "x = 1\n")
    (tmp_path / "baselines" / "too_long.py").write_text(401 * "x = 1\n")
    found = list(find_long_parts(tmp_path))
    assert [line.split(",")[0] for line in found] == [
        "baselines/too_long.py: 401 lines",
        "tests/long.py:63: too_long has 61 lines",
    ]
