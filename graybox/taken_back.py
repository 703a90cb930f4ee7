"""What was done but cannot be recorded is taken back: a run never is what its journal does not tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from graybox.errors import StorageError

T = TypeVar("T")


class NotRecorded(StorageError):
    """The disk refused to record something, and it was taken back: nothing changed."""


@contextmanager
def all_or_nothing(take_back: Callable[[], object]) -> Iterator[None]:
    """What is done inside and raises is taken back. A disk that refused raises NotRecorded then; where it refuses to
    take back as well, what that raised."""
    try:
        yield
    except StorageError as error:
        take_back()
        raise NotRecorded(f"nothing was changed, because it could not be recorded: {error}") from error
    except BaseException:
        take_back()
        raise


def recorded_or_taken_back(record: Callable[[], T], take_back: Callable[[], object]) -> T:
    """What `record` answers. Where the disk refuses, what was done is taken back and NotRecorded is raised; where that
    fails as well, what it raised: then it is done, and not recorded."""
    try:
        return record()
    except StorageError as error:
        take_back()
        raise NotRecorded(f"nothing was changed, because it could not be recorded: {error}") from error
