"""The losses of every sample over its encounters, in bounded memory: the last ones exact, older ones thinned.

16 numbers a sample. Eight are the last eight encounters. The other eight are encounters 0, s, 2 s, ... of a stride s,
the smallest power of two with which all so far have room; whenever it doubles, every other of them goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graybox.store.aligned import aligned_zeros

RECENT = 8
"""A power of two."""
OLDER = 8
WIDTH = RECENT + OLDER
_TABLE = 4_096


def strides(encounters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Between older losses that are kept when the encounter of this number, from 0, is noted; int64 [n]."""
    digits = np.frexp(encounters.astype(np.float64))[1].astype(np.int64)
    return np.left_shift(np.int64(1), np.maximum(digits - int(OLDER).bit_length() + 1, 0))


def _places(encounters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where among the older ones the loss of this encounter is kept; -1 nowhere."""
    stride = strides(encounters)
    return np.where(encounters % stride == 0, encounters // stride, -1)


_PLACES = _places(np.arange(_TABLE))
"""Most samples are met fewer times than this: looking it up is several times faster."""


def new_history(count: int) -> NDArray[np.float32]:
    """Of samples that were never met: float32 [count, WIDTH], NaN."""
    made = aligned_zeros(count * WIDTH, np.dtype(np.float32))
    made.fill(np.nan)
    return made.reshape(count, WIDTH)


def keep_losses(
    history: NDArray[np.float32], rows: NDArray[np.int64], encounters: NDArray[np.int64], losses: NDArray[np.float32]
) -> None:
    """Note one loss for each of some samples.

    history: float32 [samples, WIDTH], contiguous, changed in place, NaN where there is nothing yet. rows: int64 [n],
    each once. encounters: int64 [n], how often each was met before. losses: float32 [n].
    """
    if not len(rows):
        return
    flat = history.reshape(-1)
    start = rows * WIDTH
    flat[start + (encounters & (RECENT - 1))] = losses
    most = int(encounters.max())
    place = _PLACES.take(encounters) if most < _TABLE else _places(encounters)
    if most >= OLDER:
        # From then on most of them are kept among the last ones only.
        kept = np.flatnonzero(place >= 0)
        start, place, losses = start[kept], place[kept], losses[kept]
        doubled = kept[(place == OLDER // 2) & (encounters[kept] >= OLDER)]
        if len(doubled):
            _thin(history, rows[doubled])
    flat[start + (RECENT + place)] = losses


def _thin(history: NDArray[np.float32], full: NDArray[np.int64]) -> None:
    """Every other of the older losses goes, of those that now need twice the stride: the next one to be kept comes
    into the middle."""
    older = history[full, RECENT:]
    thinned = np.full_like(older, np.nan)
    thinned[:, : OLDER // 2] = older[:, ::2]
    history[full, RECENT:] = thinned


def losses_of(kept: NDArray[np.float32], encounters: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What is still known of one sample: (numbers of its encounters from 0, ascending, int64 [m]; losses [m]).

    kept: its row of the history, float32 [WIDTH]. encounters: how often it was met.
    """
    if not encounters:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    recent = np.arange(max(encounters - RECENT, 0), encounters)
    stride = int(strides(np.array([encounters - 1]))[0])
    older = np.arange(0, recent[0], stride)
    numbers = np.concatenate([older, recent])
    return numbers, np.concatenate([kept[RECENT + older // stride], kept[recent % RECENT]])
