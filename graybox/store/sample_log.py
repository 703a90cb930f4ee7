"""Records of samples-<n>.log: what happened to the sample columns since the snapshot.

Payloads (record_log.py, kind "SAMP"), little-endian, by their first byte; a split is the index of its definition:
    B  uint8 with predictions, uint16 split, int64 age, then int64 rows [n], float32 losses [n], int64 predictions [n]
    D  uint8 value, uint16 split, then int64 rows [n]: discarded or taken back
    A  uint32 length of JSON {"split", "name", "count", "fingerprint", "anew"}, the JSON, int64 labels [count]: a split
       begins with samples never seen (anew true), or gets other labels
"""

from __future__ import annotations

import json
import struct

import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError
from graybox.store.sample_columns import Rows, SplitColumns

KIND = b"SAMP"
VERSION = 1
_BATCH = struct.Struct("<cBHq")
_DISCARD = struct.Struct("<cBH")
_SPLIT = struct.Struct("<cI")


def batch_payload(
    split: int, rows: Rows, losses: NDArray[np.float32], predictions: NDArray[np.int64] | None, age: int
) -> bytes:
    """One batch: all arrays contiguous, of shape [n]."""
    if predictions is None:
        return _BATCH.pack(b"B", 0, split, age) + rows.tobytes() + losses.tobytes()
    return _BATCH.pack(b"B", 1, split, age) + rows.tobytes() + losses.tobytes() + predictions.tobytes()


def discard_payload(split: int, rows: Rows, value: bool) -> bytes:
    """Rows discarded (value true) or taken back."""
    return _DISCARD.pack(b"D", value, split) + rows.tobytes()


def split_payload(split: int, columns: SplitColumns, *, anew: bool) -> bytes:
    """A split as it is now; anew: its samples begin as never seen."""
    value = {
        "split": split,
        "name": columns.name,
        "count": columns.count,
        "fingerprint": columns.fingerprint,
        "anew": anew,
    }
    text = json.dumps(value).encode()
    return _SPLIT.pack(b"A", len(text)) + text + columns.label.tobytes()


def apply_payload(payload: bytes, splits: list[SplitColumns]) -> None:
    """Do to the columns what the record says. Raises StorageError for one that says nothing sensible."""
    try:
        kind = payload[:1]
        if kind == b"B":
            _apply_batch(payload, splits)
        elif kind == b"D":
            _, value, split = _DISCARD.unpack_from(payload)
            rows = np.frombuffer(payload, dtype="<i8", offset=_DISCARD.size)
            splits[split].discard(splits[split].checked_rows(rows), bool(value))
        elif kind == b"A":
            _apply_split(payload, splits)
        else:
            raise ValueError(f"its kind is {kind!r}")
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise StorageError(f"a record of the sample log is broken: {error}") from error


def _apply_batch(payload: bytes, splits: list[SplitColumns]) -> None:
    _, with_predictions, split, age = _BATCH.unpack_from(payload)
    width = 20 if with_predictions else 12
    count, rest = divmod(len(payload) - _BATCH.size, width)
    if rest:
        raise ValueError("its arrays are cut short")
    offset = _BATCH.size
    rows = np.frombuffer(payload, dtype="<i8", count=count, offset=offset)
    losses = np.frombuffer(payload, dtype="<f4", count=count, offset=offset + 8 * count)
    predictions = np.frombuffer(payload, dtype="<i8", offset=offset + 12 * count) if with_predictions else None
    columns = splits[split]
    columns.record(columns.checked_rows(rows), losses, predictions, age)


def _apply_split(payload: bytes, splits: list[SplitColumns]) -> None:
    _, length = _SPLIT.unpack_from(payload)
    start = _SPLIT.size + length
    value = json.loads(payload[_SPLIT.size : start])
    labels = np.frombuffer(payload, dtype="<i8", offset=start)
    index = value["split"]
    if index > len(splits):
        raise ValueError(f"split {index} comes before split {len(splits)}")
    if index < len(splits) and not value["anew"]:
        splits[index].label[:] = splits[index].checked_labels(labels)
        return
    columns = SplitColumns(value["name"], value["count"], value["fingerprint"], labels)
    splits[index : index + 1] = [columns]
