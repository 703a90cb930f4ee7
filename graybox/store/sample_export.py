"""What a query finds, as a file: CSV, JSON lines, Parquet, or a manifest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, NotFound
from graybox.store.export_columns import ExportColumn, exported, exported_tag
from graybox.store.export_parquet import parquet_parts
from graybox.store.export_text import csv_parts, json_line_parts
from graybox.store.query import QueryError, check, parse, rows
from graybox.store.query.query_error import nearest
from graybox.store.sample_manifest import kept_rows, manifest_parts
from graybox.store.sample_query import Selection
from graybox.store.sample_table import SampleTable

MANIFEST = "manifest"
TAG = "tag:"
MAX_COLUMNS = 2_000


@dataclass(frozen=True)
class Format:
    """mime_type: of the file. ending: of its name."""

    mime_type: str
    ending: str


FORMATS = {
    "csv": Format("text/csv", "samples.csv"),
    "jsonl": Format("application/x-ndjson", "samples.jsonl"),
    "parquet": Format("application/vnd.apache.parquet", "samples.parquet"),
    MANIFEST: Format("application/json", "manifest.json"),
}


@dataclass(frozen=True)
class Origin:
    """Where samples come from: the run, and where it stands."""

    run_id: str
    step: int = 0
    age: int = 0
    branch: int = 0


@dataclass(frozen=True)
class Export:
    """parts: the file's content, made piece by piece as it is asked for, from what the samples were when the export was
    made. total_rows: samples in the file."""

    file_name: str
    mime_type: str
    total_rows: int
    parts: Iterator[bytes]


def check_format(name: str, columns: Sequence[str] = ()) -> str:
    """The name of a format, "csv" where none is given. Raises Invalid."""
    name = name or "csv"
    if name not in FORMATS:
        raise Invalid(f"there is no format {name[:100]!r}; there are {', '.join(FORMATS)}")
    if columns and name == MANIFEST:
        raise Invalid("a manifest has no columns to choose; leave them out")
    if len(columns) > MAX_COLUMNS:
        raise Invalid(f"{len(columns)} columns were asked for; at most {MAX_COLUMNS} can be")
    return name


def find(query: str, table: SampleTable) -> tuple[str, Selection]:
    """The query in the one canonical way to write it, and what it finds. Raises QueryError as the language does, and
    for one that finds no rows but tells something."""
    parsed = parse(query)
    if parsed.command or parsed.show is not None:
        what = f"@{parsed.command}" if parsed.command else "show"
        raise QueryError(f"an export has samples, so that its query has no {what}")
    check(parsed, table)
    return parsed.text(), table.selection(rows(parsed, table))


def export_samples(
    table: SampleTable, selection: Selection, query: str, origin: Origin, kind: str = "csv", columns: Sequence[str] = ()
) -> Export:
    """The samples of a selection as a file of a format.

    query: what found them, for whoever reads the file. columns: names of columns, and "tag:NAME"; none: all of them.
    What is exported is copied before this returns: about 110 bytes for each sample found with all columns that every
    run has, and nothing grows with their number after that. Raises Invalid, NotFound.
    """
    kind = check_format(kind, columns)
    made = FORMATS[kind]
    about = {"run_id": origin.run_id, "step": origin.step, "age": origin.age, "branch": origin.branch, "query": query}
    file_name = f"{origin.run_id}-{made.ending}"
    if kind == MANIFEST:
        kept = kept_rows(table.splits, selection)
        more = {"created_ms": time.time_ns() // 1_000_000, "class_names": list(table.class_names)}
        parts = manifest_parts(table.splits, kept, {**about, **more})
        return Export(file_name, made.mime_type, sum(map(len, kept)), parts)
    found = _columns(table, table.numbers(selection), columns)
    writers: dict[str, Callable[[], Iterator[bytes]]] = {
        "csv": lambda: csv_parts(found),
        "jsonl": lambda: json_line_parts(found),
        "parquet": lambda: parquet_parts(found, {"graybox": json.dumps(about)}),
    }
    return Export(file_name, made.mime_type, len(selection), writers[kind]())


def _columns(table: SampleTable, numbers: NDArray[np.int64], wanted: Sequence[str]) -> list[ExportColumn]:
    """The columns of a file, each copied once and none kept beside its copy."""
    known, tags = list(table.names()), [TAG + tag for tag in table.tags()]
    made: dict[str, ExportColumn] = {}
    for name in dict.fromkeys(wanted or (*known, *tags)):
        if name in tags:
            tag = name.removeprefix(TAG)
            found = [exported_tag(tag, table.tag(tag), numbers)]
        else:
            try:
                found = exported(table.fresh(name), numbers, known)
            except NotFound:
                raise NotFound(f"there is no column {name[:100]!r}{nearest(name, (*known, *tags))}") from None
        made |= {column.name: column for column in found}  # one that has two names is there once
    return list(made.values())
