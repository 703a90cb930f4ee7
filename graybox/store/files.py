"""Writing files so that a reader, or a restart after `kill -9` or a power cut, finds old or new, never half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from graybox.errors import StorageError

_LEFTOVER = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")


def write_atomically(
    path: Path | str,
    content: bytes | memoryview | Callable[[BinaryIO], None],
    mode: int = 0o644,
    *,
    sync_name: bool = True,
) -> None:
    """Write a whole file: temporary file beside it, fsync, rename over it, fsync of the folder.

    content: the bytes, or a function that writes them into the open binary file it is given (which can seek and read).
    mode: the permissions, exactly; the temporary file has them from the start. sync_name: False leaves the fsync of the
    folder to the caller, who writes many files into it.

    Raises StorageError naming the path when the disk refuses; the old file, if any, is then untouched. What `content`
    raises comes through as it is.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                os.fchmod(file.fileno(), mode)
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if sync_name:
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path | str) -> None:
    """Make names that were created, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path | str) -> Path:
    """The folder, created with its parents where missing. Raises StorageError naming it."""
    folder = Path(folder)
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"cannot create the folder {folder}: {error.strerror or error}") from error
    return folder


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises StorageError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def remove_leftovers(folder: Path | str) -> int:
    """Remove temporary files of processes that are gone, killed in the middle of `write_atomically`; how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _LEFTOVER.fullmatch(name)
            if match is None or _is_alive(int(match[1])):
                continue
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
                removed += 1
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
