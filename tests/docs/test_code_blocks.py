"""Code blocks are found with their languages, and shell code is split into commands."""

from __future__ import annotations

from hellm_docs.code_blocks import list_blocks, split_commands

PAGE = """Text

```python
# not run by the tests: it needs a GPU
x = 1
```

- item

  ```sh
  ls
  ```

```
no language
```
"""


def test_blocks_have_their_line_and_reason() -> None:
    (python,) = list_blocks(PAGE, "python")
    assert (python.line, python.reason_not_run) == (4, "it needs a GPU")
    (shell,) = list_blocks(PAGE, "sh")
    assert (shell.text.strip(), shell.reason_not_run) == ("ls", None)
    assert len(list_blocks(PAGE, "python", "sh")) == 2


def test_commands_end_at_pipes_and_comments() -> None:
    assert split_commands("a --b 'c # d'  # e\n\nf > g\nh; i\n") == [["a", "--b", "c # d"], ["f"], ["h"], ["i"]]
    assert split_commands("a --set 'X.y=[1, 2]' | b\n") == [["a", "--set", "X.y=[1, 2]"]]
