"""What an intervention is, and what it did, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Intervention:
    """A resolved command: plain JSON, ready for the journal."""

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Performed:
    """What an intervention did: a line for people, what undoes it, what the command answers, and what it decided
    itself and replay must know. take_back: puts everything back at once, where the journal does not take the entry;
    None where that cannot be done."""

    summary: str
    undo: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    decided: dict[str, Any] = field(default_factory=dict)
    take_back: Callable[[], object] | None = None
