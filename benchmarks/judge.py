"""Whether edits of a network are exact, refused with a reason, or failed: each compared with `benchmarks.oracle`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from benchmarks.oracle import Oracle, Together
from benchmarks.peers import Peer, at_most
from benchmarks.zoo import NORMS, Subject, difference, logits, spread
from graybox.errors import Refused
from graybox.neuron_ops import AddNeurons, Freeze, NeuronEdit, Reinitialize, RemoveNeurons
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.structure import Structure
from graybox.surgery import Surgeon

EXACT = 1e-9
"""The largest difference, relative to the largest logit, between two networks that are the same."""
VISIBLE = 100 * EXACT
"""By how much a mask has to move the logits, or nothing would be tested."""
TRIED = 6
"""So many neurons of a group are tried until one's mask moves the logits."""
LOUDER = 1e4
"""What consumes a neuron is multiplied by so much if none of those tried moves them."""
PEER_SECONDS = 60.0
"""Of the processor, for torch-pruning, which for some networks would go on for ever, and take all memory."""
STEPS = 3
"""Of Adam, for which frozen neurons have to stay bit for bit what they are."""


@dataclass(frozen=True)
class Case:
    """What is edited in one group of a network. unit: the smallest set of neurons with `unit[0]` that can go together.
    gone: what has to go with it, as the oracle knows it. masked: the logits without it, [images, classes]; silent:
    those without what the next products consume of `unit[0]`. note: what was done to make it visible."""

    layer: str
    weight: str
    width: int
    unit: tuple[int, ...]
    gone: Together
    masked: torch.Tensor
    silent: torch.Tensor
    note: str = ""


# -- what is edited --------------------------------------------------------------------------------------


def median_group(structure: Structure) -> str:
    """The first layer of the median group by depth, of those that are neither the input nor the output."""
    groups = _groups(structure)
    return groups[len(groups) // 2][0]


def residual_stream(structure: Structure) -> str | None:
    """The first layer of the median one of the groups in which several layers' neurons are summed."""
    streams = [group for group in _groups(structure) if any(_is_summed(structure, layer) for layer in group)]
    return streams[len(streams) // 2][0] if streams else None


def _is_summed(structure: Structure, layer: str) -> bool:
    rows = structure.own[structure.layers[layer].weight, structure.layers[layer].out_axis]
    # What is multiplied with others (squeeze and excitation) is joined with them, too.
    return bool(structure.outgoing(layer, [0]).joined) and not structure.classes.absorbed[rows].any()


def _groups(structure: Structure) -> list[list[str]]:
    """Layers of each group in order of first use."""
    found: dict[int, list[str]] = {}
    for name, layer in structure.layers.items():
        if structure.labels(layer.weight, layer.out_axis) is not None:
            found.setdefault(structure.group_number(layer.weight, layer.out_axis), []).append(name)
    return [layers for layers in found.values() if not any(structure.is_output(layer) for layer in layers)]


def case_of(oracle: Oracle, structure: Structure, layer: str) -> Case:
    """A neuron of the layer whose mask moves the logits: the one in the middle or another; else one that is amplified,
    in the network itself."""
    known = structure.layers[layer]
    width = structure.shapes[known.weight][known.out_axis]
    tried = [_unit(structure, layer, neuron, width) for neuron in spread(width, TRIED)]
    for unit in tried:
        found = _made(oracle, layer, known.weight, width, unit)
        if difference(found.masked, oracle.logits) >= VISIBLE:
            return found
    oracle.amplify(oracle.together({known.weight: set(tried[0])}).columns, LOUDER)
    return _made(oracle, layer, known.weight, width, tried[0], f"neuron {tried[0][0]} x {LOUDER:g}")


def _unit(structure: Structure, layer: str, neuron: int, width: int) -> tuple[int, ...]:
    together = structure.together(layer, [neuron])
    if len(together) == width:  # nothing can go: the refusal is what is looked at
        return (neuron,)
    return (neuron, *(other for other in together if other != neuron))


def _made(oracle: Oracle, layer: str, weight: str, width: int, unit: tuple[int, ...], note: str = "") -> Case:
    gone = oracle.together({weight: set(unit)})
    own = {weight: {unit[0]}}
    silent = oracle.masked(Together(own, oracle.consumed(own)))
    return Case(layer, weight, width, unit, gone, oracle.masked(gone), silent, note)


# -- the edits -------------------------------------------------------------------------------------------


class Judge:
    """Makes edits of one network, compares, and takes each back, which has to give the logits of before to the bit."""

    def __init__(self, subject: Subject, network: Any, oracle: Oracle) -> None:
        """network: what `graybox.operable` made of the subject's."""
        self.plain = subject.network
        self.images = subject.images
        self.network = network
        self.oracle = oracle
        self.adam = torch.optim.Adam(self.plain.parameters(), lr=0.0)
        self.plain.eval()
        _loss(self.plain, self.images).backward()
        self.adam.step()  # moves nothing, but leaves state that edits have to follow
        self.adam.zero_grad(set_to_none=True)
        self.surgeon = Surgeon(network, OptimizerWithOps(self.adam, network))

    def all(self, cases: Mapping[str, Case]) -> dict[str, dict[str, str]]:
        """By case and edit: "exact", "refused: reason" or "failed: what was wrong"."""
        found = {name: self._edits(case) for name, case in cases.items()}
        for name, case in cases.items():  # last, since it trains
            found[name]["freeze"] = self._frozen(case)
        return found

    def _edits(self, case: Case) -> dict[str, str]:
        neuron = case.unit[:1]
        start, silence = Reinitialize(case.layer, neuron), Reinitialize(case.layer, neuron, zero_outgoing=True)
        before = {name: tensor.clone() for name, tensor in self.plain.state_dict().items()}
        return {
            "prune": self._judged(RemoveNeurons(case.layer, case.unit), lambda: self._off(case.masked)),
            "add": self._added(case),
            "reinitialise": self._judged(start, lambda: self._not_fresh(case, before)),
            "silence": self._judged(silence, lambda: self._off(case.silent)),
        }

    def _judged(self, edit: NeuronEdit, wrong: Callable[[], str]) -> str:
        """wrong: what is wrong with the network while the edit is made; "" if nothing is."""
        try:
            applied = self.surgeon.apply(self.surgeon.plan(edit), seed=1)
        except Refused as refusal:
            return f"refused: {refusal}"
        found = wrong() or self._torn()
        self.surgeon.undo(applied.undo, applied.arrays)
        if not found and not torch.equal(logits(self.plain, self.images), self.oracle.logits):
            found = "once it is undone, the logits are not those of before"
        return f"failed: {found}" if found else "exact"

    def _off(self, expected: torch.Tensor) -> str:
        error = difference(logits(self.plain, self.images), expected)
        return "" if error <= EXACT else f"the logits are off by {error:.2g} of the largest"

    def _torn(self) -> str:
        """Whether the optimizer holds just the network's parameters, with state of their shapes."""
        held = [p for group in self.adam.param_groups for p in group["params"]]
        if {id(p) for p in held} != {id(p) for p in self.plain.parameters()}:
            return "the optimizer holds other parameters than the network's"
        if any(state["exp_avg"].shape != p.shape for p, state in self.adam.state.items()):
            return "the optimizer's state does not fit its parameters"
        return ""

    def _added(self, case: Case) -> str:
        try:
            self.surgeon.plan(AddNeurons(case.layer, count=1))
            count = 1
        except Refused as refusal:
            count = int(refusal.details.get("together", 1))
        return self._judged(AddNeurons(case.layer, count=count), lambda: self._not_grown(case, count))

    def _not_grown(self, case: Case, count: int) -> str:
        width = dict(self.plain.named_parameters())[case.weight].shape[self._axis(case)]
        return self._off(self.oracle.logits) if width == case.width + count else f"the layer has {width} neurons now"

    def _not_fresh(self, case: Case, before: Mapping[str, torch.Tensor]) -> str:
        """Whether the neuron has its own initialisation, gain 1 and shift 0 behind it, and all else is as it was."""
        present, neuron = self.plain.state_dict(), case.unit[0]
        row = present[case.weight].select(self._axis(case), neuron)
        largest = self._largest(case)
        if not 0 < float(row.abs().max()) <= 1.5 * largest:
            return f"its weights go up to {float(row.abs().max()):.2g}, those of a new layer to {largest:.2g}"
        if torch.equal(row, before[case.weight].select(self._axis(case), neuron)):
            return "its weights are those of before"
        own = self._own(case)
        for norm in self._norms_behind(case):
            keys = (f"{norm}.{key}" for key in ("weight", "bias", "running_mean", "running_var"))
            own |= {key: 0 for key in keys if key in present}
            if present[f"{norm}.weight"][neuron] != 1 or present[f"{norm}.bias"][neuron] != 0:
                return f"{norm} has another gain than 1 or another shift than 0"
        for name, axis in own.items():
            before_row = before[name].select(axis, neuron)
            present[name] = _with_row(present[name], axis, neuron, before_row)
        moved = [name for name, value in present.items() if not torch.equal(value, before[name])]
        return f"{', '.join(moved)} changed elsewhere" if moved else ""

    def _frozen(self, case: Case) -> str:
        try:
            applied = self.surgeon.apply(self.surgeon.plan(Freeze(case.layer, case.unit[:1])), seed=1)
        except Refused as refusal:
            return f"refused: {refusal}"
        neuron = case.unit[0]
        own = self._own(case)
        for norm in self._norms_behind(case):
            own |= {f"{norm}.weight": 0, f"{norm}.bias": 0}
        before = {name: value.detach().clone() for name, value in self.plain.named_parameters()}
        asked = self._train(case)
        self.surgeon.undo(applied.undo, applied.arrays)
        present = dict(self.plain.named_parameters())
        for name, axis in own.items():
            if not torch.equal(present[name].select(axis, neuron), before[name].select(axis, neuron)):
                return f"failed: {name} of the neuron moved"
        if not asked or all(torch.equal(value, before[name]) for name, value in present.items()):
            return "failed: the neuron got no gradient, or nothing moved, so that nothing was tested"
        return "exact"

    def _train(self, case: Case) -> bool:
        """Answers whether the neuron ever got a gradient."""
        self.adam.param_groups[0]["lr"] = 1e-3
        self.plain.train()
        asked = False
        for _ in range(STEPS):
            self.adam.zero_grad(set_to_none=True)
            _loss(self.plain, torch.cat([self.images, self.images.flip(-1)])).backward()
            gradient = dict(self.plain.named_parameters())[case.weight].grad
            asked = asked or (gradient is not None and bool(gradient.select(self._axis(case), case.unit[0]).any()))
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.plain.eval()
        return asked

    # -- what belongs to a neuron --------------------------------------------------------------------

    def _axis(self, case: Case) -> int:
        return int(self.network.structure.layers[case.layer].out_axis)

    def _own(self, case: Case) -> dict[str, int]:
        """The layer's own parameters by name, with the axis of its neurons."""
        bias = case.weight.replace("weight", "bias")
        has_bias = bias in dict(self.plain.named_parameters())
        return {case.weight: self._axis(case), **({bias: 0} if has_bias else {})}

    def _norms_behind(self, case: Case) -> list[str]:
        """Normalisations that get the very tensor that the layer gives."""
        found: list[str] = []
        given: list[torch.Tensor] = []

        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            given.append(output)

        def look(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
            return lambda _, args: found.append(name) if any(args[0] is one for one in given) else None

        modules = dict(self.plain.named_modules())
        handles = [modules[case.layer].register_forward_hook(keep)]
        for name, module in modules.items():
            if isinstance(module, NORMS):
                handles.append(module.register_forward_pre_hook(look(name)))
        logits(self.plain, self.images)
        for handle in handles:
            handle.remove()
        return found

    def _largest(self, case: Case) -> float:
        """Of the weights that a new layer of the kind has; of the present ones where it knows no initialisation."""
        module = copy.deepcopy(dict(self.plain.named_modules())[case.layer])
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            with torch.random.fork_rng(devices=[]):
                reset()
        return max(float(p.detach().abs().max()) for name, p in module.named_parameters() if case.weight.endswith(name))


def _with_row(value: torch.Tensor, axis: int, index: int, row: torch.Tensor) -> torch.Tensor:
    copied = value.clone()
    copied.select(axis, index).copy_(row)
    return copied


def _loss(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    answers = [leaf for leaf in tree_leaves(network(images)) if isinstance(leaf, torch.Tensor)]
    labels = torch.arange(images.shape[0])
    return torch.stack([nn.functional.cross_entropy(answer, labels) for answer in answers]).sum()


# -- torch-pruning ---------------------------------------------------------------------------------------


def peer_prune(subject: Subject, oracle: Oracle, case: Case) -> str:
    """The same neuron removed by torch-pruning: "right", "wrong: by how much", or "error: which". Judged by what it
    removed of the layer, which may be more than it was asked for."""
    try:
        copied = copy.deepcopy(subject.network)
        with at_most(PEER_SECONDS):
            gone = Peer(copied, subject.images).prune(case.layer, case.unit[:1])
        answer = logits(copied, subject.images)
    except Exception as raised:  # somebody else's code, and its answer to the question
        return f"error: {type(raised).__name__}: {str(raised).partition(chr(10))[0]}"
    expected = case.masked if gone == set(case.unit) else oracle.masked(oracle.together({case.weight: gone}))
    error = difference(answer, expected)
    return "right" if error <= EXACT else f"wrong: the logits are off by {error:.2g} of the largest"
