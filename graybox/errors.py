"""What can go wrong on purpose: one exception tree, the same on both sides of the wire.

GrayboxError
├── Invalid        the request itself is malformed        (gRPC INVALID_ARGUMENT, success stays unset)
├── NotFound       it names something that is not there   (gRPC NOT_FOUND)
├── Refused        well-formed, but not in this state     (success=false and the reason)
├── DeadlinePassed waited too long, was not applied       (gRPC ABORTED)
├── Unsupported    comes with a later version             (gRPC UNIMPLEMENTED)
└── StorageError   the disk said no, or a file is broken  (success=false and the reason)

Every message says what was wrong and, where it can, what would be right; it is shown to people as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GrayboxError(Exception):
    """Base of every error that Graybox raises on purpose. `str(error)` is meant for people.

    details: the same for programs, where there is more to say (a refused edit of neurons: "together", the smallest set
    that can go together).
    """

    def __init__(self, *args: object, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(*args)
        self.details: dict[str, Any] = dict(details or {})


class Invalid(GrayboxError):
    """A malformed request: a value of the wrong type or out of range."""


class NotFound(GrayboxError):
    """An unknown layer, neuron, sample, split, run or checkpoint."""


class Refused(GrayboxError):
    """A well-formed request that the present state does not allow. Nothing was changed."""


class DeadlinePassed(GrayboxError):
    """The command's deadline passed before its turn came. It will not be applied later."""


class Unsupported(GrayboxError):
    """Part of the contract that this version does not do yet."""


class StorageError(GrayboxError):
    """A file could not be written, or was found broken. The message names it."""
