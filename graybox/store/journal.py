"""Every intervention of a run, one JSON line each, in the order they were applied.

A line is a JSON object: "v" (format version), the fields of JournalEntry, and last "crc", the CRC-32 (8 hexadecimal
digits) of the line's bytes before `,"crc"`. Sequences run 1, 2, 3, ... without a gap.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from graybox.errors import Invalid, Refused, StorageError
from graybox.store.files import sync_folder

_log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_CHECKSUM_LENGTH = len(b',"crc":"00000000"}')


@dataclass(frozen=True)
class JournalEntry:
    """One intervention. arguments: with selections resolved to indices; undo: what takes it back; outcome: "applied"
    or "failed". Both dicts hold only what JSON can hold."""

    sequence: int
    time_ms: int
    actor: str
    kind: str
    step: int
    age: int
    branch: int
    summary: str
    arguments: dict[str, Any] = field(default_factory=dict)
    outcome: str = "applied"
    undo: dict[str, Any] = field(default_factory=dict)


class Journal:
    """A run's journal. Written by one thread; read by any, without a lock."""

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        """path: journal.jsonl; created where missing, unless read_only.

        A torn last line is cut off, its bytes kept beside the journal in `journal.torn-<milliseconds>`. Raises
        StorageError naming the line when one in the middle is broken, or when the file cannot be opened.
        """
        self.path = Path(path)
        self.read_only = read_only
        self._entries: list[JournalEntry] = []
        self._guard = threading.Lock()
        self._descriptor = -1
        self._end = 0
        self._torn = False
        self._unsynced = False
        if read_only:
            self._read_more()
            return
        try:
            created = not self.path.exists()
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if created:
                sync_folder(self.path.parent)
            self._repair()
        except OSError as error:
            self.close()
            raise StorageError(f"cannot open the journal {self.path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def last_sequence(self) -> int:
        """The newest entry's sequence; 0 before the first."""
        if self.read_only:
            self._read_more()
        return len(self._entries)

    def entries(self, after: int = 0) -> list[JournalEntry]:
        """The entries with a sequence above `after`, oldest first. A read-only journal first reads what was added."""
        if self.read_only:
            self._read_more()
        return self._entries[max(after, 0) :]

    def append(
        self,
        *,
        time_ms: int,
        actor: str,
        kind: str,
        step: int,
        age: int,
        branch: int,
        summary: str,
        arguments: Mapping[str, Any] | None = None,
        outcome: str = "applied",
        undo: Mapping[str, Any] | None = None,
    ) -> JournalEntry:
        """Write the next entry by one `os.write`; the entry with its sequence. It survives the death of the process at
        once, and a power cut after `sync`, which the caller does before it acknowledges.

        Raises Invalid for what JSON cannot hold, StorageError when the disk refuses; nothing is added then.
        """
        if self.read_only:
            raise Refused(f"the journal {self.path} is open for reading only")
        entry = JournalEntry(
            len(self._entries) + 1, time_ms, actor, kind, step, age, branch, summary,
            dict(arguments or {}), outcome, dict(undo or {}),
        )  # fmt: skip
        line = _encode(entry)
        if self._torn:
            self._cut_back()
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._refuse(error.strerror or str(error), error)
        if written != len(line):
            self._refuse(f"only {written} of {len(line)} bytes could be written; is the disk full?")
        self._end += written
        self._unsynced = True
        # Decoded again: what memory shows is what a restart will show (tuples are lists, keys are text).
        entry = _decode(line[:-1])
        self._entries.append(entry)
        return entry

    def sync(self) -> None:
        """Wait until what was appended before this call is on the disk."""
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
        """Close without syncing; what was read stays readable. More than once is fine."""
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _repair(self) -> None:
        content = self.path.read_bytes()
        self._end = self._take(content, first_line=1)
        tail = content[self._end :]
        if tail:
            aside = self.path.with_name(f"{self.path.stem}.torn-{time.time_ns() // 1_000_000}")
            aside.write_bytes(tail)
            self._cut_back()
            os.fsync(self._descriptor)
            _log.warning("cut a torn last line of %d bytes off %s; kept in %s", len(tail), self.path, aside.name)

    def _read_more(self) -> None:
        with self._guard:
            try:
                with open(self.path, "rb") as file:
                    file.seek(self._end)
                    content = file.read()
            except FileNotFoundError:
                return
            except OSError as error:
                raise StorageError(f"cannot read the journal {self.path}: {error.strerror or error}") from error
            self._end += self._take(content, first_line=len(self._entries) + 1)

    def _take(self, content: bytes, first_line: int) -> int:
        """Add the whole lines of content to the entries; the bytes they take."""
        *lines, unfinished = content.split(b"\n")
        taken = 0
        for index, line in enumerate(lines):
            try:
                entry = _decode(line)
                if entry.sequence != len(self._entries) + 1:
                    raise ValueError(f"its sequence is {entry.sequence}, not {len(self._entries) + 1}")
            except ValueError as error:
                if taken + len(line) + 1 == len(content) and not _begins_whole(line):
                    break  # the last line: a power cut may leave it whole in length but not in content
                raise StorageError(f"line {first_line + index} of {self.path} is broken: {error}") from None
            self._entries.append(entry)
            taken += len(line) + 1
        if _begins_whole(unfinished):
            raise StorageError(f"line {first_line + len(lines)} of {self.path} is broken: something follows its end")
        return taken

    def _refuse(self, reason: str, cause: OSError | None = None) -> NoReturn:
        if self._descriptor < 0:
            raise StorageError(f"cannot append to {self.path}: the journal is closed") from cause
        self._torn = True
        with contextlib.suppress(StorageError):
            self._cut_back()
        raise StorageError(f"cannot append to {self.path}: {reason}") from cause

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            raise StorageError(f"cannot cut the torn end off {self.path}: {error.strerror or error}") from error
        self._torn = False


def _encode(entry: JournalEntry) -> bytes:
    try:
        text = json.dumps({"v": FORMAT_VERSION, **asdict(entry)}, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the journal cannot hold this {entry.kind}: {error}") from None
    body = text[:-1].encode("ascii")
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def _decode(line: bytes) -> JournalEntry:
    """The entry of a line without its newline. Raises ValueError saying what is broken."""
    body, ending = line[:-_CHECKSUM_LENGTH], line[-_CHECKSUM_LENGTH:]
    match = _CHECKSUM.fullmatch(ending)
    if match is None:
        raise ValueError("its end is missing")
    if int(match[1], 16) != zlib.crc32(body):
        raise ValueError("its checksum is wrong")
    fields = json.loads(body + b"}")
    version = fields.pop("v", None)
    if version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}; this version of Graybox reads {FORMAT_VERSION}")
    try:
        return JournalEntry(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _begins_whole(line: bytes) -> bool:
    """Whether more follows a whole entry: that is damage to what was acknowledged, and no append cut short."""
    return any(
        match.end() < len(line) and int(match[1], 16) == zlib.crc32(line[: match.start()])
        for match in _CHECKSUM.finditer(line)
    )
