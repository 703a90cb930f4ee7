"""Where log lines go: to the terminal, at the level of GRAYBOX_LOG_LEVEL."""

from __future__ import annotations

import logging
import os

from graybox.errors import Invalid

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure_logging() -> None:
    """Log lines on standard error, at level INFO unless GRAYBOX_LOG_LEVEL says otherwise. Raises Invalid."""
    level = os.environ.get("GRAYBOX_LOG_LEVEL", "").strip().upper() or "INFO"
    if level not in LEVELS:
        raise Invalid(f"GRAYBOX_LOG_LEVEL is {level!r}; choose one of {', '.join(LEVELS)}")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
