"""Arrays from a client: read right, and never believed."""

from __future__ import annotations

import io
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graybox.errors import Invalid
from graybox.service.values import read_npy
from tests.service.wire_client import npy

KINDS = st.one_of(
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
)


@given(hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)), st.booleans())
def test_what_numpy_writes_comes_back(values: np.ndarray, fortran: bool) -> None:
    found = read_npy(npy(np.asarray(values, order="F" if fortran else "C")))
    expected = values if values.dtype.kind == "f" else values.astype(np.float64)
    assert found.shape == values.shape
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert np.array_equal(found, expected, equal_nan=True)


@given(st.binary(max_size=300), st.integers(0, 140))
def test_broken_bytes_are_refused_or_read_whole(noise: bytes, at: int) -> None:
    good = npy(np.arange(3.0))
    raw = good[:at] + noise + good[at + len(noise) :]
    try:
        found = read_npy(raw)
    except Invalid as error:
        assert str(error)
    else:
        assert found.nbytes <= len(raw) * 8


def header(text: str) -> bytes:
    padded = text.ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"PK\x03\x04" + b"\0" * 64,
        pickle.dumps([1.0]),
        npy(np.zeros(2, dtype=[("a", "f4")])),
        npy(np.array(["a"])),
        npy(np.zeros(2, complex)),
        npy(np.zeros(2, bool)),
        npy(np.zeros(2)) + b"more",
        npy(np.zeros(2))[:-1],
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }") + b"\0" * 8,
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + pickle.dumps(1),
        header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,), }"),
        header("(" * 100),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid, match="values_npy"):
        read_npy(raw)


def test_a_great_claim_takes_no_memory() -> None:
    raw = header("{'descr': '<f8', 'fortran_order': False, 'shape': (16000000,), }")
    tracemalloc.start()
    with pytest.raises(Invalid):
        read_npy(raw)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_pickle_is_never_opened() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(Invalid, match="values_npy"):
        read_npy(buffer.getvalue())
