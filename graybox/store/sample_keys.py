"""The names that samples have of their own, by which they are known again in another data set.

keys-<split>-<fingerprint>.txt in the run's folder: a line "graybox-sample-keys 1 <count> <sha256 of the rest>", and one
key a line, in the order of the samples, UTF-8. One file for each data set that the run was trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, StorageError
from graybox.store.files import write_atomically

if TYPE_CHECKING:
    from graybox.store.sample_columns import SplitColumns

FORMAT = "graybox-sample-keys 1"
MAX_LENGTH = 1_000
"""Characters of a key."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_FINGERPRINT = re.compile(r"[0-9A-Za-z]{1,64}")

Rows = NDArray[np.int64]


class SampleKeys:
    """Keys [samples], each once. Read from its file when it is first used, where it comes from one."""

    def __init__(self, keys: Sequence[str] | None = None, path: Path | None = None) -> None:
        self._keys = None if keys is None else tuple(keys)
        self._path = path

    def __len__(self) -> int:
        return len(self.texts())

    def texts(self) -> tuple[str, ...]:
        """All of them, in the order of the samples. Raises StorageError for a file that cannot be read."""
        if self._keys is None:
            assert self._path is not None
            self._keys = read_keys(self._path)
        return self._keys

    def of(self, row: int) -> str:
        """That of one sample."""
        return self.texts()[row]

    def rows_in(self, others: SampleKeys) -> Rows:
        """Where each of these samples stands among others, int64 [len(self)]; -1 where it is not there."""
        place = {key: row for row, key in enumerate(others.texts())}
        return np.fromiter((place.get(key, -1) for key in self.texts()), np.int64, len(self))


def checked_keys(found: Iterable[object], what: str) -> tuple[str, ...]:
    """Keys as texts. what: where they come from, for the error. Raises Invalid, naming the samples, for one that comes
    twice or cannot be a key."""
    keys = tuple(str(key) for key in found)
    if len(set(keys)) < len(keys):
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            if first.setdefault(key, row) != row:
                raise Invalid(
                    f"{what} names samples {first[key]} and {row} both {key[:100]!r}; each sample needs a name of its "
                    "own, or the data set none at all"
                )
    sound = all(keys) and max(map(len, keys), default=0) <= MAX_LENGTH and not _CONTROL.search("".join(keys))
    for row, key in enumerate(() if sound else keys):
        if not key or len(key) > MAX_LENGTH or _CONTROL.search(key):
            raise Invalid(
                f"{what} names sample {row} {key[:100]!r}; a name has 1 to {MAX_LENGTH:,} characters, none of them a "
                "control character or the end of a line"
            )
    return keys


def keys_path(folder: Path, split: str, fingerprint: str) -> Path | None:
    """Where the keys of a data set are, or will be; None for a fingerprint that names no file."""
    return folder / f"keys-{split}-{fingerprint}.txt" if _FINGERPRINT.fullmatch(fingerprint) else None


def keys_on_disk(folder: Path, split: str, fingerprint: str) -> SampleKeys | None:
    """The keys of a data set, where they were kept."""
    path = keys_path(folder, split, fingerprint)
    return SampleKeys(path=path) if path is not None and path.exists() else None


def attach_keys(folder: Path, splits: Iterable[SplitColumns]) -> None:
    """Columns that were read from a run's folder get the keys that are there."""
    for columns in splits:
        columns.keys = keys_on_disk(folder, columns.name, columns.fingerprint)


def write_keys(path: Path, keys: SampleKeys) -> None:
    """Whole, or not at all. Raises StorageError when the disk refuses."""
    rest = "".join(f"{key}\n" for key in keys.texts()).encode("utf-8", "surrogatepass")
    head = f"{FORMAT} {len(keys)} {hashlib.sha256(rest).hexdigest()}\n"
    write_atomically(path, head.encode() + rest)


def read_keys(path: Path) -> tuple[str, ...]:
    """What `write_keys` wrote. Raises StorageError for a file that cannot be read or is broken."""
    try:
        head, _, rest = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise StorageError(f"cannot read the names of samples in {path}: {error.strerror or error}") from error
    keys = rest.decode("utf-8", "surrogatepass").split("\n")[:-1] if rest else []
    if head.decode("utf-8", "replace") != f"{FORMAT} {len(keys)} {hashlib.sha256(rest).hexdigest()}":
        raise StorageError(f"the file of names of samples {path} is broken")
    return tuple(keys)
