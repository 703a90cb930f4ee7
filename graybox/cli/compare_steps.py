"""`graybox compare-steps`: the first step at which two runs differ, and of what."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from graybox.cli.arguments import report
from graybox.cli.printing import print_whole
from graybox.errors import GrayboxError

DIFFERENT = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox compare-steps",
        description="Names the first step at which two runs differ, and of what: data order, data content, random "
        "state, weights or operator. Both were trained with GRAYBOX_FINGERPRINTS=1 in the environment. Only reads; a "
        "run may train meanwhile.",
        epilog="A and B are each ROOT or ROOT/RUN: a root directory (its newest run), or a run's folder.",
    )
    made.add_argument("a", metavar="A")
    made.add_argument("b", metavar="B")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what differs first. Answers the exit code: 0 for nothing, 1 for something, 2 where it cannot be told."""
    arguments = parser().parse_args(argv)
    try:
        from graybox.comparison.steps import compare_steps  # NumPy, which --help does not need
        from graybox.comparison.steps_report import steps_report

        found = compare_steps(arguments.a, arguments.b)
    except GrayboxError as error:
        return report("compare-steps", error)
    print_whole(json.dumps(found.to_json(), indent=2) if arguments.json else steps_report(found).rstrip("\n"))
    return 0 if found.first is None else DIFFERENT
