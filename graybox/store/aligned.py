"""Arrays whose items begin where a line of the processor's caches does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
"""Bytes."""


def aligned_zeros(count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros [count]. An item whose size is LINE or a divisor of it lies in one line, so that whoever goes to items here
    and there waits for the memory once an item."""
    size = count * dtype.itemsize
    whole = np.zeros(size + LINE, dtype=np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + size].view(dtype)
