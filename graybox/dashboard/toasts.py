"""What happened, or why not, said where it covers no data."""

from __future__ import annotations

import uuid
from typing import Any

import dash_mantine_components as dmc

from graybox.dashboard import ids
from graybox.dashboard.client import CallFailed
from graybox.dashboard.icons import icon

Toasts = list[dict[str, Any]]


def container() -> dmc.NotificationContainer:
    """The place of the toasts: over the status bar at the bottom left, which pages leave free."""
    return dmc.NotificationContainer(
        id=ids.TOASTS, position="bottom-left", limit=3, autoClose=5000, zIndex=400, containerWidth="26rem"
    )


def done(message: str, title: str = "") -> Toasts:
    """Something was done."""
    return [_toast(message or "Done.", title, "teal", "circle-check", 4500)]


def refused(message: str, title: str = "") -> Toasts:
    """Something was not done, and why."""
    return [_toast(message or "The backend gave no reason.", title or "Not done", "red", "alert-triangle", 9000)]


def answer(response: Any, title: str = "") -> Toasts:
    """The toast for an answer that has `success` and `message`."""
    return done(response.message, title) if response.success else refused(response.message)


def failed(failure: CallFailed) -> Toasts:
    """The toast for a call that got no answer."""
    return refused(str(failure))


def _toast(message: str, title: str, colour: str, symbol: str, milliseconds: int) -> dict[str, Any]:
    toast: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "action": "show",
        "message": message,
        "color": colour,
        "icon": icon(symbol, 18),
        "autoClose": milliseconds,
        "withBorder": True,
    }
    if title:
        toast["title"] = title
    return toast
