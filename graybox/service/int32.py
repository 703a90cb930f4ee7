"""Numbers of the documented contract's 32-bit fields."""

from __future__ import annotations

INT32_MAX = 2**31 - 1


def int32(value: int) -> int:
    """Saturates, as the contract says of its 32-bit fields."""
    return max(-INT32_MAX - 1, min(INT32_MAX, int(value)))
