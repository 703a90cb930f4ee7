"""The `graybox` command: picks the verb and hands it the rest of the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from graybox import __version__

VERBS = {
    "demo": "backend and dashboard on the default experiment, in one go",
    "backend": "train an experiment and serve it",
    "dashboard": "show the runs of a root directory in the browser",
    "export": "write what a query finds among samples as CSV, JSON lines, Parquet or a manifest",
    "export-model": "write the network of a checkpoint to a file that is used without Graybox",
    "diff": "tell what differs between two runs or checkpoints",
    "compare-steps": "name the first step at which two runs differ, and of what",
    "journal": "what was done to a run, as CSV or JSON lines",
    "replay": "go through a run again from its beginning, or write it as a script",
}


def usage() -> str:
    """What `graybox --help` prints."""
    verbs = "\n".join(f"  graybox {verb:<13} {purpose}" for verb, purpose in VERBS.items())
    about = f"Graybox {__version__}: watch and steer training while it runs."
    return f"{about}\n\n{verbs}\n\n`graybox VERB --help` tells more."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. argv: without the program's name, by default the process's own. Answers the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in {"-h", "--help"}:
        print(usage())
        return 0
    if verb == "--version":
        print(f"graybox {__version__}")
        return 0
    if verb not in VERBS:
        print(f"graybox: there is no verb {verb!r}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    # Only the verb that was asked for is loaded: the demo starts its two processes without torch and grpc.
    code: int = importlib.import_module(f"graybox.cli.{verb.replace('-', '_')}").main(arguments[1:])
    return code
