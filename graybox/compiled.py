"""Networks under torch.compile: what was compiled for the old parameters is dropped."""

from __future__ import annotations

import contextlib
import sys

import torch


def forget_compiled() -> None:
    """Whatever is compiled is compiled anew when it is called next.

    Without it each edit of structure adds one more compiled variant, until torch's recompile limit is met and the
    network runs uncompiled from then on. Which functions a network is part of nobody knows (a whole training step may
    be compiled), so all are dropped; one that was not touched by the edit compiles once more, too.
    """
    if "torch._dynamo" in sys.modules:  # nothing was ever compiled otherwise, and importing it takes seconds
        torch.compiler.reset()


def eagerly() -> contextlib.AbstractContextManager[object]:
    """A context in which nothing is compiled, and what was compiled is not used."""
    if "torch._dynamo" in sys.modules:
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance
    return contextlib.nullcontext()
