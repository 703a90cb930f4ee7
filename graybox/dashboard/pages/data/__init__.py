"""Data: every sample with what training made of it; discard and restore."""

from __future__ import annotations

from graybox.dashboard.pages.data.callbacks import register
from graybox.dashboard.pages.data.layout import layout

__all__ = ["layout", "register"]
