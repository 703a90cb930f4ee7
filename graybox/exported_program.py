"""A network as one file that torch runs without any of its code: torch.export's program of it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from graybox.errors import Invalid, Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.plain_network import called_with, copy_of, inner_network, without_fast_path, without_ops
from graybox.randomness import seeded
from graybox.store.files import write_atomically

TOLERANCE = 16.0
"""So many units in the last place of the largest number in an answer the program's answer may differ."""
FEWEST = 3
"""Samples in the example while it is exported: one, or two, might be taken for a number of the code's."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported. dynamic_batch: whether it takes batches of any size, and not only of the example's.
    batch: of the example. difference: of the program's answers to the network's, largest, in units in the last place of
    the largest number of the answer; 0 where they are the same, bit for bit."""

    path: Path
    dynamic_batch: bool
    batch: int
    difference: float


def export_program(model: nn.Module, example: Any, path: Path | str) -> ExportReport:
    """Write a network, in evaluation mode and on the CPU, by torch.export.save: `torch.export.load(path).module()` runs
    it where neither Graybox nor the network's code is. It is read back and compared before it takes its place.

    example: what the network's forward takes: a tensor, a tuple of arguments or a dict of keyword arguments, the first
    dimension of their tensors the batch; None: the network's own example input. path: ends in .pt2.

    Raises Invalid without an example or for another ending, Refused where torch.export cannot follow the network or
    its program answers something else, StorageError when the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise Invalid(f"torch's programs are called NAME.pt2, not {path.name!r}")
    example = getattr(model, "example_input", None) if example is None else example
    if example is None:
        raise Invalid("a program is made by running the network: give an example of its input")
    # A forward that speaks to Graybox says nothing to it while torch exports, which sees more than torch.fx would.
    hand_written = isinstance(inner_network(model), NetworkWithOps)
    network = copy_of(model) if hand_written else without_ops(copy_of(model))
    network.cpu().eval().requires_grad_(False)
    example = tree_map(_on_cpu, example)
    batch = _batch_of(example)
    program, dynamic = _exported(network, example, batch)
    content, runs = _written_and_read(program, type(network).__name__)
    sizes = [batch, 1, FEWEST + 2] if dynamic else [batch]
    difference = max(_difference(network, runs, _of_size(example, batch, size)) for size in sizes)
    write_atomically(path, content)
    return ExportReport(path, dynamic, batch, difference)


def _exported(network: nn.Module, example: Any, batch: int) -> tuple[ExportedProgram, bool]:
    wide = _of_size(example, batch, max(batch, FEWEST)) if batch else example
    tries = [(wide, True), (example, False)] if batch else [(example, False)]
    failure: Exception | None = None
    for given, dynamic in tries:
        try:
            program = _program(network, given, dynamic)
        except Exception as error:  # torch.export raises whatever the user's code leads it to
            failure = failure or error
            continue
        if not dynamic or _takes_any_batch(program):
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # with the paths of whoever exports
            return program, dynamic
    reason = str(failure).strip().splitlines()
    raise Refused(
        f"torch.export cannot follow {type(network).__name__}: {type(failure).__name__}"
        f"{': ' + reason[0] if reason else ''}; save its weights instead"
    ) from failure


def _written_and_read(program: ExportedProgram, name: str) -> tuple[bytes, nn.Module]:
    """The file's content, and what somebody makes of it who reads it."""
    try:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        content = buffer.getvalue()
        return content, torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # as for a network with a module called `code`, whatever torch raises
        raise Refused(
            f"torch cannot run {name} from a file: {type(error).__name__}: {str(error).splitlines()[0]}; save its "
            "weights instead"
        ) from error


def _program(network: nn.Module, example: Any, dynamic: bool) -> ExportedProgram:
    kwargs = dict(example) if isinstance(example, Mapping) else None
    args = () if kwargs else tuple(example) if isinstance(example, (tuple, list)) else (example,)
    shapes = tree_map(_any_batch, kwargs or args) if dynamic else None
    with seeded(0), torch.no_grad(), _quietly():
        return torch.export.export(network, args, kwargs, dynamic_shapes=shapes)


@contextmanager
def _quietly() -> Iterator[None]:
    """What torch says about a try is not for whoever exports: a reason comes with the error, and what was made is
    compared."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _takes_any_batch(program: ExportedProgram) -> bool:
    """Whether the first dimension of its inputs was left open."""
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    sizes = [shape[0] for shape in shapes if len(shape)]
    return bool(sizes) and all(isinstance(size, torch.SymInt) and not size.node.expr.is_number for size in sizes)


def _batch_of(example: Any) -> int:
    """The number of samples in it; 0 where its tensors disagree, or have none."""
    sizes = {leaf.shape[0] if leaf.dim() else 0 for leaf in tree_leaves(example) if isinstance(leaf, torch.Tensor)}
    return sizes.pop() if len(sizes) == 1 else 0


def _of_size(example: Any, batch: int, size: int) -> Any:
    """The same samples over and over, as many as asked for."""
    if not batch or size == batch:
        return example
    index = torch.arange(size) % batch
    return tree_map(lambda leaf: leaf.index_select(0, index) if isinstance(leaf, torch.Tensor) else leaf, example)


def _any_batch(leaf: Any) -> Any:
    return {0: Dim.AUTO} if isinstance(leaf, torch.Tensor) and leaf.dim() else None


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, torch.Tensor) else leaf


def _difference(network: nn.Module, runs: nn.Module, example: Any) -> float:
    """Of two answers, in units in the last place of the largest number. Raises Refused for more than TOLERANCE."""
    with torch.no_grad(), without_fast_path():
        answers = []
        for each in (network, runs):
            with seeded(0):
                answers.append([leaf for leaf in tree_leaves(called_with(each, example)) if _is_tensor(leaf)])
    if [(leaf.shape, leaf.dtype) for leaf in answers[0]] != [(leaf.shape, leaf.dtype) for leaf in answers[1]]:
        raise Refused("the exported program answers something of another shape than the network; save its weights")
    largest = max((units_apart(one, other) for one, other in zip(*answers, strict=True)), default=0.0)
    if not largest <= TOLERANCE:
        raise Refused(
            f"the exported program's answers differ by {largest:.3g} units in the last place from the network's, which "
            "draws random numbers or decides by the values of tensors; save its weights instead"
        )
    return largest


def units_apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two tensors, in units in the last place of the largest number of the first. What is
    not finite has to be the same."""
    same = (one == other) | ((one != one) & (other != other))
    if bool(same.all()):
        return 0.0
    if not one.is_floating_point() or not bool(torch.isfinite(one[~same]).all() & torch.isfinite(other[~same]).all()):
        return float("inf")
    scale = float(one[torch.isfinite(one)].abs().max()) * torch.finfo(one.dtype).eps
    return float((one[~same].double() - other[~same].double()).abs().max()) / scale if scale else float("inf")


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
