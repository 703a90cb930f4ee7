"""Which samples an evaluation is of, and how the journal holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.commands import StartEvaluation
from graybox.errors import NotFound, Refused
from graybox.store.blobs import BlobStore
from graybox.store.sample_columns import SplitColumns

MAX_INLINE = 1_000
"""More rows than this go into a blob beside the journal."""


def rows_for(command: StartEvaluation, splits: Mapping[str, SplitColumns]) -> NDArray[np.int64]:
    """The rows of its split, ascending, at least one. Raises NotFound for an unknown tag, Refused where no sample is
    chosen."""
    columns = splits[command.split]
    if command.full:
        return np.arange(columns.count)
    if command.rows is None and not command.tags:
        in_use = np.flatnonzero(~columns.discarded)
        if not len(in_use):
            raise Refused(f"every sample of {command.split} is discarded; ask for the full set to evaluate them")
        return in_use
    wanted = np.full(columns.count, command.rows is None)
    if command.rows is not None:
        wanted[columns.checked_rows(command.rows)] = True
    if command.tags:
        known = dict.fromkeys(tag for each in splits.values() for tag in each.notes.tags)
        for tag in command.tags:
            if tag not in known:
                raise NotFound(f"there is no tag {tag!r:.100}; there are {', '.join(known) or 'none yet'}")
        tagged = [columns.notes.tags[tag] for tag in command.tags if tag in columns.notes.tags]
        wanted &= np.logical_or.reduce(tagged) if tagged else False
    rows = np.flatnonzero(wanted)
    if not len(rows):
        by = " and ".join(filter(None, (tags_text(command.tags), "" if command.rows is None else "the view")))
        raise Refused(f"no sample of {command.split} is chosen by {by}; there is nothing to evaluate")
    return rows


def kept_rows(rows: NDArray[np.int64], count: int, blobs: BlobStore) -> dict[str, Any]:
    """As an entry of the journal holds them: all of `count`, in the line, or as a bit for each sample in a blob beside
    it. Raises StorageError."""
    if len(rows) == count:
        return {"all": True}
    if len(rows) <= MAX_INLINE:
        return {"rows": rows.tolist()}
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return {"rows_blob": blobs.put({"bits": np.packbits(mask)})}


def rows_of(arguments: Mapping[str, Any], count: int, blobs: BlobStore) -> NDArray[np.int64]:
    """What `kept_rows` was given."""
    if arguments.get("all"):
        return np.arange(count)
    if "rows" in arguments:
        return np.asarray(arguments["rows"], dtype=np.int64)
    bits = blobs.get(arguments["rows_blob"])["bits"]
    return np.flatnonzero(np.unpackbits(bits, count=count))


def tags_text(tags: tuple[str, ...]) -> str:
    """For people; empty without any."""
    return f"tag{'s' if len(tags) > 1 else ''} {', '.join(tags)}" if tags else ""
