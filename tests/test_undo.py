from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.structure.change import Attribute, AxisChange, Change, Fill
from graybox.undo import UndoLog, bits_of, from_bits, read_log

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@given(data=st.binary(min_size=8, max_size=64).map(lambda b: b[: len(b) // 8 * 8]), dtype=st.sampled_from(FLOATS))
def test_every_bit_pattern_of_every_number_type_is_kept(data: bytes, dtype: torch.dtype) -> None:
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype)
    again = from_bits(bits_of(tensor), dtype)
    assert again.dtype is dtype
    assert bytes(again.view(torch.uint8).numpy()) == bytes(tensor.view(torch.uint8).numpy())


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)  # fmt: skip


@given(value=values)
def test_plain_values_come_back_equal(value: Any) -> None:
    log = UndoLog()
    log.add("thing", value=value)
    again = read_log(json.loads(json.dumps(log.entries)), log.arrays)
    assert again == [{"kind": "thing", "value": value}]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (1, 1), (300,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_a_tensor_keeps_its_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    log = UndoLog()
    tensor = torch.full(shape, 3).to(dtype)
    log.add("thing", value=tensor, array=np.full(shape, 3.0, dtype=np.float32))
    (again,) = read_log(json.loads(json.dumps(log.entries)), log.arrays)
    assert again["value"].shape == shape and again["value"].dtype is dtype and torch.equal(again["value"], tensor)
    assert again["array"].shape == shape


def test_tensors_and_changes_come_back_and_large_ones_once() -> None:
    large = torch.randn(300)
    axis = AxisChange("a.weight", 1, np.arange(400), np.arange(400), Fill.INIT, 500)
    change = Change("remove", "a", (axis,), {"a": np.array([3])}, (Attribute("n", "normalized_shape", (4,), (3,)),))
    log = UndoLog()
    log.add("one", change=change, large=large, again=large.clone(), where={1: torch.tensor([2, 5])})
    assert len(log.arrays) == 2, "the source is kept once, and so are equal tensors"
    (found,) = read_log(json.loads(json.dumps(log.entries)), log.arrays)
    assert torch.equal(found["large"], large) and torch.equal(found["again"], large)
    assert found["where"][1].tolist() == [2, 5] and found["where"][1].dtype is torch.int64
    back = found["change"]
    assert back.attributes == change.attributes and back.axes[0].fill is Fill.INIT and back.axes[0].size == 500
    assert np.array_equal(back.axes[0].source, axis.source) and back.neurons["a"].tolist() == [3]


def test_what_is_kept_does_not_change_with_the_tensor() -> None:
    tensor, log = torch.zeros(300), UndoLog()
    log.add("one", tensor=tensor)
    tensor.fill_(1)
    assert float(read_log(log.entries, log.arrays)[0]["tensor"].max()) == 0


def test_what_cannot_be_kept_is_said() -> None:
    with pytest.raises(Invalid, match="not object"):
        UndoLog().add("one", value=object())


@pytest.mark.parametrize(
    "entry", [{"kind": "x", "a": {"$": "tensor", "array": "0", "dtype": "torch.float32"}}, {"a": {}}]
)
def test_what_is_incomplete_is_said(entry: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="incomplete"):
        read_log([entry], {})
