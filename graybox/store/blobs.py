"""Arrays that belong to a journal entry, named by their content: written once, checked on every read."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.files import make_folder, write_atomically

_HASH = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """A folder of `<sha256>.npz` files, readable by `numpy.load`. Usable from several threads."""

    def __init__(self, folder: Path | str) -> None:
        """folder: created at the first `put`."""
        self.folder = Path(folder)

    def put(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
        """Store named arrays; the SHA-256 of the file's bytes, equal for equal names, types, shapes and values.

        On the disk before it returns. Raises Invalid for arrays of Python objects, StorageError when it cannot be
        written.
        """
        content = _pack(arrays)
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        if not _holds(path, digest):
            make_folder(self.folder)
            write_atomically(path, content)
        return digest

    def get(self, digest: str) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays by name. Raises NotFound for an unknown hash, StorageError when the file is broken."""
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None
        except OSError as error:
            raise StorageError(f"cannot read the blob {path}: {error.strerror or error}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise StorageError(f"the blob {path} is broken: its content does not fit its name")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def _path(self, digest: str) -> Path:
        if not _HASH.fullmatch(digest):
            raise NotFound(f"{digest!r} names no blob; a name has 64 hexadecimal digits")
        return self.folder / f"{digest}.npz"


def _pack(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """An .npz with sorted names and no clock in it: equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.hasobject:
                raise Invalid(f"blob array {name!r} holds Python objects; only plain numbers, bools and text are kept")
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def _holds(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot read the blob {path}: {error.strerror or error}") from error
