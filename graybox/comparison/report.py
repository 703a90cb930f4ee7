"""A comparison as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from graybox.comparison.movement import Movement
from graybox.comparison.runs import Comparison
from graybox.comparison.samples import Marked, SplitDifference
from graybox.comparison.side import Side
from graybox.comparison.structure import StructureDifference

NAMED = 20
"""So many of a list are named, and the number of the others."""


def report(found: Comparison) -> str:
    """Everything that differs, in the order in which one looks for a cause; lines end in a newline."""
    names = found.b.class_names or found.a.class_names
    parts = [
        [*_head("A", found.a), *_head("B", found.b)],
        _section("Hyper-parameters", list(_settings(found))),
        _section("Interventions", [f"{n}: {a} in A, {b} in B" for n, (a, b) in found.interventions.items()]),
        _section("Structure", list(_structure(found.structure))),
        _section("Weights", list(_moved(found.moved))),
        _section("Metrics", list(_metrics(found))),
        *(_section(f"Samples of {each.split}", list(_samples(each, names))) for each in found.samples),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _head(letter: str, side: Side) -> Iterator[str]:
    at = side.checkpoint
    weights = "no checkpoint yet" if at is None else f"weights of checkpoint {at.id} at step {at.step:,}"
    state = f"{side.record.get('state', '')}, step {side.record.get('step', 0):,}, age {side.record.get('age', 0):,}"
    yield f"{letter}  {side.name} ({side.record.get('name', '')}): {state}; {weights}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines or ["no difference"])]


def _settings(found: Comparison) -> Iterator[str]:
    for name, (a, b) in found.settings.items():
        yield f"{name}: {_value(a)} -> {_value(b)}"


def _structure(found: StructureDifference | None) -> Iterator[str]:
    if found is None:
        yield "unknown: one of the two has no checkpoint yet"
        return
    a, b = found.parameters
    if a != b:
        yield f"{a:,} -> {b:,} numbers in all tensors ({_percent(a, b)})"
    if not found.built_alike:
        yield "the code of the two builds other networks: which neuron is which is told by their order alone"
    for only, where in ((found.only_a, "A"), (found.only_b, "B")):
        for name, neurons in only.items():
            yield f"{name}: only in {where}, {neurons:,} neurons"
    for each in found.resized:
        told = []
        if each.neurons[0] != each.neurons[1]:
            told.append(f"{each.neurons[0]:,} -> {each.neurons[1]:,} neurons")
        if each.gone:
            told.append(f"gone (numbers in A): {_some(each.gone)}")
        if each.new:
            told.append(f"new (numbers in B): {_some(each.new)}")
        if each.moved:
            told.append(f"{each.moved:,} in another order")
        if each.incoming[0] != each.incoming[1]:
            told.append(f"{each.incoming[0]:,} -> {each.incoming[1]:,} incoming")
        if each.frozen[0] != each.frozen[1]:
            told.append(f"{each.frozen[0]:,} -> {each.frozen[1]:,} frozen")
        yield f"{each.layer}: {'; '.join(told)}"


def _moved(found: Movement | None) -> Iterator[str]:
    if found is None:
        yield "unknown: one of the two has no checkpoint yet"
        return
    layers = [(name, change) for name, change in found.layers.items() if change]
    if layers:
        yield "relative change by layer, of the neurons and connections that both have"
        for name, change in sorted(layers, key=lambda item: -item[1]):
            yield f"  {name}: {_change(change)}"
    if found.neurons:
        yield "neurons that moved most"
        for each in found.neurons:
            number = f"{each.a}" if each.a == each.b else f"{each.a} (in B {each.b})"
            yield f"  {each.layer} {number}: {_change(each.change)}"
    others = sorted(((c, n) for n, c in found.tensors.items() if c), reverse=True)
    if others:
        yield "other tensors"
        for change, name in others[:NAMED]:
            yield f"  {name}: {_change(change)}"
        if len(others) > NAMED:
            yield f"  and {len(others) - NAMED:,} others"


def _metrics(found: Comparison) -> Iterator[str]:
    for name, (a, b) in found.metrics.items():
        told = f" ({b - a:+.4g})" if a is not None and b is not None and math.isfinite(a) and math.isfinite(b) else ""
        yield f"{name}: {_value(a)} -> {_value(b)}{told}"


def _samples(found: SplitDifference, names: Sequence[str]) -> Iterator[str]:
    if not found.same_data:
        a, b = found.samples
        told = f"the data sets are not the same ({a:,} and {b:,} samples)"
        if not found.matched:
            yield f"{told}: sample by sample nothing can be told"
            return
        yield f"{told}; {found.matched:,} are in both by their names, and have here the numbers that they have in B"
    if found.seen[0] and found.seen[1]:
        yield (
            f"accuracy {_value(found.accuracy[0])} -> {_value(found.accuracy[1])}: {found.got_wrong:,} right in A are "
            f"wrong in B, {found.got_right:,} wrong in A are right in B, {found.other_answers:,} wrong in both with "
            "other answers"
        )
        for each in found.by_class[:NAMED]:
            yield (
                f"  {_class(each.label, names)}: of {each.samples:,} samples {each.got_wrong:,} got wrong, "
                f"{each.got_right:,} got right"
            )
        if len(found.by_class) > NAMED:
            yield f"  and {len(found.by_class) - NAMED:,} other classes"
    if found.most_changed:
        yield f"mean loss {_value(found.mean_loss[0])} -> {_value(found.mean_loss[1])}; the loss changed most of"
        for one in found.most_changed:
            answers = " -> ".join(_class(each, names) for each in one.predictions)
            losses = " -> ".join(_value(each) for each in one.losses)
            yield f"  {one.sample} ({_class(one.label, names)}): loss {losses}, predicted {answers}"
    yield from _marked("discarded", found.discarded)
    for tag, marked in found.tags.items():
        yield from _marked(f"tag:{tag}", marked)
    if found.labels:
        yield f"other labels: {found.labels:,} samples ({_some(found.first_labels, found.labels)})"
    if found.weights:
        yield f"other sampling weights: {found.weights:,} samples"


def _marked(what: str, found: Marked) -> Iterator[str]:
    for count, first, where in ((found.only_a, found.first_a, "A"), (found.only_b, found.first_b, "B")):
        if count:
            yield f"{what} in {where} only: {count:,} samples ({_some(first, count)})"


def _class(label: int, names: Sequence[str]) -> str:
    if label < 0:
        return "unknown"
    return names[label] if label < len(names) else f"class {label}"


def _some(numbers: Sequence[int], count: int | None = None) -> str:
    shown = ", ".join(str(number) for number in numbers[:NAMED])
    left = (len(numbers) if count is None else count) - min(len(numbers), NAMED)
    return f"{shown} and {left:,} others" if left else shown


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # no -0
    return str(value)


def _change(change: float) -> str:
    return f"{change:.4g}" if math.isfinite(change) else "from zero"


def _percent(a: int, b: int) -> str:
    return f"{100 * (b - a) / a:+.1f} %" if a else "new"
