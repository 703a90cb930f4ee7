"""Randomness has owners: every random number is a function of a seed and of what it is for.

A step's numbers (dropout) depend on seed and step; the order of samples on seed, epoch and position; augmentation on
seed, epoch and sample; an edit's on seed and journal sequence. So nothing depends on how far a loader has prefetched,
on how often somebody looked at a thumbnail, or on whether the process was restarted in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit number from several. The finaliser is that of SplitMix64 (Steele, Lea and Flood, 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def hashes(seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A well-mixed 64-bit number for each of several, as `mix`: different ones for different numbers."""
    state = numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix(seed))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    state ^= state >> np.uint64(31)
    return state


@lru_cache(maxsize=256)
def purpose(name: str) -> int:
    """A number for a name, so that two uses of one seed never share a stream."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def seed_everything(number: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices in use). A few microseconds on the CPU."""
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch.default_generator.manual_seed(number)
    # Whether it is initialised is a flag; whether it is available asks the driver, at every sample of every batch.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


@contextlib.contextmanager
def seeded(number: int) -> Iterator[None]:
    """Seed the global generators for a while, and put them back as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            seed_everything(number)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of samples in one epoch: int64 [count]."""
    return np.random.Generator(np.random.PCG64(mix(seed, purpose("order"), epoch))).permutation(count)
