"""A guard for the tests of what must never wait for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Raises on whatever would make a CUDA program wait for its device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0].lstrip("_")
        if name in {wait.lstrip("_") for wait in self.WAITS}:
            raise AssertionError(f"{func} waits for the device")
        booleans = [a for a in args[1:2] if isinstance(a, (list, tuple))] if name.startswith("index") else []
        if any(isinstance(i, torch.Tensor) and i.dtype is torch.bool for some in booleans for i in some):
            raise AssertionError(f"{func} with a mask waits for the device")
        return func(*args, **(kwargs or {}))
