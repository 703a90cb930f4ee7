"""One hyper-parameter as the trainer knows it: what it is, its bounds, how it is read and set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graybox.checks import checked_name, is_number, is_whole
from graybox.errors import Invalid
from graybox.snapshot import HyperParameter

if TYPE_CHECKING:
    from graybox.session import Session


LONGEST_TEXT = 10_000
"""Of a text that may be empty: a list of class weights is longer than a name."""


def _fits(session: Session, value: Any, changes: Mapping[str, Any]) -> None:
    """Any value within the bounds does."""


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter: how it is shown, read and set.

    kind: "number", "integer", "text" or "bool". check_fit: raises Invalid or Refused for a value that is within the
    bounds and does not fit the session with all of the changes that are made at once; it changes nothing. empty:
    whether a text may be empty.
    """

    name: str
    label: str
    kind: str
    read: Callable[[Session], Any]
    write: Callable[[Session, Any], None]
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    description: str = ""
    choices: tuple[str, ...] = ()
    check_fit: Callable[[Session, Any, Mapping[str, Any]], None] = _fits
    empty: bool = False

    def describe(self, session: Session) -> HyperParameter:
        """As it stands now."""
        return HyperParameter(
            self.name, self.label, self.kind, self.read(session),
            self.minimum, self.maximum, self.exclusive_minimum, self.description, self.choices,
        )  # fmt: skip

    def check(self, value: Any) -> Any:
        """The value in its own type. Raises Invalid, saying what would be right."""
        if self.kind == "text":
            return self._checked_text(value)
        if self.kind == "bool":
            if isinstance(value, bool) or (is_number(value) and value in (0, 1)):
                return bool(value)
            raise Invalid(f"{self.name} is true or false, not {value!r:.100}")
        whole = self.kind == "integer"
        if not (is_whole(value) if whole else is_number(value)) or not self._within(value):
            raise Invalid(f"{self.name} is {self._wanted()}, not {value!r:.100}")
        return int(value) if whole else float(value)

    def _checked_text(self, value: Any) -> str:
        if self.choices:
            if value in self.choices:
                return str(value)
            raise Invalid(f"{self.name} is one of {', '.join(self.choices)}, not {value!r:.100}")
        if self.empty and isinstance(value, str) and len(value) <= LONGEST_TEXT:
            return value.strip()
        return checked_name(self.name, value)

    def _within(self, value: float) -> bool:
        low = self.minimum is None or (value > self.minimum if self.exclusive_minimum else value >= self.minimum)
        return low and (self.maximum is None or value <= self.maximum)

    def _wanted(self) -> str:
        what = "a whole number" if self.kind == "integer" else "a number"
        below = "above" if self.exclusive_minimum else "of at least"
        low = "" if self.minimum is None else f" {below} {self.minimum:g}"
        if self.maximum is None:
            return what + low
        high = f"{self.maximum:g}" if self.maximum != int(self.maximum) else f"{self.maximum:,.0f}"
        return f"{what}{low}{' and' if low else ' of'} at most {high}"
