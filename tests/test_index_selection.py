from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.index_selection import in_format_of, selected


@st.composite
def cases(draw: Any) -> tuple[list[int], int, np.ndarray]:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    source = draw(st.lists(st.integers(-1, shape[axis] - 1), min_size=0, max_size=40))
    return shape, axis, np.array(source, dtype=np.int64)


@given(case=cases(), with_values=st.booleans())
def test_entries_come_from_where_the_source_says(case: tuple[list[int], int, np.ndarray], with_values: bool) -> None:
    shape, axis, source = case
    tensor = torch.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)
    new = [*shape[:axis], int((source < 0).sum()), *shape[axis + 1 :]]
    fresh = -torch.arange(1.0, 1.0 + np.prod(new)).reshape(new) if with_values else torch.zeros(new)
    found = selected(tensor, axis, source, fresh if with_values else None)
    expected, old, coming = [], tensor.movedim(axis, 0), iter(fresh.movedim(axis, 0))
    for index in source:
        expected.append(old[int(index)] if index >= 0 else next(coming))
    assert found.shape == (*shape[:axis], len(source), *shape[axis + 1 :])
    for place, value in enumerate(expected):
        assert torch.equal(found.movedim(axis, 0)[place], value)


@pytest.mark.parametrize("source", [[0, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3, -1], [-1, 0], [-1, -1], list(range(4)) * 9])
@pytest.mark.parametrize("axis", [0, 1])
def test_memory_formats_are_kept(source: list[int], axis: int) -> None:
    for tensor in (
        torch.randn(4, 4, 3, 3),
        torch.randn(4, 4, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(4, 4, 3, 3).permute(3, 1, 0, 2).permute(2, 1, 3, 0),
    ):
        found = selected(tensor, axis, np.array(source, dtype=np.int64))
        by_stride = sorted(range(4), key=lambda dim: -tensor.stride(dim))
        assert by_stride == sorted(range(4), key=lambda dim: -found.stride(dim))
        assert found.data_ptr() != tensor.data_ptr()
    last = torch.randn(4, 4, 3, 3).to(memory_format=torch.channels_last)
    assert in_format_of(last, torch.randn(2, 4, 3, 3)).is_contiguous(memory_format=torch.channels_last)
