"""Runs a network once in training and once in evaluation mode, and watches which operator does what to which atoms.

The run needs no numbers: parameters and input are replaced by tensors of the same shape without any ("meta"), so
that nothing is computed, nothing learnt and no memory taken. A network that looks at its numbers on the way is run
with them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from graybox.errors import Invalid
from graybox.structure import rules_elementwise, rules_layers, rules_shape  # noqa: F401  # they register themselves
from graybox.structure.layout import Block, Layout
from graybox.structure.rules import Call, Tracing, tensors_in
from graybox.tracking import Ledger, TrackingMode

OUTPUT = "they are the network's output"


@dataclass
class Trace:
    """What a network was seen to do.

    tensors: every parameter and buffer by its first name. inputs, outputs: by module name, the layout of its first
    argument and of its result. notes: what could not be seen, for people.
    """

    tracing: Tracing
    tensors: dict[str, torch.Tensor]
    own: dict[str, Layout]
    inputs: dict[str, Layout] = field(default_factory=dict)
    outputs: dict[str, Layout] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def trace_network(network: nn.Module, example: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Trace:
    """Watch the network on an example input: a tensor, a tuple of arguments or a dict of keyword arguments.

    shapes: of tensors, by name, that are to be taken for others than they are.

    Raises Invalid, with the network's own error, when it cannot be run on it. Nothing of the network changes.
    """
    network = getattr(network, "_plain", network)  # whose attributes nothing around it can hide
    tensors = {
        name: value if shapes is None or name not in shapes else value.new_empty(shapes[name], device="meta")
        for name, value in named_tensors(network).items()
    }
    tracing = Tracing()
    own = {name: own_layout(tracing, name, value) for name, value in tensors.items()}
    trace = Trace(tracing, tensors, own)
    with (
        torch.no_grad(),
        as_it_was(network),
        uncounted(network),
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the network's own run shows them
        for training in (False, True):
            set_modes(network, training)
            try:
                _watch_somehow(network, example, trace, training)
            except Exception as error:  # the user's own code
                if not training:
                    raise Invalid(
                        f"the network cannot be run on the example input: {type(error).__name__}: {error}; pass an "
                        "input that its forward accepts (a tensor, a tuple of arguments or a dict of keyword arguments)"
                    ) from error
                trace.notes.append(f"could not be seen in training mode: {type(error).__name__}: {error}")
    return trace


def named_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; shared ones once, under their first name."""
    found: dict[str, torch.Tensor] = dict(network.named_parameters())
    found.update(network.named_buffers())
    return found


def own_layout(tracing: Tracing, name: str, value: torch.Tensor) -> Layout:
    """Fresh atoms for every index of every axis of a parameter or buffer."""
    blocks = tuple(Block((dim,), tracing.atoms.new([size])) for dim, size in enumerate(value.shape) if size > 1)
    for block in blocks:
        tracing.owners[int(block.atoms[0])] = (name, block.dims[0])
        tracing.sizes[name, block.dims[0]] = block.atoms.size
    return Layout(tuple(value.shape), blocks, origin=(name, tuple(range(value.dim()))))


def set_modes(network: nn.Module, training: bool) -> None:
    """Without calling the user's own `train`."""
    for module in network.modules():
        module.training = training


@contextmanager
def as_it_was(network: nn.Module) -> Iterator[None]:
    """Every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def uncounted(network: nn.Module) -> Iterator[None]:
    """Layers that count what their neurons do leave it for a while."""
    ledgers = {
        id(ledger): ledger for m in network.modules() if isinstance(ledger := getattr(m, "ledger", None), Ledger)
    }
    modes = [(ledger, ledger.mode) for ledger in ledgers.values()]
    for ledger, _ in modes:
        ledger.mode = TrackingMode.DISABLED
    try:
        yield
    finally:
        for ledger, mode in modes:
            ledger.mode = mode


def _watch_somehow(network: nn.Module, example: Any, trace: Trace, training: bool) -> None:
    attempts: list[tuple[Any, str]] = [(example, "meta"), (example, "real")]
    if training:  # normalisations want more than one value for each channel then
        attempts.insert(1, (tree_map(_twice, example), "meta"))
    first: Exception | None = None
    for given, kind in attempts:
        try:
            _watch(network, given, trace, kind, record=not training)
            return
        except Exception as error:  # the next attempt, or the first one's error
            first = first or error
    assert first is not None
    raise first


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, torch.Tensor) and value.dim() else value


def _watch(network: nn.Module, example: Any, trace: Trace, kind: str, *, record: bool) -> None:
    tracing = trace.tracing
    layouts: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
    tracing.layouts = layouts
    stand_ins: dict[str, torch.Tensor] = {}
    for name, value in trace.tensors.items():
        twin = torch.empty_like(value, device="meta") if kind == "meta" else _numbers_of(value, example)
        stand_ins[name] = twin
        layouts[twin] = trace.own[name]
    given = tree_map(lambda v: _meta(v) if kind == "meta" else v, example)
    marks = len(tracing.contractions), len(tracing.norms)
    try:
        with ExitStack() as stack:
            if record:
                stack.enter_context(_recorded(network, trace, layouts))
            if kind != "meta":
                stack.enter_context(torch.random.fork_rng())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_Watch(tracing, layouts))
            args, kwargs = call_arguments(given)
            answer = functional_call(network, stand_ins, args, kwargs, strict=False)
        for contraction in tracing.contractions[marks[0] :]:
            contraction.training = not record
        for tensor in tensors_in(tree_leaves(answer)):
            tracing.atoms.fix_layout(tracing.layout(tensor), OUTPUT)
    except Exception:
        # Half a run says nothing about who multiplies with what; what it united only makes edits larger.
        del tracing.contractions[marks[0] :], tracing.norms[marks[1] :]
        raise
    finally:
        tracing.layouts = {}


def _numbers_of(value: torch.Tensor, example: Any) -> torch.Tensor:
    if value.is_meta:  # a shape that is tried out
        devices = {leaf.device for leaf in tensors_in(tree_leaves(example))}
        return torch.zeros_like(value, device=next(iter(devices), "cpu"))
    # Its own copy of a buffer, which training mode writes to.
    return value.detach() if isinstance(value, nn.Parameter) else value.detach().clone()


def _meta(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value


def call_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of an example input."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    return (example,), {}


@contextmanager
def _recorded(network: nn.Module, trace: Trace, layouts: Any) -> Iterator[None]:
    """While it runs, the layouts that go into and come out of modules that own a tensor are kept."""

    def before(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], torch.Tensor) and name not in trace.inputs:
                trace.inputs[name] = trace.tracing.layout(args[0])

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and name not in trace.outputs:
                trace.outputs[name] = trace.tracing.layout(output)

        return hook

    handles = []
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchDispatchMode):
    """Sees every operator below autograd."""

    def __init__(self, tracing: Tracing, layouts: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._tracing = tracing
        self._layouts = layouts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        arguments = {}
        for i, argument in enumerate(func._schema.arguments):
            if i < len(args) and not argument.kwarg_only:
                arguments[argument.name] = args[i]
            else:
                arguments[argument.name] = kwargs.get(argument.name, argument.default_value)
        name = func._schema.name.split("::")[-1]
        self._keep(out, self._tracing.apply(Call(name, arguments, out)))
        return out

    def _keep(self, out: Any, layouts: Any) -> None:
        if isinstance(out, torch.Tensor):
            one = layouts if isinstance(layouts, Layout) or layouts is None else layouts[0]
            self._layouts[out] = Layout(tuple(out.shape)) if one is None else one
        elif isinstance(out, (list, tuple)):
            several = [None] * len(out) if layouts is None or isinstance(layouts, Layout) else layouts
            for tensor, layout in zip(out, several, strict=True):
                if isinstance(tensor, torch.Tensor):
                    self._layouts[tensor] = Layout(tuple(tensor.shape)) if layout is None else layout
