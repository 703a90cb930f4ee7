"""What was done but cannot be recorded is taken back: a run never is what its journal does not tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from graybox.errors import StorageError

T = TypeVar("T")


class NotRecorded(StorageError):
    """The disk refused to record something, and it was taken back: nothing changed."""


def recorded_or_taken_back(record: Callable[[], T], take_back: Callable[[], object]) -> T:
    """What `record` answers. Where the disk refuses, what was done is taken back and NotRecorded is raised; where that
    fails as well, what it raised: then it is done, and not recorded."""
    try:
        return record()
    except StorageError as error:
        take_back()
        raise NotRecorded(f"nothing was changed, because it could not be recorded: {error}") from error
