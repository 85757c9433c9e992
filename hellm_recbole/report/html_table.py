"""Render a table as a piece of HTML, for a notebook: nothing is computed here, and every value is escaped."""

from __future__ import annotations

import jinja2

from hellm_recbole.plugins.metrics import is_plugin_metric
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.rendering import format_seconds
from hellm_recbole.report.tables import Table

TEMPLATE = "table.html.jinja"
_SHOWN = 4  # metrics of the two largest K


def render_html(table: Table) -> str:
    """Render a short view: the two largest K with their intervals, the training time and the caption.

    All other columns are only in the files and in the frame.

    Args:
        table: table to render.
    """
    own = [name for name in table.metrics if not is_plugin_metric(name)]
    largest = own[-1].partition("@")[2] if own else ""
    added = [name for name in table.metrics if is_plugin_metric(name) and name.endswith(f"@{largest}")]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hellm_recbole.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = [*own[-_SHOWN:], *added]
    return environment.get_template(TEMPLATE).render(
        table=table, metrics=shown, families=FAMILY_TITLES, seconds=format_seconds
    )
