from __future__ import annotations

import numpy as np
import pytest

from graybox.store.aligned import LINE, aligned_zeros


@pytest.mark.parametrize("count", [0, 1, 3, 1_000, 100_003])
@pytest.mark.parametrize("dtype", ["<f4", "<i8", "V64", [("a", "<f4"), ("b", "<i8"), ("", "V4")]])
def test_items_begin_with_a_line(count: int, dtype: str) -> None:
    made = aligned_zeros(count, np.dtype(dtype))
    assert made.shape == (count,) and made.dtype == np.dtype(dtype) and made.flags.writeable and made.flags.c_contiguous
    assert made.ctypes.data % LINE == 0 or not count
    assert not any(made.tobytes())
