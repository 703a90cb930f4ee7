"""What a batch holds, how a network is called with it, and which tensor of its answer counts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graybox.errors import Invalid

Arguments = tuple[Any, ...] | dict[str, Any]
"""What a network is called with: positional or keyword arguments."""


def arguments_of(model: nn.Module, inputs: Any) -> Arguments:
    """What `model` is called with, given the inputs of a batch.

    A dict whose keys are parameters of its forward becomes keyword arguments, as what a tokenizer answers; a tuple or
    list becomes several arguments where forward cannot do with one. Anything else is the one argument.
    """
    if isinstance(inputs, Mapping) and inputs and _takes_by_name(model, inputs):
        return dict(inputs)
    if isinstance(inputs, (tuple, list)) and len(inputs) > 1 and _needs_several(model, len(inputs)):
        return tuple(inputs)
    return (inputs,)


def input_and_target(batch: Any) -> tuple[Any, Any] | None:
    """The two halves of a sample or a batch: of a pair (input, target, ...), or of a dict whose "labels" (or "label")
    is the target and whose rest is the input. None where it is neither."""
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and len(batch) > 1:
        for name in ("labels", "label"):
            if name in batch:
                return {key: value for key, value in batch.items() if key != name}, batch[name]
    return None


def called(model: nn.Module, inputs: Any) -> Any:
    """What the network answers to the inputs of a batch."""
    arguments = arguments_of(model, inputs)
    return model(**arguments) if isinstance(arguments, dict) else model(*arguments)


def logits_of(answer: Any) -> torch.Tensor:
    """The tensor of an answer that a loss is taken of: the answer itself, or what it calls "logits" or "out", as the
    answers of Hugging Face's networks and of torchvision's segmentation networks do. Raises Invalid where there is
    none."""
    if isinstance(answer, torch.Tensor):
        return answer
    for name in ("logits", "out"):
        found = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
        if isinstance(found, torch.Tensor):
            return found
    raise Invalid(
        f"the network answers {type(answer).__name__}; its loss is taken of a tensor, or of an answer's `logits` or "
        "`out`: pass a task= that says what to make of it"
    )


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    # Around another network (`graybox.operable`, torch.compile) forward takes anything.
    inner = vars(model).get("_plain", model)
    inner = getattr(inner, "_orig_mod", inner)
    try:
        return inspect.signature(inner.forward).parameters
    except (TypeError, ValueError):  # a forward that Python cannot look into
        return {}


def _takes_by_name(model: nn.Module, inputs: Mapping[Any, Any]) -> bool:
    parameters = _parameters(model)
    by_name = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = by_name & set(inputs)
    return bool(named) and (anything or named == set(inputs)) and all(isinstance(key, str) for key in inputs)


def _needs_several(model: nn.Module, count: int) -> bool:
    positional = [p for p in _parameters(model).values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in positional)
    any_number = any(p.kind is p.VAR_POSITIONAL for p in _parameters(model).values())
    return needed > 1 and (any_number or count <= len(positional)) and count >= needed
