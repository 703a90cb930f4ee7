"""Serves the runs of a root directory that have ended, over the same wire as a live backend. Free of torch.

    python -m graybox.service.archive --root_directory DIR [--port 0]

A dashboard starts it as a child when no backend runs. When it is ready it prints one line of JSON to stdout with the
fields of backend.json ("address", "control_token", "watch_token", "pid", "run_id", "started_ms", "tls") and "token",
which is the control token. It ends when its stdin is closed, so that it never outlives its parent.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from graybox.errors import GrayboxError
from graybox.service.server import RunningServer, serve_archive
from graybox.service.settings import Settings, settings_from_environment
from graybox.store.root import Root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until stdin closes; 0, or 2 with one line on stderr when it could not start."""
    parser = argparse.ArgumentParser(prog="python -m graybox.service.archive", description="Serves runs from disk.")
    parser.add_argument("--root_directory", required=True, help="the root directory of the experiment")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 (the default) picks a free one")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        # Of the environment only the message size counts: host, tokens and TLS are meant for a live backend, and
        # this server talks to its parent alone.
        size = settings_from_environment({k: v for k, v in os.environ.items() if k == "GRPC_MAX_MESSAGE_BYTES"})
        root = Root(options.root_directory, read_only=True)
        running = serve_archive(root, Settings(port=options.port, max_message_bytes=size.max_message_bytes))
    except GrayboxError as error:
        print(f"graybox archive: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _leave)
    try:
        print(json.dumps(_line(running, root)), flush=True)
        _wait_for_end_of_stdin()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        running.stop(grace=0.5)
    return 0


def _line(running: RunningServer, root: Root) -> dict[str, object]:
    newest = root.latest_run()
    return {
        "address": running.address,
        "token": running.tokens.control[0],
        "control_token": running.tokens.control[0],
        "watch_token": running.tokens.watch[0],
        "pid": os.getpid(),
        "run_id": newest.run_id if newest is not None else "",
        "started_ms": time.time_ns() // 1_000_000,
        "tls": False,
    }


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_for_end_of_stdin() -> None:
    """Whatever is written is ignored. A closed descriptor counts as the end too."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
