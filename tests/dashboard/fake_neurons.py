"""Layers and neurons of a pretended run: every edit of the wire done to lists in memory, planned and undone."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from graybox.proto import experiment_service_pb2 as pb

LAYERS = (
    ("features.conv1", "Conv2d", 16, 1, 9),
    ("features.conv2", "Conv2d", 32, 16, 9),
    ("classifier.fc1", "Linear", 64, 512, 1),
    ("classifier.fc2", "Linear", 10, 64, 1),
)
PAIRED = 1
"""This layer's neurons 2n and 2n + 1 can only go together."""
INEXACT = 2
"""Removing from this layer is never exact."""
IN_PLACE = {
    pb.FREEZE, pb.UNFREEZE, pb.FREEZE_BIAS, pb.FREEZE_INCOMING, pb.REINITIALIZE, pb.CHANGE_LEARNING_RATE, pb.ZEROFY,
}  # fmt: skip


class Refusal(Exception):
    """What the present state refuses, and what could go together."""

    def __init__(self, message: str, together: list[pb.LayerNeurons] | None = None) -> None:
        super().__init__(message)
        self.together = together or []


class Missing(Exception):
    """A layer or neuron that is not there."""


@dataclass
class FakeNeuron:
    rate: float
    seed: int
    frozen: bool = False
    bias_frozen: bool = False
    factor: float = 1.0
    zeroed: bool = False


@dataclass
class FakeLayer:
    name: str
    kind: str
    incoming: int
    kernel: int
    neurons: list[FakeNeuron]
    frozen_incoming: set[int] = field(default_factory=set)


class FakeNetwork:
    """The layers of one run."""

    def __init__(self, rng: random.Random) -> None:
        self.layers = [
            FakeLayer(
                name,
                kind,
                incoming,
                kernel,
                [FakeNeuron(0.0 if rng.random() < 0.06 else rng.betavariate(2, 3), n) for n in range(count)],
            )
            for name, kind, count, incoming, kernel in LAYERS
        ]

    @property
    def parameters(self) -> int:
        return sum(len(layer.neurons) * (layer.incoming * layer.kernel + 1) for layer in self.layers)

    def copy(self) -> FakeNetwork:
        return copy.deepcopy(self)

    def find(self, layer_id: str) -> int:
        for number, layer in enumerate(self.layers):
            if layer_id in (str(number), layer.name):
                return number
        raise Missing(f"there is no layer {layer_id!r}")

    # -- edits

    def resolve(self, request: pb.ManipulateWeightsRequest) -> dict[int, list[int]]:
        """The neurons that an edit is for, by layer."""
        if not request.HasField("selection"):
            number = self.find(request.layer_id)
            count = len(self.layers[number].neurons)
            along = self.layers[number].incoming if request.operation == pb.FREEZE_INCOMING else count
            for neuron in request.neuron_ids:
                if neuron >= along:
                    raise Missing(f"layer {self.layers[number].name} has no neuron {neuron}; it has {along}")
            return {number: list(request.neuron_ids) or list(range(count))}
        wanted = request.selection
        chosen = range(len(self.layers)) if wanted.all_layers else [self.find(name) for name in wanted.layer_ids]
        found = [
            (self.layers[number].neurons[n].rate, number, n)
            for number in chosen
            for n in range(len(self.layers[number].neurons))
            if not wanted.health or self.health(number, n) == wanted.health
        ]
        amount = wanted.WhichOneof("amount")
        if amount is not None:
            found.sort(reverse=wanted.highest)
            found = found[: wanted.lowest if amount == "lowest" else max(1, int(wanted.share * len(found)))]
        if not found:
            raise Refusal("the selection matches no neuron; nothing was changed")
        return {number: sorted(n for _, at, n in found if at == number) for number in chosen}

    def apply(self, request: pb.ManipulateWeightsRequest) -> dict[int, list[int]]:
        """Do it; what it was done to."""
        places = {number: neurons for number, neurons in self.resolve(request).items() if neurons}
        for number, neurons in places.items():
            if request.operation in IN_PLACE:
                self._in_place(request, self.layers[number], neurons)
            elif request.operation == pb.REMOVE_NEURONS:
                self._remove(request, number, neurons)
            elif request.operation == pb.ADD_NEURONS:
                old = len(self.layers[number].neurons)
                new = [FakeNeuron(0.0, 1000 + old + n) for n in range(request.count)]
                self._put(number, self.layers[number].neurons + new)
                places[number] = list(range(old, old + request.count))
            elif request.operation == pb.SORT_BY_STAT:
                ordered = sorted(self.layers[number].neurons, key=lambda n: n.rate, reverse=request.descending)
                self._put(number, ordered)
            else:
                raise AssertionError(f"no button asks for {request.operation}")
        return places

    def _in_place(self, request: pb.ManipulateWeightsRequest, layer: FakeLayer, numbers: list[int]) -> None:
        if request.operation == pb.FREEZE_INCOMING:
            layer.frozen_incoming.update(numbers)
            return
        for neuron in (layer.neurons[n] for n in numbers):
            match request.operation:
                case pb.FREEZE:
                    neuron.frozen = True
                case pb.UNFREEZE:
                    neuron.frozen = neuron.bias_frozen = False
                case pb.FREEZE_BIAS:
                    neuron.bias_frozen = True
                case pb.REINITIALIZE:
                    neuron.rate = 0.5
                case pb.CHANGE_LEARNING_RATE:
                    neuron.factor = request.learning_rate
                case pb.ZEROFY:
                    neuron.zeroed = True
        if request.operation == pb.UNFREEZE:
            layer.frozen_incoming.difference_update(numbers)

    def _remove(self, request: pb.ManipulateWeightsRequest, number: int, neurons: list[int]) -> None:
        layer = self.layers[number]
        if len(neurons) == len(layer.neurons):
            raise Refusal(f"these are all neurons of {layer.name}; keep at least one")
        if number == PAIRED:
            whole = sorted({pair for n in neurons for pair in (n // 2 * 2, n // 2 * 2 + 1)})
            if whole != sorted(neurons):
                raise Refusal(f"the neurons of {layer.name} go in pairs", [layer_neurons(layer.name, whole)])
        if number == INEXACT and not request.allow_inexact:
            raise Refusal("this is not exact; allow it, or leave it")
        gone = set(neurons)
        self._put(number, [neuron for n, neuron in enumerate(layer.neurons) if n not in gone])

    def _put(self, number: int, neurons: list[FakeNeuron]) -> None:
        before = len(self.layers[number].neurons)
        self.layers[number].neurons = neurons
        if number + 1 < len(self.layers):
            self.layers[number + 1].incoming = self.layers[number + 1].incoming // before * len(neurons)

    def plan(self, request: pb.ManipulateWeightsRequest) -> pb.EditPlan:
        """What the edit would do, found out on a copy."""
        trial = self.copy()
        places = trial.apply(request)
        touches = []
        for number, neurons in places.items():
            change = pb.NeuronOperation.Name(request.operation).lower().replace("_", " ")
            parts = [(f"{self.layers[number].name}.{tensor}", 0) for tensor in ("weight", "bias")]
            if number + 1 < len(self.layers):
                parts.append((f"{self.layers[number + 1].name}.weight", 1))
            for tensor, axis in parts:
                touches.append(
                    pb.TensorTouch(
                        tensor=tensor, axis=axis, indices=ranges(neurons), change=change, number_of_indices=len(neurons)
                    )
                )
        inexact = request.operation == pb.REMOVE_NEURONS and INEXACT in places
        return pb.EditPlan(
            summary="a plan",
            neurons=[layer_neurons(self.layers[number].name, neurons) for number, neurons in places.items()],
            touches=touches,
            parameters_before=self.parameters,
            parameters_after=trial.parameters,
            multiply_adds_before=self.parameters * 64,
            multiply_adds_after=trial.parameters * 64,
            inexact=["classifier.norm (LayerNorm) mixes the neurons of classifier.fc1"] if inexact else [],
            measured=pb.LogitChange(max_abs=0.25, relative_to_largest=0.03125, samples=64) if request.measure else None,
        )

    # -- what is known

    def health(self, number: int, n: int) -> pb.NeuronHealth.ValueType:
        neuron = self.layers[number].neurons[n]
        if neuron.frozen:
            return pb.FROZEN
        if neuron.seed >= 1000:
            return pb.YOUNG
        if neuron.rate == 0:
            return pb.DEAD
        if neuron.seed % 11 == 3:
            return pb.OVERFIT
        return pb.REDUNDANT if neuron.seed % 13 == 6 else pb.GOOD

    def layer(
        self, number: int, age: int, wanted: list[int], *, neurons: bool, details: bool
    ) -> pb.LayerRepresentation:
        """A layer as the wire tells it."""
        layer = self.layers[number]
        healths = [self.health(number, n) for n in range(len(layer.neurons))]
        for n in wanted:
            if n >= len(layer.neurons):
                raise Missing(f"layer {layer.name} has no neuron {n}")
        mean = sum(neuron.rate for neuron in layer.neurons) / len(layer.neurons)
        told = pb.LayerRepresentation(
            layer_id=str(number),
            layer_name=layer.name,
            layer_type=layer.kind,
            neurons_count=len(layer.neurons),
            incoming_neurons_count=layer.incoming,
            kernel_size=[3, 3] if layer.kind == "Conv2d" else [],
            parameter_count=len(layer.neurons) * (layer.incoming * layer.kernel + 1),
            frozen_count=healths.count(pb.FROZEN),
            dead_count=healths.count(pb.DEAD),
            overfit_count=healths.count(pb.OVERFIT),
            redundant_count=healths.count(pb.REDUNDANT),
            is_output=number == len(self.layers) - 1,
            train_trigger_rate=mean,
            eval_trigger_rate=mean,
            frozen_incoming=ranges(sorted(layer.frozen_incoming)),
        )
        if neurons:
            chosen = wanted or range(len(layer.neurons))
            told.neurons.extend(self._neuron(layer.neurons[n], n, healths[n], age, details) for n in chosen)
        return told

    def _neuron(
        self, neuron: FakeNeuron, n: int, health: pb.NeuronHealth.ValueType, age: int, details: bool
    ) -> pb.NeuronStatistics:
        rng = random.Random(neuron.seed)
        told = pb.NeuronStatistics(
            neuron_id=n,
            train_trigger_rate=neuron.rate,
            eval_trigger_rate=neuron.rate * (0.4 if health == pb.OVERFIT else 0.97),
            train_age=age if health != pb.YOUNG else 300,
            eval_age=1000,
            frozen=neuron.frozen,
            bias_frozen=neuron.bias_frozen,
            learning_rate=neuron.factor,
            health=health,
            train_mean=neuron.rate * 1.7,
            train_std=0.2 + neuron.rate,
            eval_mean=neuron.rate * 1.6,
            eval_std=0.2 + neuron.rate,
            window_trigger_rate=neuron.rate * 0.9,
            weight_norm=0.0 if neuron.zeroed else 1 + rng.random(),
            relative_change=rng.random() / 20,
        )
        if health == pb.REDUNDANT:
            told.redundant_with = max(n - 1, 0)
        if details:
            told.class_trigger_rates.extend(min(1.0, neuron.rate * 2 * rng.random()) for _ in range(10))
            samples = rng.sample(range(1, 200, 5), 6)
            told.top_samples.extend(
                pb.ExcitingSample(sample_id=str(s), origin="train", activation=9.0 - place)
                for place, s in enumerate(samples)
            )
        return told


def ranges(indices: list[int]) -> list[pb.IndexRange]:
    """Ascending indices as ranges."""
    found: list[pb.IndexRange] = []
    for index in sorted(indices):
        if found and found[-1].last == index - 1:
            found[-1].last = index
        else:
            found.append(pb.IndexRange(first=index, last=index))
    return found


def layer_neurons(name: str, neurons: list[int]) -> pb.LayerNeurons:
    return pb.LayerNeurons(layer_name=name, neurons=ranges(neurons), number_of_neurons=len(neurons))
