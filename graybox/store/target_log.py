"""Records of samples-<n>.log about labels beyond classes and what was predicted of them.

Payload: "T", uint32 length of JSON, the JSON, and arrays one after the other, little-endian. The JSON says "split" (its
index), "kind" (what the labels are; "" for predictions), "age" (of the model, for predictions), "rows" (true: int64
rows [n] come first; false: the arrays are of all samples) and "columns", a list of [name, bytes of one sample].
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.sample_columns import Rows, SplitColumns
from graybox.store.targets import ANSWERED, OF_DATA, SETS, Answers, LabelKind, Labels, checked_columns

_HEAD = struct.Struct("<cI")


def labels_payload(split: int, rows: Rows | None, labels: Labels) -> bytes:
    """Labels of some rows [n], or of all (None). Columns as `targets.checked_columns` answers them."""
    return _payload({"split": split, "kind": labels.kind.value, "age": 0}, rows, dict(labels.columns))


def answers_payload(split: int, rows: Rows, answers: Answers, age: int) -> bytes:
    """What was predicted of rows [n]."""
    return _payload({"split": split, "kind": "", "age": age}, rows, dict(answers.columns))


def _payload(head: dict[str, Any], rows: Rows | None, columns: dict[str, NDArray[Any]]) -> bytes:
    sizes = [[name, column[0].nbytes if len(column) else 0] for name, column in columns.items()]
    text = json.dumps({**head, "rows": rows is not None, "columns": sizes}).encode()
    parts = [_HEAD.pack(b"T", len(text)), text, b"" if rows is None else rows.tobytes()]
    return b"".join([*parts, *(column.tobytes() for column in columns.values())])


def apply_targets(payload: bytes, splits: list[SplitColumns]) -> None:
    """Do to the columns what the record says. Raises ValueError, KeyError, IndexError or TypeError for one that says
    nothing sensible."""
    _, length = _HEAD.unpack_from(payload)
    start = _HEAD.size + length
    head = json.loads(payload[_HEAD.size : start])
    columns = splits[head["split"]]
    sizes = [(str(name), int(size)) for name, size in head["columns"]]
    count, rest = divmod(len(payload) - start, sum(size for _, size in sizes) + 8 * head["rows"] or 1)
    if rest or (not head["rows"] and count != columns.count):
        raise ValueError("its arrays are cut short")
    if head["rows"]:
        rows = np.frombuffer(payload, dtype="<i8", count=count, offset=start)
        if count and not 0 <= rows.min() <= rows.max() < columns.count:
            raise ValueError(f"it is about samples that split {columns.name!r} does not have")
        start += rows.nbytes
    else:
        rows = np.arange(columns.count)
    known = OF_DATA if head["kind"] else ANSWERED
    found: dict[str, NDArray[Any]] = {}
    for name, size in sizes:
        kind = known[name][0]
        values = np.frombuffer(payload, dtype=kind, count=len(rows) * size // kind.itemsize, offset=start)
        found[name] = values.reshape(len(rows), size) if name in SETS else values
        start += values.nbytes
    found = checked_columns(found, known, len(rows))
    if head["kind"]:
        columns.targets.learn(rows, Labels(LabelKind(head["kind"]), found))
    else:
        columns.record_answers(rows, Answers(found), int(head["age"]))
