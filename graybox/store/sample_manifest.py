"""A manifest: what a curated data set is, as JSON, so that it can be trained on without Graybox.

    {"format": "graybox manifest", "format_version": 1, "run_id": ..., "step": ..., "age": ..., "branch": ...,
     "created_ms": ..., "query": ..., "class_names": [...],
     "splits": {"train": {
         "samples": 60000, "fingerprint": ..., "labels_sha256": ...,
         "rows": [...],
         "discarded": [...],
         "labels": {"rows": [...], "labels": [...]},
         "weights": {"rows": [...], "weights": [...]},
         "tags": {"hard": [...]}}}}

rows: the samples that the query finds and that are not discarded, by their index in the data set, in the query's order.
All else is about the whole split, rows ascending: which samples are discarded; the labels that people put in the place
of the data set's; how often an epoch draws a sample, where that is not 1; who has which tag. labels_sha256: of the
labels that the data set has, as little-endian int64; null where not all are known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.export_columns import as_utf8
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_query import Selection

FORMAT = "graybox manifest"
FORMAT_VERSION = 1
_SLICE = 65_536
"""Numbers that are put into text at once."""


def kept_rows(splits: Sequence[SplitColumns], selection: Selection) -> list[NDArray[np.int64]]:
    """Of each split the rows that were found and are not discarded, in the order in which they were found."""
    number_of = {name: number for number, name in enumerate(selection.splits)}
    found = [selection.row[selection.split == number_of.get(columns.name, -1)] for columns in splits]
    return [rows[~columns.discarded[rows]] for rows, columns in zip(found, splits, strict=True)]


def manifest_parts(
    splits: Sequence[SplitColumns], kept: Sequence[NDArray[np.int64]], about: Mapping[str, Any]
) -> Iterator[bytes]:
    """The file, piece by piece, of what is so when this is called. kept: as `kept_rows` answers. about: what it says
    beside the splits."""
    taken = {as_utf8(columns.name): _of_split(columns, rows) for columns, rows in zip(splits, kept, strict=True)}
    return _written({"format": FORMAT, "format_version": FORMAT_VERSION, **about, "splits": taken})


def labels_digest(labels: NDArray[np.int64]) -> str | None:
    """What tells labels from others; None where one is not known."""
    return None if (labels < 0).any() else hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _of_split(columns: SplitColumns, rows: NDArray[np.int64]) -> dict[str, Any]:
    notes = columns.notes
    corrected, weight = notes.corrected, notes.weight  # read once: the owner may take them away
    relabelled = _where(corrected, lambda labels: labels >= 0)
    weighed = _where(weight, lambda weights: weights != 1)
    return {
        "samples": columns.count,
        "fingerprint": columns.fingerprint,
        "labels_sha256": labels_digest(columns.label),
        "rows": rows,
        "discarded": np.flatnonzero(columns.discarded),
        "labels": {"rows": relabelled, "labels": relabelled if corrected is None else corrected[relabelled]},
        "weights": {"rows": weighed, "weights": weighed if weight is None else weight[weighed]},
        "tags": {as_utf8(tag): np.flatnonzero(tagged) for tag, tagged in notes.tags.items()},
    }


def _where(values: NDArray[Any] | None, holds: Any) -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64) if values is None else np.flatnonzero(holds(values))


def _written(manifest: Mapping[str, Any]) -> Iterator[bytes]:
    yield from map(str.encode, _texts(manifest))
    yield b"\n"


def _texts(value: Any) -> Iterator[str]:
    """A value as JSON, in pieces: arrays of numbers a slice at a time."""
    if isinstance(value, np.ndarray):
        yield "["
        for start in range(0, len(value), _SLICE):
            # A weight of 0.1 is written as such: as float32 it is read as the same.
            part = value[start : start + _SLICE]
            listed = part.astype("U32").tolist() if part.dtype.kind == "f" else map(str, part.tolist())
            yield ("," if start else "") + ",".join(listed)
        yield "]"
    elif isinstance(value, Mapping):
        for number, (key, each) in enumerate(value.items()):
            yield ("," if number else "{") + json.dumps(key) + ":"
            yield from _texts(each)
        yield "}" if value else "{}"
    else:
        yield json.dumps(value)
