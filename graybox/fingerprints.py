"""Takes the fingerprint of each training step, where GRAYBOX_FINGERPRINTS asks for it: see docs/comparing.md."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.digests import Digester
from graybox.errors import Invalid
from graybox.store.fingerprint_log import FingerprintLog, StepFingerprint

VARIABLE = "GRAYBOX_FINGERPRINTS"


def fingerprints_every(environment: Mapping[str, str]) -> int:
    """On every so many-th step, as the variable says: 1 for each; 0, or nothing, for never. Raises Invalid."""
    text = environment.get(VARIABLE, "").strip()
    if text and not (text.isascii() and text.isdigit()):
        raise Invalid(f"{VARIABLE} is {text!r:.100}; give 1 for every step, N for every N-th, 0 for none")
    return int(text or 0)


def log_asked_for(folder: Path) -> FingerprintLog | None:
    """Opened where the environment asks for it. folder: the run's. Raises Invalid, or StorageError."""
    every = fingerprints_every(os.environ)
    return FingerprintLog(folder, every) if every else None


@dataclass
class _Begun:
    """What is known of a step before it is made; numbers on the device are not waited for."""

    step: int
    seed: int
    rows: int
    inputs: torch.Tensor
    targets: torch.Tensor
    weights: list[torch.Tensor]
    weight_names: tuple[str, ...]
    gradients: list[torch.Tensor]
    gradient_names: tuple[str, ...]
    loss: float = 0.0
    random: int = 0

    def finished(self) -> StepFingerprint:
        """Waits for the device, where it still works on them."""
        return StepFingerprint(
            self.step, self.seed, self.rows, int(self.inputs), int(self.targets), self.random, self.loss,
            _together(self.weights), _together(self.gradients), self.weight_names, self.gradient_names,
        )  # fmt: skip


class StepFingerprints:
    """Called around each step by its owner. Changes nothing: no random number is drawn, no gradient touched."""

    def __init__(self, model: nn.Module, log: FingerprintLog) -> None:
        self.model = model
        self.log = log
        self._digester = Digester()
        self._begun: _Begun | None = None

    def begin(self, step: int, seed: int, rows: torch.Tensor, inputs: Any, target: Any) -> None:
        """Before the network sees the batch. step: how many were made before; rows int64 [batch], on the CPU."""
        self._begun = None
        if step % self.log.every:
            return
        weights: dict[str, torch.Tensor] = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        numbers, names = self._of_named(weights)
        self._begun = _Begun(
            step,
            seed,
            int(self._digester.of([rows])),
            self._digester.of_tree(inputs),
            self._digester.of_tree(target),
            numbers,
            names,
            [],
            (),
        )

    def learnt(self, loss: float) -> None:
        """Before the optimizer's step: the gradients are there."""
        if self._begun is None:
            return
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        self._begun.gradients, self._begun.gradient_names = self._of_named(gradients)
        self._begun.loss = loss
        self._begun.random = random_state()

    def commit(self) -> None:
        """The step was made. Raises StorageError when the disk refuses."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        numbers = (begun.inputs, begun.targets, *begun.weights, *begun.gradients)
        if all(each.device.type == "cpu" for each in numbers):
            self.log.append(begun.finished())
        else:
            self.log.append_later(begun.finished)

    def _of_named(self, tensors: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], tuple[str, ...]]:
        """(digests by device, their names in the same order)."""
        by_device: dict[torch.device, list[str]] = {}
        for name, tensor in tensors.items():
            by_device.setdefault(tensor.device, []).append(name)
        numbers = [self._digester.of([tensors[name] for name in names]) for names in by_device.values()]
        return numbers, tuple(name for names in by_device.values() for name in names)


def random_state() -> int:
    """One number for the states of the global generators of Python, NumPy and torch. Waits for no device."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.array(random.getstate()[1], dtype=np.uint32).tobytes())
    _, keys, place, *_ = np.random.get_state()
    digest.update(np.asarray(keys).tobytes() + bytes(str(place), "ascii"))
    digest.update(torch.get_rng_state().numpy().tobytes())
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            digest.update(torch.cuda.get_rng_state(device).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _together(numbers: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([each.cpu().numpy() for each in numbers]) if numbers else np.zeros(0, dtype=np.int64)
