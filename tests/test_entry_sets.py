from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.entry_sets import EntryIndex, EntrySet, checked_where
from graybox.errors import Invalid, NotFound

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@st.composite
def products(draw: st.DrawFn, shape: list[int]) -> dict[int, torch.Tensor]:
    axes = draw(st.sets(st.integers(0, len(shape) - 1)))
    return {
        axis: torch.tensor(draw(st.lists(st.integers(0, shape[axis] - 1), unique=True, max_size=4)), dtype=torch.int64)
        for axis in axes
    }


def points(entries: EntrySet) -> set[tuple[int, ...]]:
    """The plain set that an EntrySet stands for; fails where an entry is in two boxes."""
    listed = [tuple(map(int, point)) for box in entries.boxes for point in itertools.product(*box)]
    assert len(set(listed)) == len(listed) == len(entries)
    return set(listed)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=SHAPES)
def test_it_is_a_set(data: st.DataObject, shape: list[int]) -> None:
    ours, plain = EntrySet(shape), set[tuple[int, ...]]()
    for _ in range(data.draw(st.integers(1, 6))):
        part = EntrySet.product(shape, data.draw(products(shape)))
        how = data.draw(st.sampled_from("||-&"))
        if how == "|":
            ours, plain = ours | part, plain | points(part)
        elif how == "-":
            ours, plain = ours - part, plain - points(part)
        else:
            ours, plain = ours & part, plain & points(part)
        assert points(ours) == plain
        # The same set, made point by point in another order, is equal in every way.
        scattered = EntrySet(shape, [tuple(np.array([i]) for i in point) for point in sorted(plain, reverse=True)])
        assert scattered == ours and scattered.key() == ours.key() and hash(scattered) == hash(ours)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shape=SHAPES)
def test_it_follows_what_happens_to_the_tensor(data: st.DataObject, shape: list[int]) -> None:
    entries = EntrySet.product(shape, data.draw(products(shape))) | EntrySet.product(shape, data.draw(products(shape)))
    mask = as_mask(entries)
    axis = data.draw(st.integers(0, len(shape) - 1))
    source = np.array(data.draw(st.lists(st.integers(-1, shape[axis] - 1), min_size=1, max_size=5)))
    found = entries.selected(axis, source)
    expected = np.take(mask, np.maximum(source, 0), axis)
    np.moveaxis(expected, axis, 0)[source < 0] = False
    assert np.array_equal(as_mask(found), expected)
    where = data.draw(products(shape))
    within = entries.within(where)
    region = np.ix_(*[where[a].numpy() if a in where else np.arange(size) for a, size in enumerate(shape)])
    assert np.array_equal(as_mask(within), mask[region])
    assert within.placed(shape, where) == entries & EntrySet.product(shape, where)


def as_mask(entries: EntrySet) -> np.ndarray:
    mask = np.zeros(entries.shape, dtype=bool)
    for point in points(entries):
        mask[point] = True
    return mask


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shape=SHAPES, turned=st.booleans())
def test_entries_are_read_and_written_where_they_are(data: st.DataObject, shape: list[int], turned: bool) -> None:
    where = data.draw(products(shape))
    tensor = torch.arange(float(np.prod(shape))).reshape(shape)
    if turned:  # another memory layout
        tensor = tensor.mT.contiguous().mT if len(shape) > 1 else tensor
    plain = tensor.numpy().copy()
    region = np.ix_(*[where[a].numpy() if a in where else np.arange(size) for a, size in enumerate(shape)])
    index = EntryIndex(shape, where, tensor.device)
    taken = index.take(tensor)
    assert np.array_equal(taken.numpy(), plain[region]) and taken.is_contiguous()
    index.put(tensor, -taken - 1)
    plain[region] = -plain[region] - 1
    assert np.array_equal(tensor.numpy(), plain)
    index.fill(tensor, 7.5)
    plain[region] = 7.5
    assert np.array_equal(tensor.numpy(), plain)


def test_what_the_tensor_does_not_have_is_named() -> None:
    with pytest.raises(NotFound, match="no axis 2 in a tensor of shape \\(3, 4\\)"):
        checked_where((3, 4), {2: torch.tensor([0])})
    with pytest.raises(NotFound, match="no index 4 along axis 1: it has 4, numbered from 0"):
        EntrySet.product((3, 4), {1: torch.tensor([0, 4])})
    with pytest.raises(NotFound, match="no index -1 along axis 0"):
        EntrySet.product((3, 4), {0: torch.tensor([-1])})
    with pytest.raises(Invalid, match="whole numbers"):
        checked_where((3, 4), {0: torch.tensor([True, False, True])})
