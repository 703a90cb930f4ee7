"""Arrays that a client sends: read without trusting a word of what they say about themselves."""

from __future__ import annotations

import math
import re

import numpy as np

from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits

# A .npy file's header is a Python literal, which NumPy reads with Python's own parser; of strangers only this is read.
_HEADER = re.compile(
    rb"\{'descr': '([<>|]?[fiu][0-9])', 'fortran_order': (True|False), 'shape': \(((?:[0-9]{1,12},? ?)*)\), \} *\n"
)
_MAGIC = b"\x93NUMPY"


def override_values(request: pb.ManipulateWeightsRequest, name: str) -> np.ndarray:
    """The values an override brings, in their own dtype (whole numbers become float64). Raises Invalid, never
    allocates more than was sent."""
    if request.values_npy and (request.values or request.values_shape):
        raise Invalid(f"{name} takes values_npy or values, not both")
    if request.values_npy:
        values = read_npy(request.values_npy)
    elif request.values:
        limits.check_count("values", len(request.values), limits.MAX_VALUES)
        values = np.array(request.values, dtype=np.float64)
        if request.values_shape:
            shape = tuple(request.values_shape)
            if min(shape) < 0 or len(shape) > limits.MAX_AXES or math.prod(shape) != len(values):
                raise Invalid(f"{len(values)} values do not have the shape {list(shape)[: limits.MAX_AXES]}")
            values = values.reshape(shape)
    else:
        raise Invalid(f"{name} needs values: values_npy as numpy.save writes it, or values with values_shape")
    if not np.isfinite(values).all():
        raise Invalid(f"{name} takes finite numbers only; some of the values are infinite or no numbers")
    return values


def read_npy(raw: bytes) -> np.ndarray:
    """The array of a .npy file of floating point or whole numbers; never runs or unpickles anything. Raises Invalid."""
    width = {b"\x01\x00": 2, b"\x02\x00": 4}.get(raw[6:8])
    if not raw.startswith(_MAGIC) or width is None:
        raise Invalid("values_npy is not what numpy.save writes")
    start = 8 + width + int.from_bytes(raw[8 : 8 + width], "little")
    header = _HEADER.fullmatch(raw[8 + width : start])
    if header is None:
        raise Invalid("values_npy is not what numpy.save writes of an array of floating point or whole numbers")
    kind, order, axes = (part.decode("ascii") for part in header.groups())
    shape = tuple(int(size) for size in axes.replace(",", " ").split())
    if kind[-1] not in ("248" if kind[-2] == "f" else "1248"):
        raise Invalid(f"values_npy holds floating point or whole numbers of up to 64 bits, not {kind!r}")
    dtype, count = np.dtype(kind), math.prod(shape)
    limits.check_count("values_npy", count, limits.MAX_VALUES)
    if len(shape) > limits.MAX_AXES or count * dtype.itemsize != len(raw) - start:
        raise Invalid(
            f"values_npy says it has the shape {list(shape)[: limits.MAX_AXES]} but holds {len(raw) - start} bytes"
        )
    values = np.frombuffer(raw, dtype, offset=start).reshape(shape, order="F" if order == "True" else "C")
    # Of the machine's own byte order, and contiguous: what follows need not know where it came from.
    wanted = np.dtype(np.float64) if dtype.kind != "f" else dtype.newbyteorder("=")
    return np.ascontiguousarray(values, dtype=wanted).reshape(shape)
