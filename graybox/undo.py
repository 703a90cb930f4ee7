"""What undoes an edit, as JSON and arrays: so that it survives in the journal, and works after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from graybox.errors import Invalid
from graybox.structure.change import Attribute, AxisChange, Change, Fill

_CLASSES: dict[str, Any] = {kind.__name__: kind for kind in (Attribute, AxisChange, Change)}
MAX_INLINE = 256
"""So many numbers at most are kept in the JSON itself."""
_INLINE = ("<i8", "|b1", "<f8")
# Number types that NumPy does not have, by the integers of the same size that hold their bits.
_AS_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class UndoLog:
    """Collects what was done, in order. entries: plain JSON; arrays: what they refer to, each content once."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, kind: str, **values: Any) -> None:
        """values: numbers, text, tensors, arrays, and dicts, lists, tuples and changes of structure of these."""
        self.entries.append({"kind": kind, **{name: self._packed(value) for name, value in values.items()}})

    def _packed(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor):
            return {"$": "tensor", "dtype": str(value.dtype), **self._placed(bits_of(value))}
        if isinstance(value, np.ndarray):
            return {"$": "array", **self._placed(value)}
        if isinstance(value, (np.integer, np.floating)):
            return value.item()
        if isinstance(value, Fill):
            return {"$": "fill", "name": value.name}
        if is_dataclass(value) and type(value).__name__ in _CLASSES:
            packed = {field.name: self._packed(getattr(value, field.name)) for field in fields(value)}
            return {"$": type(value).__name__, "fields": packed}
        if isinstance(value, Mapping):
            return {"$": "dict", "items": [[self._packed(k), self._packed(v)] for k, v in value.items()]}
        if isinstance(value, tuple):
            return {"$": "tuple", "items": [self._packed(item) for item in value]}
        if isinstance(value, list):
            return [self._packed(item) for item in value]
        raise Invalid(f"what undoes an edit holds numbers, text and tensors, not {type(value).__name__}")

    def _placed(self, array: np.ndarray) -> dict[str, Any]:
        """Indices and flags of a few neurons go into the JSON, so that most edits need no file beside the journal."""
        if array.size <= MAX_INLINE and array.ndim == 1 and array.dtype.str in _INLINE and np.isfinite(array).all():
            return {"values": array.tolist(), "type": array.dtype.str}
        return {"array": self._keep(array)}

    def _keep(self, array: np.ndarray) -> str:
        array = np.asarray(array, order="C")  # np.ascontiguousarray would make one dimension of none
        described = f"{array.dtype.str}{array.shape}".encode()
        name = hashlib.sha256(described + array.tobytes()).hexdigest()[:24]
        self.arrays.setdefault(name, array)
        return name


def read_log(entries: Iterable[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What an UndoLog collected, in the same order; tensors are copies. Raises Invalid where something is missing."""
    try:
        return [{name: _unpacked(value, arrays) for name, value in entry.items()} for entry in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"what undoes this edit is incomplete: {error!r}") from None


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in value]
    if not isinstance(value, Mapping):
        return value
    match value["$"]:
        case "tensor":
            return from_bits(_array(value, arrays), getattr(torch, value["dtype"].removeprefix("torch.")))
        case "array":
            return _array(value, arrays)
        case "fill":
            return Fill[value["name"]]
        case "dict":
            return {_unpacked(k, arrays): _unpacked(v, arrays) for k, v in value["items"]}
        case "tuple":
            return tuple(_unpacked(item, arrays) for item in value["items"])
        case name:
            return _CLASSES[name](**{key: _unpacked(item, arrays) for key, item in value["fields"].items()})


def _array(value: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if "values" in value:
        return np.array(value["values"], dtype=np.dtype(value["type"]))
    return np.array(arrays[value["array"]])


def bits_of(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array from which `from_bits` makes the same to the bit, also of types that NumPy lacks."""
    tensor = tensor.detach().cpu().contiguous()
    if _numpy_has(tensor.dtype):
        # A copy: the tensor may be a view of what is about to change.
        return np.array(tensor.numpy())
    return np.array(tensor.view(_AS_BITS[tensor.element_size()]).numpy())


def from_bits(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of its own, on the CPU."""
    tensor = torch.from_numpy(np.array(array))
    return tensor if _numpy_has(dtype) else tensor.view(dtype)


def _numpy_has(dtype: torch.dtype) -> bool:
    return dtype is not torch.bfloat16 and not str(dtype).startswith("torch.float8")
