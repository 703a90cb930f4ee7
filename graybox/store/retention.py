"""Which checkpoints of a run stay."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graybox.errors import Invalid

REMOVABLE = frozenset({"automatic", "unrecorded change", "before restore", "branch", "exit"})
"""Reasons of checkpoints that nobody asked for. Any other, and whatever has a name, stays."""
_METRIC = re.compile(r"[^/]+/.+")
_LARGEST = 1 << 53


class Kept(Protocol):
    """What is looked at of a checkpoint."""

    @property
    def id(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def branch(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def metrics(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class KeepCheckpoints:
    """Which of the checkpoints stay that nobody asked for: those that any of these wants, and no others.

    last: so many of the newest, 1 or more. every: of each branch the first one at or after every so many-th step;
        0: none for that.
    best, mode, best_count: so many of those with the smallest ("min") or largest ("max") value of a metric, such as
        "val/loss", as it was known when the checkpoint was made; of equal ones the older. "": none for that.

    What a person asked for or named, the beginning, the newest of each branch and what a restore went back to always
    stay. Raises Invalid, saying what would be right.
    """

    last: int = 10
    every: int = 0
    best: str = ""
    mode: str = "min"
    best_count: int = 1

    def __post_init__(self) -> None:
        counts: tuple[tuple[str, Any, int], ...] = (
            ("last", self.last, 1), ("every", self.every, 0), ("best_count", self.best_count, 1),
        )  # fmt: skip
        for name, value, least in counts:
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
                raise Invalid(f"{name} of KeepCheckpoints is a whole number of {least} or more, not {value!r:.100}")
        best: Any = self.best
        if not isinstance(best, str) or (best and not _METRIC.fullmatch(best)):
            raise Invalid(
                f"best of KeepCheckpoints names a metric as its split and itself, such as 'val/loss', not {best!r:.100}"
            )
        if self.mode not in ("min", "max"):
            raise Invalid(f"mode of KeepCheckpoints is 'min' or 'max', not {self.mode!r:.100}")

    def going(self, records: Sequence[Kept], needed: frozenset[str] = frozenset()) -> list[str]:
        """The ids of those that go, oldest first. records: all of a run's checkpoints, oldest first. needed: ids that
        stay whatever the rule says."""
        unasked = [record for record in records if record.reason in REMOVABLE and not record.name]
        newest = {record.branch: record.id for record in records}
        staying = {*needed, *newest.values(), *(record.id for record in unasked[-self.last :])}
        if self.every:
            first: dict[tuple[int, int], str] = {}
            for record in records:
                first.setdefault((record.branch, record.step // self.every), record.id)
            staying |= set(first.values())
        if self.best:
            known = [record for record in records if math.isfinite(record.metrics.get(self.best, math.nan))]
            sign = 1.0 if self.mode == "min" else -1.0
            ranked = sorted(known, key=lambda record: sign * record.metrics[self.best])  # which leaves ties in order
            staying |= {record.id for record in ranked[: self.best_count]}
        return [record.id for record in unasked if record.id not in staying]
