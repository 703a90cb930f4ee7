"""Records of samples-<n>.log: what happened to the sample columns since the snapshot.

Payloads (record_log.py, kind "SAMP"), little-endian, by their first byte; a split is the index of its definition:
    B  uint8 what follows (1 predictions, 2 ratings), uint16 split, int64 age, then int64 rows [n], float32 losses [n],
       int64 predictions [n], float32 confidences [n], float32 margins [n]
    D  uint8 value, uint16 split, then int64 rows [n]: discarded or taken back
    N  uint8 kind, uint16 split, uint16 length of a name in UTF-8, the name, then by its kind
       t, u  int64 rows [n]: given the tag of this name, or it is taken from them
       c     int64 rows [n], int64 labels [n]: put in the place of the data set's; -1, that of the data set again
       w     int64 rows [n], float32 weights [n]: how often an epoch draws them
       l     int64 rows [n], int64 labels [n]: the data set's own, learnt when they were loaded
       s     int64 rows [n], float32 values [n]: the signal of this name
       k     a .npy file: a column of this name
       d     nothing: the column of this name is dropped
    T  labels that are no classes, and predictions of such: see target_log.py
    A  uint32 length of JSON {"split", "name", "count", "fingerprint", "anew"}, the JSON, int64 labels [count]: a split
       begins with samples never seen (anew true), or gets other labels
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError
from graybox.store.sample_columns import Ratings, Rows, SplitColumns
from graybox.store.target_log import apply_targets

KIND = b"SAMP"
VERSION = 2
"""Version 1 knew neither ratings nor notes."""
_BATCH = struct.Struct("<cBHq")
_DISCARD = struct.Struct("<cBH")
_SPLIT = struct.Struct("<cI")
_NOTE = struct.Struct("<ccHH")
_PREDICTIONS, _RATINGS = 1, 2


def batch_payload(
    split: int,
    rows: Rows,
    losses: NDArray[np.float32],
    predictions: NDArray[np.int64] | None,
    age: int,
    ratings: Ratings | None = None,
) -> bytes:
    """One batch: all arrays contiguous, of shape [n]."""
    follows = (predictions is not None) * _PREDICTIONS + (ratings is not None) * _RATINGS
    parts: list[Any] = [_BATCH.pack(b"B", follows, split, age), rows, losses]
    if predictions is not None:
        parts.append(predictions)
    if ratings is not None:
        parts += [ratings.confidence, ratings.margin]
    return b"".join(parts)  # straight from the arrays' memory, once


def discard_payload(split: int, rows: Rows, value: bool) -> bytes:
    """Rows discarded (value true) or taken back."""
    return _DISCARD.pack(b"D", value, split) + rows.tobytes()


def tag_payload(split: int, name: str, rows: Rows, value: bool) -> bytes:
    """Rows given a tag (value true), or it is taken from them."""
    return _note(b"t" if value else b"u", split, name) + rows.tobytes()


def labels_payload(split: int, rows: Rows, labels: NDArray[np.int64]) -> bytes:
    """Labels [n] put in the place of the data set's; -1 for those of the data set again."""
    return _note(b"c", split, "") + rows.tobytes() + labels.tobytes()


def weights_payload(split: int, rows: Rows, weights: NDArray[np.float32]) -> bytes:
    """How often an epoch draws samples, [n]."""
    return _note(b"w", split, "") + rows.tobytes() + weights.tobytes()


def learnt_payload(split: int, rows: Rows, labels: NDArray[np.int64]) -> bytes:
    """The data set's own labels [n], learnt when the samples were loaded."""
    return _note(b"l", split, "") + rows.tobytes() + labels.tobytes()


def signal_payload(split: int, name: str, rows: Rows, values: NDArray[np.float32]) -> bytes:
    """A number logged for each of some rows."""
    return _note(b"s", split, name) + rows.tobytes() + values.tobytes()


def column_payload(split: int, name: str, values: NDArray[Any] | None) -> bytes:
    """A column kept under a name; None: it is dropped."""
    if values is None:
        return _note(b"d", split, name)
    file = io.BytesIO()
    np.lib.format.write_array(file, values, allow_pickle=False)
    return _note(b"k", split, name) + file.getvalue()


def _note(kind: bytes, split: int, name: str) -> bytes:
    text = name.encode()
    return _NOTE.pack(b"N", kind, split, len(text)) + text


def split_payload(split: int, columns: SplitColumns, *, anew: bool, labels: NDArray[np.int64] | None = None) -> bytes:
    """A split as it is now, or with other labels [count]; anew: its samples begin as never seen."""
    value = {
        "split": split,
        "name": columns.name,
        "count": columns.count,
        "fingerprint": columns.fingerprint,
        "anew": anew,
    }
    text = json.dumps(value).encode()
    return _SPLIT.pack(b"A", len(text)) + text + (columns.label if labels is None else labels).tobytes()


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
        elif kind == b"N":
            _apply_note(payload, splits)
        elif kind == b"A":
            _apply_split(payload, splits)
        elif kind == b"T":
            apply_targets(payload, splits)
        else:
            raise ValueError(f"its kind is {kind!r}")
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise StorageError(f"a record of the sample log is broken: {error}") from error


def _apply_batch(payload: bytes, splits: list[SplitColumns]) -> None:
    _, follows, split, age = _BATCH.unpack_from(payload)
    kinds = ["<i8", "<f4"]
    if follows & _PREDICTIONS:
        kinds.append("<i8")
    if follows & _RATINGS:
        kinds += ["<f4", "<f4"]
    rows, losses, *others = _arrays(payload, _BATCH.size, kinds)
    predictions = others.pop(0) if follows & _PREDICTIONS else None
    ratings = Ratings(*others) if follows & _RATINGS else None
    columns = splits[split]
    columns.record(columns.checked_rows(rows), losses, predictions, age, ratings)


def _arrays(payload: bytes, offset: int, kinds: list[str]) -> list[NDArray[Any]]:
    """Arrays of the same length one after the other, to the end."""
    count, rest = divmod(len(payload) - offset, sum(np.dtype(kind).itemsize for kind in kinds))
    if rest:
        raise ValueError("its arrays are cut short")
    found: list[NDArray[Any]] = []
    for kind in kinds:
        found.append(np.frombuffer(payload, dtype=kind, count=count, offset=offset))
        offset += found[-1].nbytes
    return found


def _apply_note(payload: bytes, splits: list[SplitColumns]) -> None:
    _, kind, split, length = _NOTE.unpack_from(payload)
    start = _NOTE.size + length
    if start > len(payload):
        raise ValueError("its name is cut short")
    name, columns = payload[_NOTE.size : start].decode(), splits[split]
    _NOTES[kind](columns, name, payload, start)


def _tag(columns: SplitColumns, name: str, payload: bytes, start: int, value: bool) -> None:
    (rows,) = _arrays(payload, start, ["<i8"])
    columns.notes.tag(name, columns.checked_rows(rows), value)


def _labels(columns: SplitColumns, name: str, payload: bytes, start: int) -> None:
    rows, labels = _arrays(payload, start, ["<i8", "<i8"])
    columns.notes.correct(columns.checked_rows(rows), labels)


def _weights(columns: SplitColumns, name: str, payload: bytes, start: int) -> None:
    rows, weights = _arrays(payload, start, ["<i8", "<f4"])
    columns.notes.weigh(columns.checked_rows(rows), weights)


def _learnt(columns: SplitColumns, name: str, payload: bytes, start: int) -> None:
    rows, labels = _arrays(payload, start, ["<i8", "<i8"])
    columns.label[columns.checked_rows(rows)] = labels


def _signal(columns: SplitColumns, name: str, payload: bytes, start: int) -> None:
    rows, values = _arrays(payload, start, ["<i8", "<f4"])
    columns.notes.log(name, columns.checked_rows(rows), values)


def _column(columns: SplitColumns, name: str, payload: bytes, start: int) -> None:
    values = np.lib.format.read_array(io.BytesIO(payload[start:]), allow_pickle=False)
    if values.shape != (columns.count,):
        raise ValueError(f"column {name!r} has shape {values.shape}")
    columns.notes.copy(name, values)


_NOTES: dict[bytes, Callable[[SplitColumns, str, bytes, int], object]] = {
    b"t": lambda columns, name, payload, start: _tag(columns, name, payload, start, True),
    b"u": lambda columns, name, payload, start: _tag(columns, name, payload, start, False),
    b"c": _labels,
    b"w": _weights,
    b"l": _learnt,
    b"s": _signal,
    b"k": _column,
    b"d": lambda columns, name, payload, start: columns.notes.drop(name),
}


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
