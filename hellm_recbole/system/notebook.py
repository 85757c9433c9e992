"""Progress and tables in a notebook. Only IPython is used, which every kernel has; no widgets are needed.

A kernel is no terminal: it cannot redraw lines. But it can replace an output, and this is what a live view does here.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console

COLUMNS = 100  # characters of a line
_PAGE = '<pre style="white-space:pre;overflow-x:auto;line-height:1.3;margin:0;background:transparent">{code}</pre>'


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, and its output goes to a cell."""
    if "ipykernel" not in sys.modules:
        return False
    from ipykernel.zmqshell import ZMQInteractiveShell
    from IPython import get_ipython

    shell: Any = get_ipython()  # type: ignore[no-untyped-call, unused-ignore]
    return isinstance(shell, ZMQInteractiveShell)


class NotebookLive:
    """A live view with the methods of `rich.live.Live` that this project uses, drawn as one output of a cell."""

    def __init__(self) -> None:
        self.console = Console(
            file=io.StringIO(), width=COLUMNS, record=True, highlight=False, force_jupyter=False, force_terminal=True
        )
        self._handle: Any = None
        self._last: Any = None

    def update(self, renderable: Any, *, refresh: bool = False) -> None:
        """Set what is shown.

        Args:
            renderable: what rich can draw.
            refresh: whether to draw it now; otherwise `stop` does.
        """
        self._last = renderable
        if refresh:
            self._draw()

    def stop(self) -> None:
        """Draw the last state as plain text, which stays in the notebook."""
        if self._last is not None:
            self._draw(in_colour=False)

    def _draw(self, *, in_colour: bool = True) -> None:
        """Show the current state in place of the one before."""
        from IPython.display import display

        self.console.print(self._last)
        html = self.console.export_html(inline_styles=True, code_format=_PAGE, clear=False)
        shown = {"text/plain": self.console.export_text().rstrip("\n")}
        if in_colour:
            shown["text/html"] = html
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            self._handle.update(shown, raw=True)
