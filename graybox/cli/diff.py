"""`graybox diff`: two runs or checkpoints side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from graybox.cli.arguments import report
from graybox.cli.printing import print_whole
from graybox.comparison.place import HELP
from graybox.errors import GrayboxError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox diff",
        description="Tells what differs between two runs or checkpoints: hyper-parameters, structure, the neurons that "
        "moved most, metrics, and samples that came out otherwise. Only reads; a run may train meanwhile.",
        epilog=f"A and B are each ROOT or ROOT/RUN: {HELP}.",
    )
    made.add_argument("a", metavar="A")
    made.add_argument("b", metavar="B")
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument("--top", type=whole, default=20, metavar="N", help="neurons and samples to name (default: 20)")
    return made


def whole(text: str) -> int:
    """An argparse type: a whole number of 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what differs. Answers the exit code: 0, or 2 where one of the two cannot be read."""
    arguments = parser().parse_args(argv)
    try:
        from graybox.comparison.report import report as as_text  # these load torch, which --help does not need
        from graybox.comparison.runs import compare

        found = compare(arguments.a, arguments.b, arguments.top)
    except GrayboxError as error:
        return report("diff", error)
    print_whole(json.dumps(found.to_json(), indent=2) if arguments.json else as_text(found).rstrip("\n"))
    return 0
