"""Works out a snapshot of samples from the one of before and the logs since, in a process of its own, so that training
keeps its interpreter.

    python -m graybox.store.compact FOLDER FIRST_LOG TARGET PARENT

FOLDER is the run's. What samples-<n>.log say with n below FIRST_LOG is added to what samples.h5 says, and the whole is
written to TARGET, which nobody reads yet. It prints one line of JSON with "bytes", the size of TARGET, and ends with 0;
PARENT, the process that asks, then puts TARGET into the place of samples.h5. It ends with 1 and a line on stderr when
it could not, and whenever the process PARENT is gone. It gives way to whatever else wants the processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from graybox.errors import GrayboxError
from graybox.store.sample_log_files import SampleLogFiles
from graybox.store.sample_snapshot import check_snapshot, image_of, read_snapshot, write_snapshot

_NICE = 10
_LOOKS_EVERY = 0.5
"""Seconds."""


def compact(files: SampleLogFiles, first_log: int, target: Path) -> None:
    """Write to `target` what the snapshot and the logs below `first_log` say. Raises StorageError for broken files and
    when the disk refuses; nothing is at `target` then."""
    splits, first = read_snapshot(files.snapshot)
    for number in files.numbers():
        if first <= number < first_log:
            files.replay(number, splits)
    write_snapshot(target, [image_of(columns) for columns in splits], first_log)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m graybox.store.compact", description="Compacts a run's samples.")
    parser.add_argument("folder", type=Path, help="the run's")
    parser.add_argument("first_log", type=int, help="the first log that is left out")
    parser.add_argument("target", type=Path, help="where the snapshot is written")
    parser.add_argument("parent", type=int, help="the process that asks")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    os.nice(_NICE)
    threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    try:
        compact(SampleLogFiles(options.folder, read_only=False), options.first_log, options.target)
        check_snapshot(options.target)
        print(json.dumps({"bytes": options.target.stat().st_size}), flush=True)
    except (GrayboxError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _end_with(parent: int) -> None:
    """A process whose parent is gone has another one."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
