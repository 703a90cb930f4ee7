"""Telling about rows: measures of all or of groups, confusion matrices and histograms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.store.query.analysis import MAX_CLASSES, MAX_LINES, Analysis, Cell
from graybox.store.query.checking import Checker
from graybox.store.query.columns import Column, Kind, Table
from graybox.store.query.evaluate import Evaluator
from graybox.store.query.grouping import (
    Categories,
    Group,
    Groups,
    by_column,
    by_tags,
    categories_of,
    class_label,
    different_values,
    most_frequent,
)
from graybox.store.query.numbers import Numbers, summary
from graybox.store.query.query import Query
from graybox.store.query.query_error import QueryError
from graybox.store.query.scope import Scope
from graybox.store.query.tokens import shortened
from graybox.store.query.tree import (
    Comparison,
    Confusion,
    Histogram,
    Measure,
    Measures,
    Name,
    Number,
    Tags,
)
from graybox.store.query.wording import measure_text, name_text, show_text

_TITLE_LENGTH = 200
_HEAD_LENGTH = 60
OTHERS = "others"


def answer(query: Query, table: Table, rows: ArrayLike) -> Analysis:
    """What the query shows of these rows, int64 [n], as `rows` found them; aggregates and quantiles are over them.

    Raises QueryError where the query shows nothing, and as `check` does.
    """
    scope = Scope(table, rows, query.source)
    if query.show is None:
        raise QueryError("nothing is asked about the rows; add for example show count", len(query.source), query.source)
    show = Checker(scope).show(query.show)
    title = shortened(show_text(query.show).removeprefix("show "), _TITLE_LENGTH)
    with np.errstate(all="ignore"):
        match show:
            case Measures():
                return _measures(show, scope, title)
            case Confusion():
                return _confusion(show, scope, title)
            case Histogram():
                return _histogram(show, scope, title)


def _measures(show: Measures, scope: Scope, title: str) -> Analysis:
    heads = tuple(shortened(measure_text(measure), _HEAD_LENGTH) for measure in show.measures)
    if show.by is None:
        groups = Groups([Group("", np.arange(scope.count, dtype=np.int64))])
    else:
        groups = by_tags(scope) if isinstance(show.by, Tags) else by_column(show.by, scope)
    columns = [_measured(measure, groups, scope) for measure in show.measures]
    lines = tuple(zip(*columns, strict=True))
    notes: list[str] = []
    if show.by is not None:
        heads = ("tag" if isinstance(show.by, Tags) else shortened(show.by.name, _HEAD_LENGTH), *heads)
        lines = tuple((group.label, *line) for group, line in zip(groups.listed, lines, strict=True))
        notes = _note_of_others(groups.others, groups.other_rows)
    if isinstance(show.by, Tags):
        notes.append("a row counts under each of its tags")
    return Analysis("measures", title, scope.count, heads, lines, groups.others, groups.other_rows, tuple(notes))


def _note_of_others(others: int, rows: int) -> list[str]:
    return [f"{others} other{'' if others == 1 else 's'}, in {_rows(rows)}"] if others else []


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _measured(measure: Measure, groups: Groups, scope: Scope) -> list[Cell]:
    """One cell for each group."""
    evaluator = Evaluator(scope)
    if measure.name == "count":
        return [len(group.rows) for group in groups.listed]
    if measure.name == "accuracy":
        truth, guess = measure.arguments
        known = ~evaluator.null(truth) & ~evaluator.null(guess)
        right = evaluator.mask(Comparison("==", truth, guess))
        return [_ratio(int(right[group.rows].sum()), int(known[group.rows].sum())) for group in groups.listed]
    numbers = evaluator.numbers(measure.arguments[0])
    share = _share(measure)
    return [_summed(measure.name, _taken(numbers, group.rows), len(group.rows), share) for group in groups.listed]


def _share(measure: Measure) -> float:
    match measure.arguments:
        case (_, Number() as share):
            return float(share.value)
        case _:
            return 0.5


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _taken(numbers: Numbers, rows: NDArray[np.int64]) -> Numbers:
    if not isinstance(numbers.values, np.ndarray):
        return numbers
    return Numbers(numbers.values[rows], None if numbers.null is None else numbers.null[rows])


def _summed(function: str, numbers: Numbers, count: int, share: float) -> Cell:
    values = numbers.finite(count)
    if function in ("min", "max") and values.dtype.kind in "iu" and len(values):
        return int(values.min() if function == "min" else values.max())
    found = summary(function, values, share)
    return None if math.isnan(found) else found


def _confusion(show: Confusion, scope: Scope, title: str) -> Analysis:
    truth, guess, labels = _shared_classes(show, scope)
    known = (truth >= 0) & (guess >= 0)
    truth, guess = truth[known], guess[known]
    counts = np.bincount(truth, minlength=len(labels)) + np.bincount(guess, minlength=len(labels))
    kept = np.sort(most_frequent(counts, MAX_CLASSES))
    others = int(np.count_nonzero(counts)) - len(kept)
    # Where a class stands in the matrix; all that are not listed share the last place.
    place = np.full(len(labels), len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    size = len(kept) + (1 if others else 0)
    matrix = np.bincount(place[truth] * size + place[guess], minlength=size * size).reshape(size, size)
    heads = [labels[code] for code in kept.tolist()] + ([OTHERS] if others else [])
    lines = tuple((head, *line) for head, line in zip(heads, matrix.tolist(), strict=True))
    hidden = int(((place[truth] == len(kept)) | (place[guess] == len(kept))).sum())
    notes = [f"{others} other class{'' if others == 1 else 'es'}, in {_rows(hidden)}, added up"] if others else []
    if len(known) > len(truth):
        without = f"without a {show.truth.name} or a {show.guess.name}"
        notes.append(f"{_rows(len(known) - len(truth))} {without} left out")
    columns = (f"{name_text(show.truth.name)} \\ {name_text(show.guess.name)}", *map(str, heads))
    return Analysis("confusion", title, scope.count, columns, lines, others, hidden, tuple(notes))


def _shared_classes(show: Confusion, scope: Scope) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Cell]]:
    """Both columns as codes of the same classes, -1 null, and the label of each code."""
    columns = (scope.column(show.truth), scope.column(show.guess))
    if columns[0].names and columns[1].names and columns[0].names != columns[1].names:
        both = [categories_of(name, scope) for name in (show.truth, show.guess)]
        listed = [list(map(each.label, range(each.count))) for each in both]
        labels = list(dict.fromkeys([*listed[0], *listed[1]]))
        place = {label: index for index, label in enumerate(labels)}
        truth, guess = (
            np.array([*(place[label] for label in own), -1], dtype=np.int64)[each.codes]
            for own, each in zip(listed, both, strict=True)
        )
        return truth, guess, labels
    numbers = [_class_numbers(column) for column in columns]
    different, inverse = different_values(np.concatenate(numbers))
    named = columns[0] if columns[0].names else columns[1]
    nulls = int(np.count_nonzero(different < 0))
    codes = np.maximum(inverse - nulls, -1)
    labels = [class_label(named, number) for number in different[nulls:].tolist()]
    return codes[: scope.count], codes[scope.count :], labels


def _class_numbers(column: Column) -> NDArray[np.int64]:
    numbers = np.maximum(column.values.astype(np.int64), -1)
    return numbers if column.null is None else np.where(column.null, -1, numbers)


def _histogram(show: Histogram, scope: Scope, title: str) -> Analysis:
    if isinstance(show.value, Name) and scope.column(show.value).kind is not Kind.NUMBER:
        return _value_counts(categories_of(show.value, scope), show.value, scope, title)
    return _bins(show, scope, title)


def _value_counts(categories: Categories, name: Name, scope: Scope, title: str) -> Analysis:
    counts = categories.counts()
    kept = most_frequent(counts, MAX_LINES)
    kept_in_order = sorted(kept.tolist(), key=lambda code: (-counts[code], categories.rank(code)))
    lines: list[tuple[Cell, ...]] = [(categories.label(code), int(counts[code])) for code in kept_in_order]
    nulls = int(np.count_nonzero(categories.codes < 0))
    if nulls:
        lines.append((None, nulls))
    others = int(np.count_nonzero(counts)) - len(kept)
    other_rows = int(counts.sum() - counts[kept].sum())
    columns = (shortened(name.name, _HEAD_LENGTH), "count")
    notes = tuple(_note_of_others(others, other_rows))
    return Analysis("histogram", title, scope.count, columns, tuple(lines), others, other_rows, notes)


def _bins(show: Histogram, scope: Scope, title: str) -> Analysis:
    numbers = Evaluator(scope).numbers(show.value)
    values = numbers.finite(scope.count)
    if values.dtype == np.float16:
        values = values.astype(np.float64)
    lines: tuple[tuple[Cell, ...], ...] = ()
    if len(values):
        edges = _edges(float(values.min()), float(values.max()), show.bins)
        counts = np.histogram(values, edges)[0] if len(edges) > 1 else np.array([len(values)])
        ends = edges[1:] if len(edges) > 1 else edges
        lines = tuple(zip(edges.tolist(), ends.tolist(), counts.tolist(), strict=False))
    nulls = int(np.count_nonzero(numbers.is_null(scope.count)))
    reasons = ((nulls, "without a value"), (scope.count - len(values) - nulls, "of infinite value"))
    notes = [f"{_rows(count)} {reason} left out" for count, reason in reasons if count]
    return Analysis("histogram", title, scope.count, ("from", "to", "count"), lines, notes=tuple(notes))


def _edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Ascending ends of bins of equal width; fewer where floats are too coarse for as many."""
    if low == high and np.isfinite(high + 0.5) and low - 0.5 < high:
        low, high = low - 0.5, high + 0.5
    if math.isfinite(high - low):
        return np.unique(np.linspace(low, high, bins + 1))
    return np.unique(np.linspace(low / 2, high / 2, bins + 1) * 2)
