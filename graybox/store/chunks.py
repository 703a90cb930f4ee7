"""Content that checkpoints share: pieces of bytes, each a file named by its SHA-256, written once, checked when read.

`<sha256>` holds the bytes as they are, so that `sha256sum` tells whether it is whole; `<sha256>.z` holds them packed by
zlib. The name is of the bytes before packing.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

from graybox.errors import NotFound, StorageError
from graybox.store.files import make_folder, remove_leftovers, sync_folder, write_atomically

LARGEST = 8 << 20
"""Bytes in a piece at most."""
_PACKED = ".z"
_FILE = re.compile(r"([0-9a-f]{64})(\.z)?")
_PROBE = 4_096
_WORTH_PACKING = 0.7


class ChunkStore:
    """A folder of pieces. One thread writes and collects; any thread, of any process, reads."""

    def __init__(self, folder: Path | str) -> None:
        """folder: created at the first `put`."""
        self.folder = Path(folder)
        self._guard = threading.Lock()
        self._checked: set[str] = set()
        """Written or read by this process: to be shared without another look."""

    def put(self, pieces: Iterable[bytes | memoryview]) -> tuple[list[str], int]:
        """Keep pieces of 1 to LARGEST bytes; their names, in order, and how many bytes more the disk holds.

        All are on the disk before it returns. What is there already is not written again. Its content is checked the
        first time: a broken one is written anew, which mends every checkpoint that shares it. Raises StorageError when
        the disk refuses; what was written before that waits for `collect`.
        """
        names: list[str] = []
        written = 0
        for piece in pieces:
            name = hashlib.sha256(piece).hexdigest()
            names.append(name)
            if not self._is_there(name):
                written += self._write(name, piece)
        if written:
            try:
                sync_folder(self.folder)
            except OSError as error:
                raise StorageError(f"cannot write {self.folder}: {error.strerror or error}") from error
        return names, written

    def get(self, name: str) -> bytes:
        """The content of a piece. Raises NotFound where it is not there, StorageError naming the file where it is
        broken or cannot be read."""
        self._remember(name, False)
        path = self._find(name)
        if path is None:
            raise NotFound(f"there is no shared content {name} in {self.folder}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        if path.suffix == _PACKED:
            content = _unpacked(content)
        if hashlib.sha256(content).hexdigest() != name:
            raise StorageError(f"{path} is broken: its content does not fit its name")
        self._remember(name, True)
        return content

    def holds(self, name: str) -> bool:
        """Whether there is a file of a piece; its content is not looked at."""
        return self._find(name) is not None

    def is_whole(self, name: str) -> bool:
        """Whether a piece is there and what it was. Reads it."""
        try:
            self.get(name)
        except (NotFound, StorageError):
            return False
        return True

    def collect(self, live: Collection[str]) -> int:
        """Remove every piece but the live ones, and what killed processes left; how many bytes less the disk holds.
        Raises StorageError when the disk refuses."""
        freed = 0
        remove_leftovers(self.folder)
        for name, size in self._files():
            match = _FILE.fullmatch(name)
            if match is None or match[1] in live:
                continue
            self._remember(match[1], False)
            try:
                (self.folder / name).unlink()
            except OSError as error:
                raise StorageError(f"cannot remove {self.folder / name}: {error.strerror or error}") from error
            freed += size
        return freed

    def bytes_on_disk(self) -> int:
        """Of all pieces."""
        return sum(size for name, size in self._files() if _FILE.fullmatch(name))

    def _files(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(self.folder) as found:
                return [(entry.name, entry.stat().st_size) for entry in found]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self.folder}: {error.strerror or error}") from error

    def _find(self, name: str) -> Path | None:
        if _FILE.fullmatch(name):
            for path in (self.folder / name, self.folder / f"{name}{_PACKED}"):
                if path.exists():
                    return path
        return None

    def _is_there(self, name: str) -> bool:
        with self._guard:
            known = name in self._checked
        return self.holds(name) if known else self.is_whole(name)

    def _write(self, name: str, piece: bytes | memoryview) -> int:
        make_folder(self.folder)
        content, ending = _packed(piece)
        write_atomically(self.folder / f"{name}{ending}", content, sync_name=False)
        other = self.folder / (name if ending else f"{name}{_PACKED}")
        try:
            other.unlink(missing_ok=True)  # a broken one that was packed the other way
        except OSError as error:
            raise StorageError(f"cannot remove {other}: {error.strerror or error}") from error
        self._remember(name, True)
        return len(content)

    def _remember(self, name: str, whole: bool) -> None:
        with self._guard:
            (self._checked.add if whole else self._checked.discard)(name)


def _packed(piece: bytes | memoryview) -> tuple[bytes | memoryview, str]:
    """What is written, and how the file's name ends. Weights hardly get smaller, and finding that out from the whole of
    them would take longer than writing them: three places tell."""
    view = memoryview(piece)
    size = len(view)
    if size > 3 * _PROBE:
        probe = b"".join(view[at : at + _PROBE] for at in (0, (size - _PROBE) // 2, size - _PROBE))
    else:
        probe = bytes(view)
    if len(zlib.compress(probe, 1)) > _WORTH_PACKING * len(probe):
        return piece, ""
    packed = zlib.compress(view, 1)
    return (packed, _PACKED) if len(packed) < size else (piece, "")


def _unpacked(stored: bytes) -> bytes:
    """What zlib can read of it, and no more than fits a piece: its name tells whether that is right."""
    try:
        return zlib.decompressobj().decompress(stored, LARGEST)
    except zlib.error:
        return b""
