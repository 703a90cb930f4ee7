"""Copies into memory that is used again: they equal the state of their moment, and nothing of it comes later."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import StorageError
from graybox.state_copy import SMALL, Space, Spaces, bytes_of, contiguous_strides, from_plain, is_dense, to_plain
from tests.patience import PATIENCE, wait_until
from tests.precision_cases import DEVICES

PLAIN = [
    None, True, 3, float("inf"), "text", (0.9, 0.999), [1, [2, "x"]], {1: {"a": (1, None)}}, Counter([3, 3, 5]),
    [Counter({(1, 2): 4})], {"x": Counter()},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_come_back(value: Any, tmp_path: Path) -> None:
    torch.save(to_plain(value), tmp_path / "x")
    back = from_plain(torch.load(tmp_path / "x", weights_only=True))
    assert back == value and type(back) is type(value)
    assert from_plain(to_plain(value, Space())) == value


@pytest.mark.parametrize("space", [None, Space()])
def test_plain_values_are_copies(space: Space | None) -> None:
    tensor, array, large = torch.ones(2), np.ones(2), np.ones(SMALL)
    plain = to_plain({"t": tensor, "a": array, "l": large, "n": np.float64(0.5)}, space)
    tensor += 1
    array += 1
    large += 1
    assert plain["t"].tolist() == plain["a"].tolist() == [1.0, 1.0] and type(plain["n"]) is float
    assert bool((plain["l"] == 1).all())


def test_what_a_checkpoint_cannot_hold_is_named() -> None:
    with pytest.raises(StorageError, match="set in the state of the model, the optimizer or the scheduler is neither"):
        to_plain({"x": [{1, 2}]})


DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.uint8]


def noise(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9
    return numbers > 0 if dtype is torch.bool else numbers.to(dtype)


def bits(tensor: torch.Tensor) -> bytes:
    """Of the entries in their order, whatever lies where."""
    return bytes_of(tensor.resolve_conj().resolve_neg().contiguous()).tobytes()


def steps(tensor: torch.Tensor) -> list[int]:
    """From entry to entry along each axis that has several."""
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Of all sizes, types and layouts; large ones as large as to be copied into a space."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    if draw(st.booleans()):
        shape = (*shape, draw(st.sampled_from([SMALL // 16, SMALL // 4 + 1])))
    made = noise(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(0, 2))):
        match draw(st.sampled_from(["transposed", "narrowed", "expanded", "conjugated", "last"])):
            case "transposed" if made.dim() > 1:
                made = made.transpose(0, -1)
            case "narrowed" if made.dim() and made.shape[-1] > 1:
                made = made[..., ::2]
            case "expanded":
                made = made.expand(2, *made.shape)
            case "conjugated" if made.is_complex():
                made = made.conj().imag
            case "last" if made.dim() == 4:
                made = made.to(memory_format=torch.channels_last)
    return made


@settings(max_examples=40)
@given(st.lists(st.tuples(tensors(), st.booleans()), max_size=6))
def test_copies_have_the_bits_and_the_layout(given_tensors: list[tuple[torch.Tensor, bool]]) -> None:
    space = Space()
    for _ in range(2):
        made = [space.copy(tensor, later=later) for tensor, later in given_tensors]
        space.start()
        space.wait()
        for (tensor, _), copy in zip(given_tensors, made, strict=True):
            assert (copy.shape, copy.dtype, copy.device.type) == (tensor.shape, tensor.dtype, "cpu")
            assert bits(copy) == bits(tensor)
            if is_dense(tensor) and not tensor.is_conj() and not tensor.is_neg():
                assert steps(copy) == steps(tensor)
        places = sorted((copy.data_ptr(), copy.nbytes) for copy in made if copy.numel())
        assert all(a + size <= b for (a, size), (b, _) in pairwise(places)), "two share memory"
        space.reset()


@given(st.lists(st.integers(1, 5), max_size=4), st.permutations(range(4)))
def test_what_lies_side_by_side_is_dense(shape: list[int], order: list[int]) -> None:
    made = torch.zeros(shape)
    assert contiguous_strides(made.shape) == made.stride()
    assert is_dense(made.permute([axis for axis in order if axis < made.dim()]))
    within = torch.zeros([size + 1 for size in shape])[tuple(slice(0, size) for size in shape)]
    several = [axis for axis, size in enumerate(shape) if size > 1]
    assert is_dense(within) == (not several or several == [len(shape) - 1])


def test_memory_is_used_again() -> None:
    space = Space()
    large = [torch.randn(SMALL) for _ in range(5)]
    first = [space.copy(tensor).data_ptr() for tensor in large]
    array = space.copy_array(np.ones(SMALL)).ctypes.data
    space.reset()
    assert [space.copy(tensor).data_ptr() for tensor in large] == first
    assert space.copy_array(np.zeros(SMALL)).ctypes.data == array


def test_arrays_of_records_are_copied_as_they_lie() -> None:
    kind = np.dtype([("a", "<f4"), ("b", "<i8")], align=True)
    array = np.zeros(SMALL, dtype=kind)
    array["a"], array["b"] = np.arange(SMALL), -1
    copy = Space().copy_array(array)
    array["b"] = 0
    assert copy.dtype == kind and (copy["a"] == np.arange(SMALL)).all() and (copy["b"] == -1).all()


def test_what_may_be_copied_later_waits_for_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    space, go, began = Space(), threading.Event(), threading.Event()
    copyto = np.copyto

    def slow(*arguments: Any) -> None:
        began.set()
        assert go.wait(PATIENCE)
        copyto(*arguments)

    source, small = torch.ones(SMALL), torch.ones(3)
    later = space.copy(source, later=True)
    at_once = space.copy(small, later=True)
    later.zero_()
    monkeypatch.setattr(np, "copyto", slow)
    space.start()
    assert began.wait(PATIENCE)
    settled = threading.Event()
    waiting = threading.Thread(target=lambda: (space.settle(), settled.set()))
    waiting.start()
    assert not bool(later.any()) and not settled.is_set()
    go.set()
    wait_until(settled.is_set, "the copy")
    waiting.join(PATIENCE)
    source.fill_(5)
    small.fill_(5)
    assert bool((later == 1).all()) and at_once.tolist() == [1, 1, 1]


def test_a_space_comes_back_once_all_are_through_with_it() -> None:
    spaces = Spaces(1)
    lease = spaces.lease(2)
    other = spaces.lease()
    assert other.space is not lease.space
    lease.release()
    assert spaces.lease().space not in (lease.space, other.space)
    lease.release()
    again = spaces.lease()
    assert again.space is lease.space
    again.release()
    other.release()  # one waits already
    assert spaces.lease().space is again.space and spaces.lease().space is not other.space


@pytest.mark.parametrize("device", DEVICES)
def test_once_it_is_settled_the_state_may_change(device: str) -> None:
    space = Space()
    sources = [noise(shape, torch.float32, 1).to(device) for shape in [(SMALL,), (3,), (64, 999)]]
    sources.append(sources[-1].t()[:, 1:])
    expected = [bits(source.cpu()) for source in sources]
    made = [space.copy(source, later=True) for source in sources]
    space.start()
    space.settle()
    for source in sources[:3]:
        source.zero_()
    space.wait()
    assert [bits(copy) for copy in made] == expected
