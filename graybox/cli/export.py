"""`graybox export`: what a query finds among the samples of a run, as a file."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from graybox.cli.arguments import report
from graybox.errors import GrayboxError, Invalid, NotFound, StorageError
from graybox.store.files import write_atomically
from graybox.store.root import Root
from graybox.store.runs import RunFolder
from graybox.store.sample_export import FORMATS, Export, Origin, check_format, export_samples, find
from graybox.store.sample_table import SampleTable
from graybox.store.samples import SampleStore


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox export",
        description="Writes what a query finds among the samples of a run, live or ended, to a file.",
    )
    made.add_argument("root_directory", metavar="ROOT", help="where the run is kept")
    made.add_argument("--run", default="", metavar="RUN_ID", help="which run (default: the newest)")
    made.add_argument("--query", default="", metavar="QUERY", help="which samples, in which order (default: all)")
    made.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="csv",
        help="default: csv; a manifest is what plain PyTorch needs to train on the samples",
    )
    made.add_argument(
        "--columns", default="", metavar="A,B", help="names of columns, and tag:NAME, as a line of CSV (default: all)"
    )
    made.add_argument("--output", metavar="FILE", help="default: the terminal, but for parquet")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Answers the exit code: 0, or 2 when it could not be read or written; no file is written then."""
    arguments = parser().parse_args(argv)
    try:
        root = Root(arguments.root_directory, read_only=True)
        run = root.run(arguments.run) if arguments.run else root.latest_run()
        if run is None:
            raise NotFound(f"there is no run in {root.path}")
        if arguments.format == "parquet" and arguments.output is None:
            raise Invalid("a parquet file is nothing to be shown; say where it goes by --output FILE")
        columns = next(csv.reader([arguments.columns]), [])
        made = export(run, arguments.query, arguments.format, columns)
        if arguments.output is None:
            _write(made, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return 0
        try:
            write_atomically(Path(arguments.output), lambda file: _write(made, file))
        except OSError as error:  # where a name is none
            raise StorageError(f"cannot write {arguments.output}: {error.strerror or error}") from error
        print(f"{arguments.output}: {made.total_rows:,} samples of run {run.run_id}")
    except BrokenPipeError:
        # Whoever reads has had enough; what Python would still flush has nobody to go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except GrayboxError as error:
        return report("export", error)
    return 0


def export(run: RunFolder, query: str = "", kind: str = "csv", columns: Sequence[str] = ()) -> Export:
    """What a query finds among the samples of a run, as far as they are on disk. Raises GrayboxError."""
    check_format(kind, columns)
    record = run.record
    store = SampleStore(run.path, read_only=True)
    table = SampleTable(list(store.splits.values()), [str(name) for name in record.get("class_names") or ()])
    text, found = find(query, table)
    # A backend that trains writes run.json now and then: the samples may be some steps further.
    step, age, branch = (int(record.get(name) or 0) for name in ("step", "age", "branch"))
    return export_samples(table, found, text, Origin(run.run_id, step, age, branch), kind, columns)


def _write(made: Export, file: BinaryIO) -> None:
    for part in made.parts:
        file.write(part)
