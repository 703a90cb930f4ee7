"""An append-only file of checksummed records: one `os.write` each, whole or not there.

    header   8 bytes b"GRAYBOX\\n", 4 bytes kind, uint32 version
    record   uint32 length of the payload (1 or more), uint32 CRC-32 of the payload seeded with the length, payload

All little-endian. A record that a kill or a full disk cut short, or whose checksum is wrong, ends what can be read.
A run of zero bytes, as a power cut may leave, is no record, because no payload is empty.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from graybox.errors import Invalid, StorageError
from graybox.store.files import sync_folder

_log = logging.getLogger(__name__)

MAGIC = b"GRAYBOX\n"
HEADER = struct.Struct("<8s4sI")
RECORD = struct.Struct("<II")
MAX_PAYLOAD = 1 << 31
"""Bytes; a longer length can only be a broken record."""


def _header(kind: bytes, version: int) -> bytes:
    if len(kind) != 4:
        raise Invalid(f"a log's kind has 4 bytes, not {len(kind)}: {kind!r}")
    return HEADER.pack(MAGIC, kind, version)


def _check_header(path: Path, found: bytes, kind: bytes, version: int) -> bool:
    """True for a whole header of this or an older version, False for one cut short; StorageError for a file of another
    kind."""
    wanted = _header(kind, version)
    if len(found) < HEADER.size:
        if wanted.startswith(found):
            return False
        raise StorageError(f"{path} is not a Graybox log")
    magic, found_kind, found_version = HEADER.unpack(found)
    if magic != MAGIC:
        raise StorageError(f"{path} is not a Graybox log")
    if found_kind != kind:
        raise StorageError(f"{path} is a log of kind {found_kind!r}, not {kind!r}")
    if not 1 <= found_version <= version:
        raise StorageError(f"{path} has format version {found_version}; this version of Graybox reads up to {version}")
    return True


def _scan(file: BinaryIO, position: int) -> Iterator[tuple[int, bytes]]:
    file.seek(position)
    read, unpack, crc32, head = file.read, RECORD.unpack, zlib.crc32, RECORD.size
    while True:
        start = read(head)
        if len(start) < head:
            return
        length, checksum = unpack(start)
        if not 0 < length <= MAX_PAYLOAD:
            return
        payload = read(length)
        if len(payload) < length or crc32(payload, length) != checksum:
            return
        position += head + length
        yield position, payload


def read_records(path: Path | str, kind: bytes, version: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The good records of a log, each with the offset of its end, up to the first bad or incomplete one.

    start: 0, or an end offset that was answered before: only what follows it. May run while another process appends.
    A file that is not there, or whose header is not whole yet, has no records. Raises StorageError for a file of
    another kind or version, or one that cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if _check_header(path, file.read(HEADER.size), kind, version):
                yield from _scan(file, max(start, HEADER.size))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


class RecordLog:
    """A log open for appending, by one thread; `sync` and `close` may be called from another."""

    def __init__(
        self, path: Path | str, *, kind: bytes, version: int, replay: Callable[[bytes], None] | None = None
    ) -> None:
        """Open a log, or create it with its header. A torn tail is cut off (its bytes are kept beside the log, in
        `<name>.torn-<milliseconds>`), so that what is appended can be read again.

        replay: called with each good payload in order, so that opening reads the file only once.

        Raises StorageError when the file is of another kind or version, or cannot be opened.
        """
        self.path = Path(path)
        self.repaired = False
        self._guard = threading.Lock()
        self._unsynced = False
        self._torn = False
        self._end = HEADER.size
        self._descriptor = -1
        header = _header(kind, version)
        try:
            created = not self.path.exists()
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if self._read_header(kind, version):
                self._replay(replay)
            else:
                os.ftruncate(self._descriptor, 0)
                os.write(self._descriptor, header)
                os.fsync(self._descriptor)
            if created:
                sync_folder(self.path.parent)
        except OSError as error:
            self.close()
            raise StorageError(f"cannot open the log {self.path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of header and good records: where the next record begins."""
        return self._end

    def append(self, payload: bytes) -> int:
        """Append one record (1 byte or more) by one `os.write`; the offset of its end.

        Survives the death of the process at once, and a power cut after the next `sync`. Raises StorageError when
        the disk refuses; the log then ends, as before, with its last whole record.
        """
        length = len(payload)
        if not 0 < length <= MAX_PAYLOAD:
            raise Invalid(f"a record has 1 to {MAX_PAYLOAD} bytes, not {length}")
        if self._torn:
            self._cut_back()
        record = RECORD.pack(length, zlib.crc32(payload, length)) + payload
        try:
            written = os.write(self._descriptor, record)
        except OSError as error:
            self._refuse(error.strerror or str(error), error)
        if written != len(record):
            self._refuse(f"only {written} of {len(record)} bytes could be written; is the disk full?")
        self._unsynced = True
        self._end += written
        return self._end

    def sync(self) -> None:
        """Wait until what was appended before this call is on the disk. Does nothing when there is nothing new."""
        with self._guard:
            if self._descriptor < 0 or not self._unsynced:
                return
            self._unsynced = False
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                self._unsynced = True
                raise StorageError(f"cannot sync {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close without syncing. More than once is fine."""
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _read_header(self, kind: bytes, version: int) -> bool:
        return _check_header(self.path, os.pread(self._descriptor, HEADER.size, 0), kind, version)

    def _replay(self, replay: Callable[[bytes], None] | None) -> None:
        with open(self.path, "rb") as file:
            for end, payload in _scan(file, HEADER.size):
                self._end = end
                if replay is not None:
                    replay(payload)
            file.seek(self._end)
            tail = file.read()
        if tail:
            aside = self.path.with_name(f"{self.path.name}.torn-{time.time_ns() // 1_000_000}")
            aside.write_bytes(tail)
            self._cut_back()
            os.fsync(self._descriptor)
            self.repaired = True
            _log.warning("cut a torn tail of %d bytes off %s; kept in %s", len(tail), self.path, aside.name)

    def _refuse(self, reason: str, cause: OSError | None = None) -> NoReturn:
        if self._descriptor < 0:
            raise StorageError(f"cannot append to {self.path}: the log is closed") from cause
        self._torn = True
        with contextlib.suppress(StorageError):
            self._cut_back()
        raise StorageError(f"cannot append to {self.path}: {reason}") from cause

    def _cut_back(self) -> None:
        """Drop what lies after the last whole record: a reader would stop there and miss all that follows."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            raise StorageError(f"cannot cut the torn end off {self.path}: {error.strerror or error}") from error
        self._torn = False
