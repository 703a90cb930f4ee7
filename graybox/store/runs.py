"""One run's folder and what run.json tells about it."""

from __future__ import annotations

import copy
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.files import write_atomically

FORMAT_VERSION = 1
RECORD_NAME = "run.json"


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Branch:
    """A line of history within a run. parent: the branch it left, -1 for the first; fork_step, fork_age: where. name,
    note: people's."""

    branch: int
    parent: int = -1
    fork_step: int = 0
    fork_age: int = 0
    name: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        # Without a note as versions that know of none wrote it, and read it.
        return {key: value for key, value in asdict(self).items() if key != "note" or value}


def new_record(run_id: str, name: str) -> dict[str, Any]:
    """What run.json holds at a run's beginning."""
    now = now_ms()
    return {
        "format_version": FORMAT_VERSION,
        "run_id": run_id,
        "name": name,
        "created_ms": now,
        "updated_ms": now,
        "state": "starting",
        "step": 0,
        "age": 0,
        "branch": 0,
        "branches": [Branch(0).to_json()],
        "class_names": [],
        "metrics": {},
    }


class RunFolder:
    """A run on disk. Any number of readers, in any process; `update` by the run's backend only, from any thread."""

    def __init__(self, path: Path | str) -> None:
        """path: the run's folder, with a run.json. Raises NotFound without one, StorageError for a broken one."""
        self.path = Path(path)
        self._guard = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._record: dict[str, Any] = {}
        self._refresh()

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def record(self) -> dict[str, Any]:
        """A copy of run.json as it is now, read anew when the file has changed."""
        with self._guard:
            self._refresh()
            return copy.deepcopy(self._record)

    @property
    def branches(self) -> list[Branch]:
        """All branches, by number."""
        found = (_branch_from_json(self.path, value) for value in self.record["branches"])
        return sorted(found, key=lambda branch: branch.branch)

    def update(self, **changes: Any) -> None:
        """Change fields of run.json (values that JSON can hold), atomically; updated_ms follows by itself.

        Raises Invalid for a value that JSON cannot hold or a field that never changes, StorageError when the disk
        refuses; nothing is changed then.
        """
        fixed = {"format_version", "run_id", "created_ms"} & set(changes)
        if fixed:
            raise Invalid(f"{', '.join(sorted(fixed))} of a run cannot be changed")
        with self._guard:
            self._refresh()
            self._write({**self._record, "updated_ms": now_ms(), **changes})

    def add_branch(self, parent: int, fork_step: int, fork_age: int, name: str = "") -> Branch:
        """Add the next branch, leaving `parent` at a step and age; written before it returns."""
        with self._guard:
            self._refresh()
            known = [value["branch"] for value in self._record["branches"]]
            if parent not in known:
                raise NotFound(f"run {self.run_id} has no branch {parent}; it has {known}")
            branch = Branch(max(known) + 1, parent, fork_step, fork_age, name)
            branches = [*self._record["branches"], branch.to_json()]
            self._write({**self._record, "updated_ms": now_ms(), "branches": branches})
        return branch

    def change_branch(self, number: int, *, name: str | None = None, note: str | None = None) -> Branch:
        """Give a branch another name or note (None leaves it), written before it returns; the branch as it was. Raises
        NotFound, StorageError when the disk refuses."""
        with self._guard:
            self._refresh()
            branches = [_branch_from_json(self.path, value) for value in self._record["branches"]]
            before = next((branch for branch in branches if branch.branch == number), None)
            if before is None:
                raise NotFound(f"run {self.run_id} has no branch {number}; it has {[b.branch for b in branches]}")
            after = replace(
                before, name=before.name if name is None else name, note=before.note if note is None else note
            )
            told = [(after if branch is before else branch).to_json() for branch in branches]
            self._write({**self._record, "updated_ms": now_ms(), "branches": told})
        return before

    def _write(self, record: dict[str, Any]) -> None:
        try:
            text = json.dumps(record, indent=2)
        except (TypeError, ValueError) as error:
            raise Invalid(f"run.json cannot hold this: {error}") from None
        write_atomically(self.path / RECORD_NAME, text.encode() + b"\n")
        self._refresh()

    def _refresh(self) -> None:
        path = self.path / RECORD_NAME
        try:
            status = os.stat(path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"{self.path} holds no run: there is no {RECORD_NAME}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise StorageError(f"{path} is broken: {error}") from None
        _check(path, record)
        self._record, self._seen = record, seen


def create_run_folder(path: Path, name: str) -> RunFolder:
    """A new folder with its run.json. Raises FileExistsError when the path is taken, StorageError naming it."""
    try:
        path.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageError(f"cannot create the run folder {path}: {error.strerror or error}") from error
    write_atomically(path / RECORD_NAME, json.dumps(new_record(path.name, name), indent=2).encode() + b"\n")
    return RunFolder(path)


def _check(path: Path, record: object) -> None:
    if not isinstance(record, dict):
        raise StorageError(f"{path} is broken: it holds no JSON object")
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise StorageError(f"{path} has format version {version}; this version of Graybox reads {FORMAT_VERSION}")
    wanted = {"created_ms": int, "name": str, "state": str, "branches": list}
    for key, kind in wanted.items():
        if not isinstance(record.get(key), kind):
            raise StorageError(f"{path} is broken: {key!r} is missing or of the wrong type")


def _branch_from_json(path: Path, value: Mapping[str, Any]) -> Branch:
    try:
        return Branch(**value)
    except TypeError as error:
        raise StorageError(f"{path / RECORD_NAME} is broken: a branch {value!r}: {error}") from None
