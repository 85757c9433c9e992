"""Comments of a settings file: the unit and the source of each value, which stand beside it.

A comment at the end of a line, and lines of comments below it that are indented, belong to the key of the line. A
comment in the first column is a heading of the keys that follow, or, if it is a sentence, belongs to the next key. Keys
inside the section `overrides` count as keys of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from hellm_recbole.config.layers import OVERRIDES

_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")


@dataclass(frozen=True)
class FileComments:
    """The comments of a settings file.

    Attributes:
        header: comment at the top of the file.
        of_keys: key -> its comment; without keys that have none.
        headings: key -> comment in the first column above it, for the first key below each.
    """

    header: str
    of_keys: dict[str, str]
    headings: dict[str, str]


def read_comments(text: str) -> FileComments:
    r"""Read the comments of a settings file.

    >>> found = read_comments("# X (2020).\n# Two lines.\na: 1  # width\n# Head\nb: '#'   # text,\n       # more\n")
    >>> found.header, found.of_keys, found.headings
    ('X (2020). Two lines.', {'a': 'width', 'b': 'text, more'}, {'b': 'Head'})
    """
    lines = text.splitlines()
    n_header = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    of_keys, headings = dict[str, str](), dict[str, str]()
    for key, key_node, value_node in _list_keys(yaml.compose(text, yaml.SafeLoader)):
        line, column = value_node.end_mark.line, value_node.end_mark.column
        if isinstance(value_node, yaml.MappingNode) and not value_node.flow_style:
            line, column = key_node.end_mark.line, key_node.end_mark.column
        comment = [found[1].strip()] if (found := _COMMENT.search(lines[line][column:])) else []
        for following in lines[line + 1 :]:
            if not comment or not re.match(r"\s+#", following):
                break
            comment.append(following.strip().lstrip("#").strip())
        heading = _read_heading(lines, key_node.start_mark.line, n_header)
        sentence = heading if heading.endswith(".") else ""
        if heading and not sentence:
            headings[key] = heading
        if comment or sentence:
            of_keys[key] = "; ".join(filter(None, (" ".join(comment), sentence)))
    return FileComments(_join(lines[:n_header]), of_keys, headings)


def _list_keys(root: yaml.Node | None) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """List the keys of a file and those of its section `overrides`, with the nodes of key and value."""
    if not isinstance(root, yaml.MappingNode):
        return []
    found = []
    for key_node, value_node in root.value:
        if key_node.value == OVERRIDES:
            found += _list_keys(value_node)
        found.append((key_node.value, key_node, value_node))
    return found


def _read_heading(lines: list[str], line: int, n_header: int) -> str:
    """Read the comment in the first column directly above a line, if it is not the header of the file."""
    start = line
    while start > n_header and lines[start - 1].startswith("#"):
        start -= 1
    return _join(lines[start:line])


def _join(lines: list[str]) -> str:
    """Join lines of comments to one text."""
    return " ".join(line.lstrip("#").strip() for line in lines)
