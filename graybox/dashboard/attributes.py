"""HTML attributes whose names are no Python identifiers: aria-label, data-step."""

from __future__ import annotations

from typing import Any


def attributes(pairs: dict[str, str]) -> Any:
    """The pairs, to be unpacked into a component. Dash's components declare every other argument by name, so that a
    type checker would take an unpacked dictionary for all of those; hence Any."""
    return pairs
