"""Which neurons go together, and what a network answers without them; found by running it, with no code of Graybox.

The network is cut at its products with weights: each gives random numbers, the same ones in every run. Then what
changes in the input of a product when some neurons are disturbed is made from these, and what the gradient of an input
reaches makes it. Statistics that are taken over neurons (layer normalisation, attention) stay those of the undisturbed
run, and activations let everything through, so that a neuron behind a ReLU that is shut is found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.zoo import logits

Places = dict[str, set[int]]
"""Indices by the name of a weight: of its neurons, or of what it consumes."""

_PASSING = ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "gelu", "silu", "leaky_relu")


@dataclass(frozen=True)
class Together:
    """What goes as one. columns: where the neurons are consumed; empty where no product with a weight does."""

    neurons: Places
    columns: Places


@dataclass(frozen=True)
class _Product:
    """A call of a convolution or a linear map. plain: what it gives; axis: along which neurons lie, in its input and in
    what it gives."""

    weight: str
    number: int
    x: torch.Tensor
    plain: Callable[[], torch.Tensor]
    groups: int
    axis: int


@dataclass
class _Run:
    """One run through the network. visit: says what each product is taken to give."""

    visit: Callable[[_Product], torch.Tensor]
    names: Mapping[int, str]
    kept: list[Any]
    recording: bool
    calls: int = 0
    statistics: int = 0

    def product(self, plain: Callable[..., torch.Tensor], axis: int) -> Callable[..., torch.Tensor]:
        def call(x: torch.Tensor, weight: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            groups = int(kwargs.get("groups", args[4] if len(args) > 4 else 1))
            number, self.calls = self.calls, self.calls + 1
            name = self.names[id(weight)]
            return self.visit(_Product(name, number, x, lambda: plain(x, weight, *args, **kwargs), groups, axis))

        return call

    def fixed(self, make: Callable[[], Any]) -> Any:
        """Made in the recording run, the same ever after."""
        if self.recording:
            self.kept.append(make())
        number, self.statistics = self.statistics, self.statistics + 1
        return self.kept[number]

    def layer_norm(
        self, x: torch.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> torch.Tensor:
        dims = tuple(range(-len(shape), 0))
        mean, scale = self.fixed(
            lambda: (x.mean(dims, keepdim=True), (x.var(dims, keepdim=True, unbiased=False) + eps).rsqrt())
        )
        normalised: torch.Tensor = (x - mean) * scale
        normalised = normalised if weight is None else normalised * weight.detach()
        return normalised if bias is None else normalised + bias.detach()

    def softmax(self, x: torch.Tensor, dim: int, *_: Any, **__: Any) -> torch.Tensor:
        shares: torch.Tensor = self.fixed(lambda: torch.softmax(x, dim))
        return shares

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        mixed: torch.Tensor = self.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v
        return mixed

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, axis in (("linear", -1), ("conv2d", 1)):
                stack.enter_context(mock.patch.object(F, name, self.product(getattr(F, name), axis)))
            for name in _PASSING:
                stack.enter_context(mock.patch.object(F, name, lambda x, *_, **__: x))
            stack.enter_context(mock.patch.object(torch, "sigmoid", lambda x: x))
            stack.enter_context(mock.patch.object(F, "layer_norm", self.layer_norm))
            stack.enter_context(mock.patch.object(F, "softmax", self.softmax))
            stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", self.attention))
            yield


class Oracle:
    """Of one network with the weights that it has now, on a batch of images. Parameters may be exchanged for others of
    the same shapes and values meanwhile."""

    def __init__(self, network: nn.Module, images: torch.Tensor) -> None:
        self.network = network
        self.images = images
        self.logits = logits(network, images)
        self._groups = {
            f"{name}.weight": module.groups for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
        }
        self._outputs: list[torch.Tensor] = []

        def made_up(product: _Product) -> torch.Tensor:
            self._outputs.append(torch.randn_like(product.plain()))
            return self._outputs[-1].clone()

        with torch.no_grad():
            self._run(made_up, [], recording=True)
        self._undisturbed = {every: self._recorded(every) for every in (False, True)}

    def _recorded(self, every_product: bool) -> tuple[list[torch.Tensor], list[Any]]:
        """What goes into each product, and the statistics that stay."""
        inputs: list[torch.Tensor] = []
        kept: list[Any] = []

        def record(product: _Product) -> torch.Tensor:
            inputs.append(product.x.clone())
            return self._outputs[product.number].clone() if product.groups == 1 or every_product else product.plain()

        with torch.no_grad():
            self._run(record, kept, recording=True)
        return inputs, kept

    def together(self, neurons: Mapping[str, set[int]], *, every_product: bool = False) -> Together:
        """The smallest set with these neurons, such that what consumes them consumes no others.

        every_product: a grouped convolution consumes, too. Else what goes in goes with what comes out, since a group
        without input gives its normalisation's shift.
        """
        found = {name: set(indices) for name, indices in neurons.items()}
        while True:
            columns = self._reached(found, every_product)
            makers = self._makers(columns, every_product) if columns else {}
            grown = {name: found.get(name, set()) | makers.get(name, set()) for name in {*found, *makers}}
            if grown == found:
                return Together(found, columns)
            found = grown

    def consumed(self, neurons: Mapping[str, set[int]]) -> Places:
        """Where these neurons, and maybe others with them, are consumed by the next products, grouped ones too."""
        return self._reached(neurons, every_product=True)

    def masked(self, gone: Together) -> torch.Tensor:
        """The logits with the neurons masked where they are consumed, or where they come from if nowhere."""
        tensors = dict(self.network.named_parameters())
        entries: list[tuple[torch.Tensor, tuple[Any, ...]]] = []
        for name, columns in gone.columns.items():
            entries += [(tensors[name], place) for place in self._columns(name, tensors[name], columns)]
        if not gone.columns:
            for name, rows in gone.neurons.items():
                entries.append((tensors[name], (sorted(rows),)))
                bias = tensors.get(name.replace("weight", "bias"))
                if bias is not None:
                    entries.append((bias, (sorted(rows),)))
        with torch.no_grad():
            before = [tensor.detach()[place].clone() for tensor, place in entries]
            try:
                for tensor, place in entries:
                    tensor[place] = 0
                return logits(self.network, self.images)
            finally:
                for (tensor, place), values in zip(entries, before, strict=True):
                    tensor[place] = values

    def amplify(self, places: Mapping[str, set[int]], factor: float) -> None:
        """Make what is consumed there count for more. The oracle is another one's then."""
        tensors = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, columns in places.items():
                for place in self._columns(name, tensors[name], columns):
                    tensors[name][place] *= factor

    def _columns(self, name: str, weight: torch.Tensor, columns: set[int]) -> list[tuple[Any, ...]]:
        groups = self._groups.get(name, 1)
        if groups == 1:
            return [(slice(None), sorted(columns))]
        width, rows = weight.shape[1], weight.shape[0] // groups
        return [(slice(c // width * rows, (c // width + 1) * rows), c % width) for c in sorted(columns)]

    def _reached(self, neurons: Mapping[str, set[int]], every_product: bool) -> Places:
        found: Places = {}
        inputs, kept = self._undisturbed[every_product]

        def disturb(product: _Product) -> torch.Tensor:
            cut = product.groups == 1 or every_product
            before = inputs[product.number]
            if cut:
                moved, size = _largest(product.x - before, product.axis), _largest(before, product.axis)
                hit = torch.nonzero(moved > 1e-12 * size).flatten().tolist()
                if hit:
                    found.setdefault(product.weight, set()).update(hit)
            output = self._outputs[product.number].clone() if cut else product.plain()
            if product.weight in neurons:
                rows, chosen = output.movedim(product.axis, 0), sorted(neurons[product.weight])
                some = rows[chosen]
                rows[chosen] = some + torch.randn_like(some) * (1 + some.abs().max())
            return output

        with torch.no_grad():
            self._run(disturb, kept)
        return found

    def _makers(self, columns: Mapping[str, set[int]], every_product: bool) -> Places:
        leaves: list[tuple[str, int, torch.Tensor]] = []
        sums: list[torch.Tensor] = []

        def cut(product: _Product) -> torch.Tensor:
            cuts = product.groups == 1 or every_product
            if cuts and product.weight in columns:
                wanted = product.x.movedim(product.axis, 0)[sorted(columns[product.weight])]
                sums.append((wanted * torch.randn_like(wanted)).sum())
            leaf = torch.zeros_like(self._outputs[product.number]).requires_grad_()
            leaves.append((product.weight, product.axis, leaf))
            return (self._outputs[product.number] if cuts else product.plain()) + leaf

        with torch.enable_grad():
            self._run(cut, self._undisturbed[every_product][1])
            total = torch.stack(sums).sum()
            gradients = torch.autograd.grad(total, [leaf for _, _, leaf in leaves], allow_unused=True)
        found: Places = {}
        for (name, axis, _), gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                rows = torch.nonzero(_largest(gradient, axis)).flatten().tolist()
                if rows:
                    found.setdefault(name, set()).update(rows)
        return found

    def _run(self, visit: Callable[[_Product], torch.Tensor], kept: list[Any], *, recording: bool = False) -> None:
        self.network.eval()
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.random.fork_rng(devices=[]), _Run(visit, names, kept, recording).installed():
                torch.manual_seed(7)
                self.network(self.images)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _largest(values: torch.Tensor, axis: int) -> torch.Tensor:
    """By place along an axis."""
    return values.movedim(axis, 0).flatten(1).abs().amax(1)
