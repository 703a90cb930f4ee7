"""Metrics: one plot per metric, one colour per run and branch."""

from __future__ import annotations

from graybox.dashboard.pages.metrics.callbacks import register
from graybox.dashboard.pages.metrics.layout import layout

__all__ = ["layout", "register"]
