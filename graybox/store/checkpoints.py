"""Which checkpoints a run has: JSON manifests beside the files that the trainer writes. Free of torch.

A manifest says which pieces of shared content its checkpoint needs. They are on the disk before it is, and go once no
manifest names them; so a process that is killed anywhere leaves whole checkpoints, and perhaps content that no manifest
names, which `collect` removes.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from graybox.errors import GrayboxError, Invalid, NotFound, StorageError
from graybox.store.chunks import ChunkStore
from graybox.store.files import make_folder, sha256_of, sync_folder, write_atomically
from graybox.store.retention import KeepCheckpoints

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
READABLE = (1, 2)
AUTOMATIC = "automatic"
"""The reason of a checkpoint that the trainer made by itself."""
SHARED = "shared"
"""The folder of content that checkpoints share, beside them."""
_ID = re.compile(r"\d{6,12}")
_MANIFEST = re.compile(r"(\d{6,12})\.json")
_ANY_FILE = re.compile(r"(\d{6,12})\.(?:json|pt)")
_HASH = re.compile(r"[A-Za-z0-9_-]{1,128}")
_REFERENCE = re.compile(r"(?P<hash>[^@]+)(?:@@(?P<kind>step|weights_step)=(?P<step>\d{1,18}))?")
_LAST_NAME = "last.json"


@dataclass(frozen=True)
class CheckpointRecord:
    """What is known of a checkpoint without loading it.

    id: its ordinal, six digits or more. metrics: the latest of each, "val/loss": 0.12. journal_sequence: the last
    entry it includes. bytes: of all it holds; sha256: of the file; file: its name, `<id>.pt`. chunks: the pieces of
    shared content it needs (format 1 has none: the file holds all). added: bytes that the disk held more because of it.
    """

    id: str
    experiment_hash: str = ""
    step: int = 0
    age: int = 0
    branch: int = 0
    name: str = ""
    reason: str = ""
    time_ms: int = 0
    bytes: int = 0
    journal_sequence: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    sha256: str = ""
    file: str = ""
    chunks: tuple[str, ...] = ()
    added: int = 0

    @property
    def ordinal(self) -> int:
        return int(self.id)

    @property
    def reference(self) -> str:
        """What restores it: `hash@@step=N`."""
        return f"{self.experiment_hash}@@step={self.step}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "chunks": list(self.chunks)}


class CheckpointCatalogue:
    """The checkpoints of one run. Usable from several threads; another process sees changes at its next call."""

    def __init__(self, folder: Path | str) -> None:
        """folder: the run's `checkpoints`, created at the first `add`."""
        self.folder = Path(folder)
        self.shared = ChunkStore(self.folder / SHARED)
        self._guard = threading.RLock()
        # Of its own: the trainer asks for ids, and must not wait while the background holds the other for a disk.
        self._id_guard = threading.Lock()
        self._known: dict[str, CheckpointRecord | None] = {}
        self._last = 0

    def list(self) -> list[CheckpointRecord]:
        """All of them, oldest first. A manifest that cannot be read is left out, with a warning in the log."""
        with self._guard:
            found = {match[1] for name in self._names() if (match := _MANIFEST.fullmatch(name))}
            for gone in self._known.keys() - found:
                del self._known[gone]
            for checkpoint_id in found - self._known.keys():
                self._known[checkpoint_id] = self._load_or_warn(checkpoint_id)
            records = [record for record in self._known.values() if record is not None]
        return sorted(records, key=lambda record: record.ordinal)

    def get(self, checkpoint_id: str) -> CheckpointRecord:
        """The checkpoint of that id. Raises NotFound."""
        for record in self.list():
            if record.id == checkpoint_id:
                return record
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}{self._there_are()}")

    def resolve(self, reference: str) -> tuple[CheckpointRecord, bool]:
        """The checkpoint that a reference means, the newest where several fit, and whether only its weights are wanted.

        reference: `hash` (its latest), `hash@@step=N`, `hash@@weights_step=N` (weights only), or an id, which may
        also stand for the hash. Raises Invalid for anything else, NotFound when there is none.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None or not _HASH.fullmatch(match["hash"]):
            raise Invalid(
                f"{reference!r} names no checkpoint; right are hash, hash@@step=N, hash@@weights_step=N, or an id"
            )
        records = self.list()
        if match["kind"] is None:
            for record in records:
                if record.id == reference:
                    return record, False
        # Two branches may have the same hash at the same step; an id in its place says which one is meant.
        fitting = [record for record in records if match["hash"] in (record.experiment_hash, record.id)]
        if not fitting:
            raise NotFound(f"there is no checkpoint of {match['hash']!r}{self._there_are()}")
        if match["kind"] is None:
            return fitting[-1], False
        step = int(match["step"])
        at_step = [record for record in fitting if record.step == step]
        if not at_step:
            steps = ", ".join(str(number) for number in sorted({record.step for record in fitting})[-10:])
            raise NotFound(f"{match['hash']} has no checkpoint at step {step}; it has steps {steps}")
        return at_step[-1], match["kind"] == "weights_step"

    def next_id(self) -> str:
        """An id that was never given out: one above every file there is or was. Each call gives another one."""
        with self._id_guard:
            self._last = max(self._last, self._highest()) + 1
            return f"{self._last:06d}"

    def path(self, checkpoint_id: str) -> Path:
        """Where the trainer writes or reads a checkpoint's file. Raises Invalid for what is no id."""
        if not _ID.fullmatch(checkpoint_id):
            raise Invalid(f"{checkpoint_id!r} is no checkpoint id; ids have 6 to 12 digits")
        return self.folder / f"{checkpoint_id}.pt"

    def add(self, record: CheckpointRecord) -> CheckpointRecord:
        """Write the manifest of a checkpoint whose file and shared content are already whole on the disk; the record as
        it is kept.

        bytes, added, sha256 and file are filled in from the file where the record leaves them empty. Raises Invalid for
        a bad or known id, StorageError without the file or the content, or when the disk refuses.
        """
        path = self.path(record.id)
        if record.file not in ("", path.name):
            raise Invalid(f"the file of checkpoint {record.id} is {path.name}, not {record.file!r}")
        try:
            size = path.stat().st_size
        except OSError as error:
            raise StorageError(f"checkpoint {record.id} has no file {path}: {error.strerror or error}") from error
        missing = [name for name in record.chunks if not self.shared.holds(name)]
        if missing:
            raise StorageError(f"checkpoint {record.id} needs {missing[0]}, which is not in {self.shared.folder}")
        whole = replace(
            record,
            file=path.name,
            bytes=record.bytes or size,
            added=record.added or size,
            sha256=record.sha256 or sha256_of(path),
        )
        with self._guard:
            if self._manifest(record.id).exists():
                raise Invalid(f"there is a checkpoint {record.id} already; take ids from next_id()")
            make_folder(self.folder)
            write_atomically(self._manifest(record.id), _encode(whole))
            self._known[record.id] = whole
        return whole

    def verify(self, record: CheckpointRecord) -> bool:
        """Whether the file and the shared content are there and as they were written. Reads all of it."""
        return self.verify_file(record) and all(self.shared.is_whole(name) for name in record.chunks)

    def verify_file(self, record: CheckpointRecord) -> bool:
        """Whether the file has the checksum of the manifest. Whoever reads the shared content checks that."""
        try:
            return sha256_of(self.folder / record.file) == record.sha256
        except StorageError:
            return False

    def newest_whole(self) -> CheckpointRecord | None:
        """The newest checkpoint whose file is as it was written; broken ones are passed over, with a warning logged."""
        for record in reversed(self.list()):
            if self.verify(record):
                return record
            _log.warning("passed over checkpoint %s: %s is missing or broken", record.id, self.folder / record.file)
        return None

    def remove(self, checkpoint_id: str) -> None:
        """Remove a checkpoint, manifest first; `collect` removes the content that nobody else shares. Raises NotFound,
        StorageError when the disk refuses."""
        with self._guard:
            record = self.get(checkpoint_id)
            self._remember_highest(record.ordinal)
            try:
                self._manifest(record.id).unlink()
                self._known.pop(record.id, None)
                (self.folder / record.file).unlink(missing_ok=True)
                sync_folder(self.folder)
            except OSError as error:
                raise StorageError(f"cannot remove checkpoint {record.id}: {error.strerror or error}") from error

    def apply_retention(self, rule: KeepCheckpoints, needed: frozenset[str] = frozenset()) -> builtins.list[str]:
        """Remove what the rule does not keep, but for the ids that are needed, and the content that only those had; the
        ids that went."""
        with self._guard:
            gone = rule.going(self.list(), needed)
            for checkpoint_id in gone:
                self.remove(checkpoint_id)
        if gone:
            self.collect()
        return gone

    def collect(self) -> int:
        """Remove content that no manifest names, and files without a manifest: of checkpoints that were removed, or
        that a killed process was writing. How many bytes went. For the one thread that writes checkpoints, when it
        writes none. While there is a manifest that cannot be read nothing is removed, since it may name anything.
        """
        with self._guard:
            self.list()
            unread = sorted(checkpoint_id for checkpoint_id, record in self._known.items() if record is None)
            if unread:
                _log.warning("nothing is cleared away in %s: %s.json cannot be read", self.folder, unread[0])
                return 0
            records = [record for record in self._known.values() if record is not None]
            freed = 0
            for name in self._names():
                match = _ANY_FILE.fullmatch(name)
                if match is not None and match[1] not in self._known:
                    freed += self._remove_stray(match[1], self.folder / name)
            live = {name for record in records for name in record.chunks}
        return freed + self.shared.collect(live)

    def _remove_stray(self, checkpoint_id: str, path: Path) -> int:
        self._remember_highest(int(checkpoint_id))
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror or error}") from error
        return size

    def _names(self) -> builtins.list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self.folder}: {error.strerror or error}") from error

    def _manifest(self, checkpoint_id: str) -> Path:
        return self.folder / f"{checkpoint_id}.json"

    def _load_or_warn(self, checkpoint_id: str) -> CheckpointRecord | None:
        path = self._manifest(checkpoint_id)
        try:
            return _decode(path, checkpoint_id)
        except GrayboxError as error:
            _log.warning("left out a checkpoint: %s", error)
            return None

    def _highest(self) -> int:
        highest = max((int(match[1]) for name in self._names() if (match := _ANY_FILE.fullmatch(name))), default=0)
        try:
            return max(highest, int(json.loads((self.folder / _LAST_NAME).read_bytes())["last"]))
        except FileNotFoundError:
            return highest
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read (%s); ids go on from %d", self.folder / _LAST_NAME, error, highest)
            return highest

    def _remember_highest(self, ordinal: int) -> None:
        """So that the id of a removed checkpoint, which the journal may name, is never given out again."""
        if ordinal >= self._highest():
            value = {"format_version": FORMAT_VERSION, "last": ordinal}
            write_atomically(self.folder / _LAST_NAME, json.dumps(value).encode())

    def _there_are(self) -> str:
        ids = [record.id for record in self.list()]
        if not ids:
            return "; this run has none yet"
        return f"; the newest is {ids[-1]}"


def _encode(record: CheckpointRecord) -> bytes:
    try:
        text = json.dumps({"format_version": FORMAT_VERSION, **record.to_json()}, indent=2)
    except (TypeError, ValueError) as error:
        raise Invalid(f"the manifest of checkpoint {record.id} cannot hold this: {error}") from None
    return text.encode() + b"\n"


def _decode(path: Path, checkpoint_id: str) -> CheckpointRecord:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, Mapping) or value.get("format_version") not in READABLE:
        raise StorageError(f"{path} is no checkpoint manifest of format version {READABLE[0]} to {READABLE[-1]}")
    fields = {key: item for key, item in value.items() if key != "format_version"}
    try:
        record = CheckpointRecord(**{**fields, "chunks": tuple(fields.get("chunks", ()))})
    except TypeError as error:
        raise StorageError(f"{path} is broken: {error}") from None
    if record.id != checkpoint_id or record.file != f"{checkpoint_id}.pt":
        raise StorageError(f"{path} is broken: it describes checkpoint {record.id!r}, file {record.file!r}")
    return record
