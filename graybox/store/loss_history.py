"""The losses of every sample over its encounters, in bounded memory: the last ones exact, older ones thinned.

16 numbers a sample. Eight are the last eight encounters. The other eight are encounters 0, s, 2 s, ... of a stride s,
the smallest power of two with which all so far have room; whenever it doubles, every other of them goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RECENT = 8
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


def keep_losses(
    history: NDArray[np.float32], rows: NDArray[np.int64], encounters: NDArray[np.int64], losses: NDArray[np.float32]
) -> None:
    """Note one loss for each of some samples.

    history: float32 [samples, WIDTH], contiguous, changed in place, NaN where there is nothing yet. rows: int64 [n],
    each once. encounters: int64 [n], how often each was met before. losses: float32 [n].
    """
    flat = history.reshape(-1)
    start = rows * WIDTH
    flat.put(start + encounters % RECENT, losses)
    often = len(encounters) and int(encounters.max()) >= OLDER
    if often:
        _thin(history, rows, encounters)
    place = _PLACES.take(encounters) if not often or int(encounters.max()) < _TABLE else _places(encounters)
    kept = place >= 0
    if not kept.all():
        start, place, losses = start[kept], place[kept], losses[kept]
    flat.put(start + (RECENT + place), losses)


def _thin(history: NDArray[np.float32], rows: NDArray[np.int64], encounters: NDArray[np.int64]) -> None:
    """Every other of the older losses goes, of those that now need twice the stride."""
    doubled = (encounters >= OLDER) & (encounters & (encounters - 1) == 0)
    if doubled.any():
        full = rows[doubled]
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
