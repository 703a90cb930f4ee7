"""`graybox replay`: goes through a run again from its beginning, and says whether it came to the same weights."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graybox.cli.arguments import report
from graybox.cli.experiment_file import DEFAULT_MODULE, UserCodeFailed, load_experiment
from graybox.errors import GrayboxError, StorageError

DIFFERENT = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox replay",
        description="Goes through a run again: the same experiment and seed, and every intervention of its journal at "
        "its step. Compares the weights with each checkpoint that the run still has, bit for bit.",
    )
    made.add_argument("root_directory", metavar="ROOT", help="where the run is kept")
    made.add_argument("--run", default="", metavar="RUN_ID", help="which run (default: the newest)")
    made.add_argument(
        "--experiment", metavar="FILE.py[:FUNCTION]", help="what it trained (default: handwritten digits)"
    )
    made.add_argument("--to", metavar="DIR", help="where to keep the new run (default: nowhere)")
    made.add_argument(
        "--script", metavar="FILE.py", help="write the session as a Python script instead of going through it"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Answers the exit code: 0 for the same bits, 1 for others, 2 when it could not be gone through."""
    arguments = parser().parse_args(argv)
    try:
        return write(arguments) if arguments.script else follow(arguments)
    except UserCodeFailed as failure:
        sys.stderr.write(failure.trace)
        return report("replay", failure)
    except GrayboxError as error:
        return report("replay", error)


def write(arguments: argparse.Namespace) -> int:
    """The session as a script."""
    from graybox.replay import Source, find_run
    from graybox.session_script import session_script, write_script

    source = Source(find_run(arguments.root_directory, arguments.run))
    experiment = arguments.experiment or _default_file()
    path = Path(arguments.script)
    try:
        write_script(path, session_script(source, experiment, arguments.to or "replayed"))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    print(f"{path}: {len(source.entries):,} interventions of run {source.run.run_id}")
    return 0


def follow(arguments: argparse.Namespace) -> int:
    """Go through it, and say how it went."""
    from graybox.replay import Replay, Source, check_new_root, find_run

    source = Source(find_run(arguments.root_directory, arguments.run))
    if arguments.to:
        check_new_root(Path(arguments.root_directory), Path(arguments.to))
    with tempfile.TemporaryDirectory() as nowhere:
        root = Path(arguments.to or nowhere)
        experiment = load_experiment(arguments.experiment, root)
        replay = Replay(source, experiment, root)
        try:
            found = replay.follow(print)
        finally:
            replay.close()
    different = [each for each in found.compared if each.differs]
    where = f"; kept as {found.run_id} in {root}" if arguments.to else ""
    print(f"Went through {found.entries:,} interventions to step {found.step:,}{where}.")
    if different:
        first = different[0]
        print(f"It differs from checkpoint {first.checkpoint} (step {first.step:,}) on, first in {first.differs}.")
        return DIFFERENT
    if found.left_out:
        print(f"Not compared, being broken or of another moment: checkpoints {', '.join(found.left_out)}.")
    if not found.identical:
        print("There was nothing to compare but the first checkpoint, with which a replay begins.")
        return DIFFERENT
    print(f"The weights are bit for bit those of {len(found.compared) - 1:,} further checkpoints of the run.")
    return 0


def _default_file() -> str:
    found = importlib.util.find_spec(DEFAULT_MODULE)
    assert found is not None and found.origin is not None
    return found.origin
