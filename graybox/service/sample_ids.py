"""Samples as the wire names them: an id within a split ("origin")."""

from __future__ import annotations

from collections.abc import Sequence

from graybox.errors import Invalid, NotFound
from graybox.service import limits
from graybox.store.samples import SampleStore

DEFAULT_ORIGIN = "train"


def check_samples(samples: SampleStore, ids: Sequence[str], origins: Sequence[str]) -> list[tuple[str, str]]:
    """(split, sample id) pairs, all of which exist.

    origins: one for each id, or one for all, or none; an empty one means "train". Raises Invalid when their number
    fits neither, NotFound for an unknown split or sample.
    """
    if len(origins) not in (0, 1, len(ids)):
        raise Invalid(
            f"{len(ids)} sample ids but {len(origins)} origins; give one origin for each id, one for all, or none"
        )
    of_each = origins if len(origins) == len(ids) else list(origins or [""]) * len(ids)
    pairs = [(origin or DEFAULT_ORIGIN, sample) for origin, sample in zip(of_each, ids, strict=True)]
    counts = {name: columns.count for name, columns in samples.splits.items()}
    for split, sample in pairs:
        check_origin(counts, split)
        if row_of(sample) >= counts[split]:
            raise NotFound(f"there is no sample {sample!r} in {split!r}; it has {counts[split]} samples, ids from 0")
    return pairs


def check_origin(known: Sequence[str] | dict[str, int], origin: str) -> None:
    """Raises NotFound for a split that the data set does not have."""
    if origin not in known:
        limits.check_text("the origin", origin, limits.MAX_NAME)
        raise NotFound(f"there is no split {origin!r}; known are {', '.join(known) or 'none'}")


def row_of(sample: str) -> int:
    """The row an id stands for. Raises NotFound for what cannot be an id."""
    whole = sample.isascii() and sample.isdigit() and len(sample) <= 18
    if not whole or str(int(sample)) != sample:
        raise NotFound(f"there is no sample {sample[:50]!r}; ids are whole numbers from 0")
    return int(sample)
