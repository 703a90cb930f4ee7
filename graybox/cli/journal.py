"""`graybox journal`: what was done to a run, as CSV or JSON lines."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from graybox.cli.arguments import report
from graybox.errors import GrayboxError, NotFound, StorageError
from graybox.store.files import write_atomically
from graybox.store.journal import Journal, JournalEntry
from graybox.store.journal_table import write_journal_table
from graybox.store.root import Root


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox journal", description="Every intervention of a run, live or ended, with who did it and when."
    )
    made.add_argument("root_directory", metavar="ROOT", help="where the run is kept")
    made.add_argument("--run", default="", metavar="RUN_ID", help="which run (default: the newest)")
    made.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    made.add_argument("--output", metavar="FILE", help="default: the terminal")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Answers the exit code: 0, or 2 when it could not be read or written."""
    arguments = parser().parse_args(argv)
    try:
        root = Root(arguments.root_directory, read_only=True)
        run = root.run(arguments.run) if arguments.run else root.latest_run()
        if run is None:
            raise NotFound(f"there is no run in {root.path}")
        entries = Journal(run.path / "journal.jsonl", read_only=True).entries()
        with _opened(arguments.output) as file:
            count = write_journal_table(entries, file) if arguments.format == "csv" else _write_lines(entries, file)
        if arguments.output:
            print(f"{arguments.output}: {count:,} interventions of run {run.run_id}")
    except BrokenPipeError:
        # Whoever reads has had enough; what Python would still flush has nobody to go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except GrayboxError as error:
        return report("journal", error)
    return 0


def _write_lines(entries: list[JournalEntry], file: TextIO) -> int:
    for entry in entries:
        file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
    return len(entries)


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[TextIO]:
    """The terminal, or a file that is there whole or not at all."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    content = io.StringIO(newline="")
    yield content
    try:
        write_atomically(Path(path), content.getvalue().encode())
    except StorageError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
