"""Values that people give: taken over in their own type, or refused with what would be right. Free of torch."""

from __future__ import annotations

import numbers
from typing import Any

from graybox.errors import Invalid

LARGEST_INTEGER = 2**31 - 1
"""Steps and frequencies are 32-bit numbers on the wire."""
MAX_NAME_LENGTH = 200


def is_number(value: Any) -> bool:
    """Whether it is a finite number, of Python's or NumPy's, and no truth value."""
    kind: object = type(value)
    return kind is not bool and isinstance(value, numbers.Real) and bool(value - value == 0)


def is_whole(value: Any) -> bool:
    """Whether it is a finite number without a fraction; 5.0 is one."""
    return is_number(value) and bool(value == int(value))


def in_range(name: str, value: Any, minimum: float, maximum: float, *, exclusive: bool = False) -> float:
    """The value as a float, if it is a number from `minimum` (above it when exclusive) to `maximum`. Raises Invalid."""
    low = f"above {minimum:g}" if exclusive else f"of at least {minimum:g}"
    if not is_number(value) or not minimum <= value <= maximum or (exclusive and value == minimum):
        raise Invalid(f"{name} is a number {low} and at most {maximum:,.0f}, not {value!r:.100}")
    return float(value)


def whole_in_range(name: str, value: Any, minimum: int, maximum: int = LARGEST_INTEGER) -> int:
    """The value as an int, if it is a whole number from `minimum` to `maximum`. Raises Invalid."""
    if not is_whole(value) or not minimum <= value <= maximum:
        raise Invalid(f"{name} is a whole number of at least {minimum} and at most {maximum:,}, not {value!r:.100}")
    return int(value)


def checked_name(what: str, value: Any) -> str:
    """The text without blanks around it. Raises Invalid for an empty or a very long one."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_LENGTH:
        raise Invalid(f"{what} is a text of 1 to {MAX_NAME_LENGTH} characters, not {value!r:.100}")
    return value.strip()
