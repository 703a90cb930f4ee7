"""The global random generators as they stand, as tensors and plain values: what a user's own code outside of steps
draws from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Copies of the states of Python, NumPy, torch and, once it is in use, CUDA.

    python: version, numbers (int64 [n]) and gauss (or None), as `random.getstate` answers them. numpy: the kind of its
    global generator, keys (int64 [n]), position, has_gauss and gauss. torch: uint8 [n]. cuda: one for each device.
    """
    version, numbers, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = numpy
    return {
        "python": {"version": version, "numbers": torch.tensor(numbers, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Take over what `random_state` answered. States of GPUs that are not here are left out, and so is Python's or
    NumPy's where another version made it that kept it otherwise."""
    python, numpy = state["python"], state["numpy"]
    if python["version"] == random.getstate()[0]:
        random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    present: Any = np.random.get_state(legacy=True)
    if numpy["kind"] == present[0]:
        keys = numpy["keys"].numpy().astype(np.uint32)
        np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():
        for device, kept in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(kept, device)
