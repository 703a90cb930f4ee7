"""Where two runs begin to differ, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from graybox.comparison.steps import MEANING, OPERATOR, WEIGHTS, Difference, StepComparison, layers_of

NAMED = 12
"""So many layers and interventions are named."""


def steps_report(found: StepComparison) -> str:
    """What differs first, and what is known of it; lines end in a newline."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: StepComparison) -> Iterator[str]:
    for letter, name, steps, last in zip("AB", found.names, found.steps, found.last, strict=True):
        yield f"{letter}  {name}: fingerprints of {steps:,} steps, the last of step {last:,}"
    if found.seeds[0] != found.seeds[1]:
        yield f"the runs have other seeds: {found.seeds[0]} and {found.seeds[1]}"
    if found.first is None:
        yield f"no difference in the {found.compared:,} steps that both have"
        return
    yield from _first(found.first)


def _first(first: Difference) -> Iterator[str]:
    yield f"step {first.step:,}: {first.kind}"
    yield f"  {MEANING[first.kind]}"
    for kind in first.also[1:]:
        yield f"  and {kind}: {MEANING[kind]}"
    if first.kind == OPERATOR:
        where = "on the way forward: the loss differs" if first.forward else "on the way back: the loss is the same"
        yield f"  {where}" + ("; other random numbers were drawn" if first.draws else "")
        if first.tensors:
            yield f"  gradients that differ: {_layers(first.tensors)}"
    elif WEIGHTS in first.also:
        yield f"  tensors that differ: {_layers(first.tensors)}"
        if first.before is not None:
            yield (
                f"  at step {first.before:,} everything was the same, the gradients too: the optimizer, its settings, "
                "an edit or something outside changed them after that"
            )
        else:
            yield "  from the first step compared on: the initialisation, or what came before"
    for letter, sequence, summary in first.interventions[:NAMED]:
        yield f"  only in {letter}: journal entry {sequence}, {summary}"
    if len(first.interventions) > NAMED:
        yield f"  and {len(first.interventions) - NAMED:,} other interventions that only one of them has"


def _layers(tensors: list[str]) -> str:
    layers = [f"{module} ({', '.join(own)})" for module, own in layers_of(tensors).items()]
    more = f" and {len(layers) - NAMED:,} other modules" if len(layers) > NAMED else ""
    return ", ".join(layers[:NAMED]) + more
