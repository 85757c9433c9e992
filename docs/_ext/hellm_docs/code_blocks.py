"""Code blocks of Markdown pages, and the commands in them, for the tests that run or parse every block.

A block of Python that the tests cannot run begins with a comment that says so, for readers too:
`# not run by the tests: it needs a GPU`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

NOT_RUN = "# not run by the tests: "
_FENCE = re.compile(r"^( *)```(\w[\w+-]*)\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of code.

    Attributes:
        language: word after the fence.
        text: the code.
        line: number of its first line in the page, from 1.
    """

    language: str
    text: str
    line: int

    @property
    def reason_not_run(self) -> str | None:
        """Why the tests do not run it; None if they do."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(NOT_RUN) if first.startswith(NOT_RUN) else None


def list_blocks(text: str, *languages: str) -> list[CodeBlock]:
    r"""List the blocks of some languages in a page.

    >>> list_blocks("a\n```sh\nls\n```\n```python\n1\n```\n", "python")
    [CodeBlock(language='python', text='1\n', line=6)]
    """
    return [
        CodeBlock(found[2], found[3], text[: found.start(3)].count("\n") + 1)
        for found in _FENCE.finditer(text)
        if found[2] in languages
    ]


def split_commands(text: str) -> list[list[str]]:
    r"""Split a block of shell code into its commands, each as words; comments and pipes are left out.

    >>> split_commands("# first\npip install 'a[b]'   # an extra\nx --a \\\n  1 | head\ncd b && ls\n")
    [['pip', 'install', 'a[b]'], ['x', '--a', '1'], ['cd', 'b'], ['ls']]
    """
    commands: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words, piped = list[str](), False
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                if words and not piped:
                    commands.append(words)
                words, piped = [], word in ("|", ">", "<", ">>")
            else:
                words.append(word)
    return commands
