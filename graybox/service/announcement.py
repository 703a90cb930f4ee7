"""backend.json: where the live backend of a root is and how to talk to it, for a dashboard on the same machine."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from graybox.service.security import Tokens
from graybox.store.files import write_atomically

FILE_NAME = "backend.json"


class Announcement:
    """The file, readable by its owner only, for as long as the server runs."""

    def __init__(self, folder: Path, *, address: str, tokens: Tokens, run_id: str, tls: bool) -> None:
        """folder: the root directory; address: "host:port" that a client on this machine reaches."""
        self._path = folder / FILE_NAME
        self._content: dict[str, Any] = {
            "address": address,
            "control_token": tokens.control[0],
            "watch_token": tokens.watch[0],
            "pid": os.getpid(),
            "run_id": run_id,
            "started_ms": time.time_ns() // 1_000_000,
            "tls": tls,
        }

    def publish(self) -> None:
        """Writes the file, over one that a killed backend left behind. Raises StorageError when that fails."""
        write_atomically(self._path, json.dumps(self._content, indent=2).encode() + b"\n", mode=0o600)

    def withdraw(self) -> None:
        """Removes the file, unless another backend has written its own since."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._path.read_bytes()) == self._content:
                self._path.unlink()
