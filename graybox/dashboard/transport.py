"""How a browser tab learns what is new: by asking, with a cursor, and being told nothing where nothing changed.

Pages import from here and from nowhere else what has to do with polling, so that another transport is one file's work.
"""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from graybox.dashboard import ids

STATUS_MILLISECONDS = 500
PAGE_MILLISECONDS = 1000


def cursor(name: str) -> str:
    """The store that holds what a tab has of `name`."""
    return f"cursor-{name}"


def status_feed() -> html.Div:
    """The clock and the stores of the header, on every page."""
    return html.Div(
        [
            dcc.Interval(id=ids.tick("status"), interval=STATUS_MILLISECONDS),
            dcc.Store(id=ids.STATUS),
            dcc.Store(id=cursor("status")),
        ]
    )


def page_feed(name: str) -> html.Div:
    """The clock of one page; navigation stops it while another page is shown."""
    return html.Div(
        [
            dcc.Interval(id=ids.tick(name), interval=PAGE_MILLISECONDS, disabled=True),
            dcc.Store(id=cursor(name)),
        ]
    )


def is_news(held: Any, current: Any) -> bool:
    """Whether a tab that holds `held` (what its cursor store says) has to be sent `current`."""
    return bool(held != current)
