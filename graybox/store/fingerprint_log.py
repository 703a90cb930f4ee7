"""A fingerprint of every training step: what went in and what came out, as numbers of 64 bits, in fingerprints.log.

Two runs that do the same have the same ones; where they begin to differ tells what differed first.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graybox.errors import StorageError
from graybox.store.record_log import RecordLog, read_records

FILE_NAME = "fingerprints.log"
KIND = b"STEP"
VERSION = 1
_HEAD = struct.Struct("<QQqqqqd")
_STEP, _NAMES = b"S", b"N"

Digests = NDArray[np.int64]


@dataclass(frozen=True)
class StepFingerprint:
    """step: how many were made before. seed: of the step's random numbers. rows, inputs, targets: of which samples were
    in the batch, of what they held as the network got them, of their targets. loss: itself. random: of the states of
    all random number generators after the step. weights: of parameters and buffers before the step, gradients: of the
    parameters that have one, both int64 and in the order of the names.
    """

    step: int
    seed: int
    rows: int
    inputs: int
    targets: int
    random: int
    loss: float
    weights: Digests
    gradients: Digests
    weight_names: tuple[str, ...]
    gradient_names: tuple[str, ...]


class FingerprintLog:
    """Open for appending, by one thread, and closed when it has ended."""

    def __init__(self, folder: Path | str, every: int = 1) -> None:
        """folder: the run's. every: on each so many-th step there is to be one. Raises StorageError for a file of
        another kind, or that cannot be opened."""
        self.every = every
        self._log = RecordLog(Path(folder) / FILE_NAME, kind=KIND, version=VERSION)
        self._names: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._later: Callable[[], StepFingerprint] | None = None

    def append(self, fingerprint: StepFingerprint) -> None:
        """Add one. Raises StorageError when the disk refuses."""
        names = fingerprint.weight_names, fingerprint.gradient_names
        if names != self._names:
            self._log.append(_NAMES + json.dumps(names).encode())
            self._names = names
        f = fingerprint
        head = _HEAD.pack(f.step, f.seed, f.rows, f.inputs, f.targets, f.random, f.loss)
        self._log.append(_STEP + head + f.weights.astype("<i8").tobytes() + f.gradients.astype("<i8").tobytes())

    def append_later(self, make: Callable[[], StepFingerprint]) -> None:
        """Add one at the next call, or at `close`: by then what it is made of has come from the device. Raises as
        `append` does, about the one before."""
        earlier, self._later = self._later, make
        if earlier is not None:
            self.append(earlier())

    def close(self) -> None:
        """Append what waits, then close. More than once is fine."""
        earlier, self._later = self._later, None
        try:
            if earlier is not None:
                self.append(earlier())
            self._log.sync()
        finally:
            self._log.close()


def read_fingerprints(folder: Path | str) -> list[StepFingerprint]:
    """Those of the line of history that led to the present, by step: where a run went back and made a step again, the
    later one counts, and of what came after it before nothing is left. [] without a log. May run while it is written.

    Raises StorageError for a broken one.
    """
    path = Path(folder) / FILE_NAME
    found: list[StepFingerprint] = []
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for _, payload in read_records(path, KIND, VERSION):
        try:
            if payload[:1] == _NAMES:
                weights, gradients = json.loads(payload[1:])
                names = tuple(weights), tuple(gradients)
            elif payload[:1] == _STEP:
                made = _decoded(payload, names)
                while found and found[-1].step >= made.step:
                    found.pop()
                found.append(made)
        except (ValueError, TypeError, struct.error) as error:
            raise StorageError(f"{path} is broken: {error}") from error
    return found


def _decoded(payload: bytes, names: Sequence[tuple[str, ...]]) -> StepFingerprint:
    step, seed, rows, inputs, targets, random, loss = _HEAD.unpack_from(payload, 1)
    numbers = np.frombuffer(payload, dtype="<i8", offset=1 + _HEAD.size)
    count = len(names[0])
    if len(numbers) != count + len(names[1]):
        raise ValueError(f"step {step} has {len(numbers)} digests for {count + len(names[1])} tensors")
    return StepFingerprint(
        step, seed, rows, inputs, targets, random, loss, numbers[:count], numbers[count:], names[0], names[1]
    )
