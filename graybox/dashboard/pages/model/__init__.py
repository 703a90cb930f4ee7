"""Model: layers, their neurons, and what can be done to them."""

from __future__ import annotations

from graybox.dashboard.pages.model.callbacks import register
from graybox.dashboard.pages.model.layout import layout

__all__ = ["layout", "register"]
