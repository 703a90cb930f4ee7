"""The root directory: runs beside each other, one backend at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from pathlib import Path
from types import TracebackType

from graybox.errors import GrayboxError, NotFound, Refused, StorageError
from graybox.store.files import make_folder, remove_leftovers, sync_folder
from graybox.store.runs import RunFolder, create_run_folder

_log = logging.getLogger(__name__)

LOCK_NAME = ".graybox.lock"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RootLock:
    """Held until `release`, the end of the `with` block, or the end of the process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another backend in. More than once is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RootLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Root:
    """A root directory and the runs in it."""

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        """path: created where missing, with its parents; `~` is the home folder.
        read_only: never create or write anything; a folder that is missing has no runs.

        Raises StorageError naming the path when it cannot be created or written.
        """
        self.path = Path(path).expanduser().absolute()
        self.read_only = read_only
        if read_only:
            return
        make_folder(self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StorageError(f"the root directory {self.path} cannot be written; choose another or allow writing")

    def lock(self) -> RootLock:
        """Become the one backend of this root. Also clears away temporary files of processes that were killed.

        Raises Refused naming the other backend's process id when there is one.
        """
        path = self.path / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"cannot open the lock {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise Refused(
                f"another backend (process {owner}) works in {self.path}; stop it or choose another root directory"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageError(f"cannot lock {path}: {error.strerror or error}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._remove_leftovers()
        return RootLock(descriptor)

    def create_run(self, name: str) -> RunFolder:
        """A new run's folder, named by local time, the name and four random digits. Raises StorageError."""
        if self.read_only:
            raise Refused(f"the root directory {self.path} was opened for reading only")
        while True:
            run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{_slug(name)}-{secrets.token_hex(2)}"
            try:
                run = create_run_folder(self.path / run_id, name)
            except FileExistsError:
                continue
            with contextlib.suppress(OSError):
                sync_folder(self.path)
            return run

    def runs(self) -> list[RunFolder]:
        """All runs, the oldest first. A folder whose run.json is broken is left out, with a warning in the log."""
        found: list[tuple[int, str, RunFolder]] = []
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read the root directory {self.path}: {error.strerror or error}") from error
        for name in names:
            if not _RUN_ID.fullmatch(name) or not (self.path / name).is_dir():
                continue
            try:
                run = RunFolder(self.path / name)
                found.append((int(run.record["created_ms"]), name, run))
            except NotFound:
                continue
            except GrayboxError as error:
                _log.warning("left out a run: %s", error)
        return [run for _, _, run in sorted(found, key=lambda item: item[:2])]

    def run(self, run_id: str) -> RunFolder:
        """The run of that id. Raises NotFound for anything else, a path among it; StorageError for a broken one."""
        if not _RUN_ID.fullmatch(run_id) or not (self.path / run_id).is_dir():
            raise NotFound(f"there is no run {run_id!r} in {self.path}")
        return RunFolder(self.path / run_id)

    def latest_run(self) -> RunFolder | None:
        """The youngest run; None where there is none."""
        runs = self.runs()
        return runs[-1] if runs else None

    def _remove_leftovers(self) -> None:
        remove_leftovers(self.path)
        for run in self.runs():
            for folder in (run.path, run.path / "checkpoints", run.path / "blobs"):
                remove_leftovers(folder)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "run"
