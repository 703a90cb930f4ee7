"""What happened, or why not, said where it covers no data."""

from __future__ import annotations

import itertools
from typing import Any

import dash_mantine_components as dmc
from dash import html

from graybox.dashboard import ids
from graybox.dashboard.client import CallFailed
from graybox.dashboard.icons import icon

Toasts = list[dict[str, Any]]
_COUNTER = itertools.count()


def container() -> dmc.NotificationContainer:
    """The place of the toast: over the status bar at the bottom left, which pages leave free. One at a time."""
    return dmc.NotificationContainer(id=ids.TOASTS, position="bottom-left", limit=1, zIndex=600, transitionDuration=120)


def done(message: str, action: Any = None) -> Toasts:
    """Something was done. action: a button for what one may want next, such as to undo it; the toast stays longer."""
    said = message or "Done."
    if action is None:
        return _toast(said, "teal", "circle-check", 4500)
    return _toast(html.Div([html.Span(said), action], className="gb-toast"), "teal", "circle-check", 15000)


def refused(message: str) -> Toasts:
    """Something was not done, and why."""
    return _toast(f"Not done: {message or 'the backend gave no reason.'}", "red", "alert-triangle", 9000)


def answer(response: Any) -> Toasts:
    """The toast for an answer that has `success` and `message`."""
    return done(response.message) if response.success else refused(response.message)


def failed(failure: CallFailed) -> Toasts:
    """The toast for a call that got no answer."""
    return refused(str(failure))


def _toast(message: Any, colour: str, symbol: str, milliseconds: int) -> Toasts:
    """One toast under a fixed id: it takes the place of the one shown, if any, so that they never pile up over data."""
    toast: dict[str, Any] = {
        "id": "toast",
        "message": message,
        "color": colour,
        "icon": icon(symbol, 16),
        # The clock starts anew only when the time differs from the one before.
        "autoClose": milliseconds + next(_COUNTER) % 100,
        "withBorder": True,
    }
    return [{**toast, "action": "update"}, {**toast, "action": "show"}]
