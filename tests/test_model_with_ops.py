from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graybox.errors import Invalid, NotFound
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import (
    BatchNorm2dWithNeuronOps,
    Conv2dWithNeuronOps,
    Intermediary,
    LinearWithNeuronOps,
    NeuronLayer,
)
from graybox.neuron_ops import AddNeurons
from graybox.operable_network import operable
from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor
from tests.small_networks import ChainNet, ResidualNet, SequenceNet, built, one_thread  # noqa: F401

NETWORKS: dict[str, Callable[[], tuple[NetworkWithOps, Callable[..., torch.Tensor]]]] = {
    kind.__name__: (lambda kind=kind: (built(kind), kind.example))  # type: ignore[misc]
    for kind in (ChainNet, ResidualNet, SequenceNet)
}


class Recorder:
    """What each consumer got and what the network answered, taken with plain hooks and counted sample by sample."""

    def __init__(self, model: NetworkWithOps) -> None:
        self.model = model
        self.shares: dict[str, list[np.ndarray]] = {name: [] for name, _ in model.named_layers()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = []
        for name, layer in self.model.named_layers():
            consumers = self.model.consumers(layer)
            if consumers:
                hook = lambda _, inputs, name=name, layer=layer: self._count(name, layer, inputs[0])  # noqa: E731
                hooks.append(consumers[0].register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for removable in hooks:
                removable.remove()

    def _count(self, name: str, layer: NeuronLayer, x: torch.Tensor) -> None:
        values = x.detach().double().numpy()
        for sample in values:
            if isinstance(layer, nn.Conv2d):
                by_neuron = sample.reshape(layer.neuron_count, -1)
            else:
                by_neuron = sample.reshape(-1, layer.neuron_count).T
            self.shares[name].append((by_neuron > 0).mean(axis=1))

    def predicted(self, logits: torch.Tensor) -> None:
        layer = self.model.output_layer()
        name = next(n for n, found in self.model.named_layers() if found is layer)
        self.shares[name] += list(np.eye(logits.shape[1])[logits.detach().argmax(1).numpy()])

    def check(self, tracker: str) -> None:
        for name, layer in self.model.named_layers():
            seen = getattr(layer, tracker)
            np.testing.assert_allclose(
                seen.rates().numpy(), np.mean(self.shares[name], axis=0), rtol=0, atol=1e-12, err_msg=name
            )
            assert seen.ages().tolist() == [len(self.shares[name])] * layer.neuron_count, name
            assert float(seen.rates().min()) >= 0 and float(seen.rates().max()) <= 1, name


def forward(model: NetworkWithOps, x: torch.Tensor, mode: TrackingMode, recorder: Recorder) -> None:
    model.set_tracking_mode(mode)
    with recorder.watching():
        logits = model(x)
    model.register_prediction(logits.detach().argmax(1), logits.shape[1])
    recorder.predicted(logits)
    model.set_tracking_mode(TrackingMode.DISABLED)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", ["plain", "channels last", "autocast"])
def test_trigger_rates_are_those_of_the_tensor_that_the_next_weighted_layer_consumes(name: str, variant: str) -> None:
    torch.manual_seed(1)
    model, example = NETWORKS[name]()
    train, evaluation = Recorder(model), Recorder(model)
    if variant == "channels last":
        model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=variant == "autocast"):
        for batch in (7, 3):
            x = example(batch)
            if variant == "channels last" and x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            forward(model, x, TrackingMode.TRAIN, train)
            model(x)  # not tracked
            model.eval()
            with torch.no_grad():
                forward(model, example(batch + 1), TrackingMode.EVAL, evaluation)
            model.train()
    train.check("train_dataset_tracker")
    evaluation.check("eval_dataset_tracker")
    assert model.get_age() == 10
    rates = torch.cat([layer.train_dataset_tracker.rates() for layer in model.layers])
    assert 0.1 < float(rates.mean()) < 0.9  # not all on or all off, or the comparison would say nothing


def test_counting_asks_the_device_for_nothing() -> None:
    # Meta tensors have no values: whatever waits for one raises.
    model = ChainNet().to("meta")
    model.set_tracking_mode(TrackingMode.TRAIN)
    model.ledger.hold()
    logits = model(torch.empty(7, 2, 8, 8, device="meta"))
    model.register_prediction(logits.argmax(1), 3)
    model.ledger.commit()
    assert [layer.train_dataset_tracker.samples for layer in model.layers] == [7] * 4
    assert all(layer.train_dataset_tracker.triggers.device.type == "meta" for layer in model.layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_watching_does_not_change_what_the_network_computes(name: str) -> None:
    model, example = NETWORKS[name]()
    twin = copy.deepcopy(model)
    x = example()
    model.set_tracking_mode(TrackingMode.TRAIN)
    one, other = model(x), twin(x)
    assert torch.equal(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad)
    assert all(layer.train_dataset_tracker.samples == 0 for layer in twin.layers)
    assert twin.layers[0] is not model.layers[0] and twin.ledger is twin.layers[0].ledger


def test_a_dropped_step_leaves_the_statistics_as_they_were() -> None:
    model = built(ChainNet)
    recorder = Recorder(model)
    forward(model, ChainNet.example(5), TrackingMode.TRAIN, recorder)
    before = [layer.ops_state() for layer in model.layers]
    model.set_tracking_mode(TrackingMode.TRAIN)
    model.ledger.hold()
    logits = model(ChainNet.example(5))
    model.register_prediction(logits.argmax(1), 3)
    model.ledger.drop()
    recorder.check("train_dataset_tracker")
    for layer, state in zip(model.layers, before, strict=True):
        assert torch.equal(layer.ops_state()["train"]["triggers"], state["train"]["triggers"])
    model.ledger.hold()
    forward(model, ChainNet.example(4), TrackingMode.TRAIN, recorder)
    model.ledger.commit()
    recorder.check("train_dataset_tracker")


class SeedNet(NetworkWithOps):
    """As in the first users' script: softmax at the end, the last layer's prediction registered by forward itself."""

    def __init__(self) -> None:
        super().__init__()
        self.tracking_mode = TrackingMode.DISABLED
        self.layer1 = Conv2dWithNeuronOps(in_channels=3, out_channels=8, kernel_size=3, padding=1)
        self.bnorm1 = BatchNorm2dWithNeuronOps(8)
        self.mpool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc1 = LinearWithNeuronOps(in_features=8 * 5 * 5, out_features=10)
        self.drop1 = nn.Dropout(0.25)
        self.fc3 = LinearWithNeuronOps(in_features=10, out_features=20)
        self.softmax = nn.Softmax(dim=1)

    def define_deps(self) -> None:
        self.register_dependencies(
            [
                (self.layer1, self.bnorm1, DepType.SAME),
                (self.bnorm1, self.fc1, DepType.INCOMING),
                (self.fc1, self.fc3, DepType.INCOMING),
            ]
        )
        self.flatten_conv_id = self.bnorm1.get_module_id()

    def forward(self, x: torch.Tensor, intermediary: Intermediary | None = None) -> torch.Tensor:
        self.maybe_update_age(x)
        inputs = x
        x = self.layer1(x, intermediary=intermediary)
        x = self.mpool1(F.relu(self.bnorm1(x)))
        x = x.view(x.size(0), -1)
        x = self.drop1(F.relu(self.fc1(x, intermediary=intermediary)))
        output = self.fc3(x, skip_register=True, intermediary=None)
        one_hot = F.one_hot(output.argmax(dim=1), num_classes=self.fc3.out_features)
        if hasattr(inputs, "in_id_batch") and hasattr(inputs, "label_batch"):
            add_tracked_attrs_to_input_tensor(one_hot, in_id_batch=inputs.in_id_batch, label_batch=inputs.label_batch)
        self.fc3.register(one_hot)
        answer: torch.Tensor = self.softmax(output)
        return answer


def test_a_network_that_registers_its_prediction_itself_is_counted_once() -> None:
    torch.manual_seed(0)
    model = SeedNet()
    model.define_deps()
    recorder = Recorder(model)
    for batch in (6, 5):
        x = add_tracked_attrs_to_input_tensor(
            torch.randn(batch, 3, 10, 10), in_id_batch=torch.arange(batch), label_batch=torch.zeros(batch)
        )
        model.ledger.hold()
        forward(model, x, TrackingMode.TRAIN, recorder)
        model.ledger.commit()
        forward(model, x, TrackingMode.EVAL, Recorder(model))
    recorder.check("train_dataset_tracker")
    assert model.fc3.eval_dataset_tracker.samples == 11
    assert model.flatten_conv_id == 1
    intermediary: Intermediary = {}
    model(x, intermediary=intermediary)
    assert sorted(intermediary) == [model.layer1.get_module_id(), model.fc1.get_module_id()]


def test_the_output_counts_only_where_each_class_has_a_neuron() -> None:
    model = built(ChainNet)
    model.set_tracking_mode(TrackingMode.TRAIN)
    model.register_prediction(torch.tensor([0, 2, 2]), 4)
    assert model.fc2.train_dataset_tracker.samples == 0  # type: ignore[union-attr]
    model.register_prediction(torch.tensor([0, 2, 2]), 3)
    assert model.fc2.train_dataset_tracker.triggers.tolist() == [1, 0, 2]  # type: ignore[union-attr]
    model.set_tracking_mode(TrackingMode.DISABLED)
    model.register_prediction(torch.tensor([0, 2, 2]), 3)
    assert model.fc2.train_dataset_tracker.samples == 3  # type: ignore[union-attr]


class Unlinked(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.one = LinearWithNeuronOps(3, 4)
        self.two = LinearWithNeuronOps(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        answer: torch.Tensor = self.two(F.relu(self.one(x)))
        return answer


def test_without_declared_dependencies_each_layer_counts_its_own_output() -> None:
    model = Unlinked()
    model.set_tracking_mode(TrackingMode.TRAIN)
    x = torch.randn(9, 3)
    logits = model(x)
    model.register_prediction(logits.argmax(1), 2)
    torch.testing.assert_close(model.one.train_dataset_tracker.rates(), (model.one(x) > 0).double().mean(0))
    assert model.two.train_dataset_tracker.triggers.tolist() == torch.bincount(logits.argmax(1), minlength=2).tolist()
    assert model.get_age() == 9 and model.output_layer() is model.two


class Concatenating(NetworkWithOps):
    def __init__(self, linear: bool) -> None:
        super().__init__()
        make = LinearWithNeuronOps if linear else (lambda i, o: Conv2dWithNeuronOps(i, o, 1))
        self.left, self.right, self.head = make(3, 4), make(3, 4), make(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(torch.cat([self.left(x), self.right(x)], dim=1))
        return answer


@pytest.mark.parametrize("linear", [True, False])
def test_behind_a_concatenation_each_layer_counts_its_own_output_and_says_so(linear: bool) -> None:
    model = Concatenating(linear)
    with pytest.warns(UserWarning, match=r"left, right.*concatenation"):
        model.register_dependencies(
            [(model.left, model.head, DepType.INCOMING), (model.right, model.head, DepType.INCOMING)]
        )
    assert model.output_layer() is model.head
    model.set_tracking_mode(TrackingMode.TRAIN)
    x = torch.randn((9, 3) if linear else (9, 3, 4, 4))
    model(x)
    for layer in (model.left, model.right):
        expected = (layer(x, skip_register=True) > 0).double().transpose(0, 1).flatten(1).mean(1)
        torch.testing.assert_close(layer.train_dataset_tracker.rates(), expected)


def test_a_layer_that_nothing_is_declared_to_consume_is_named() -> None:
    model = built(ChainNet)
    with pytest.warns(UserWarning, match="conv1, conv2"):
        model.register_dependencies([(model.fc1, model.fc2, DepType.INCOMING)])  # type: ignore[list-item]


def test_a_refused_declaration_changes_nothing() -> None:
    model = built(ChainNet)
    before = model.dependencies
    stranger = LinearWithNeuronOps(6, 3)
    with pytest.raises(Invalid, match="not part of this network"):
        model.register_dependencies([(model.fc1, stranger, DepType.INCOMING)])  # type: ignore[list-item]
    with pytest.raises(Invalid, match="cannot consume"):
        model.register_dependencies([(model.conv1, model.bn1, DepType.INCOMING)])  # type: ignore[list-item]
    assert model.dependencies is before


def test_layers_are_found_by_name_and_number() -> None:
    model = built(ChainNet)
    assert [name for name, _ in model.named_layers()] == ["conv1", "conv2", "fc1", "fc2"]
    assert [layer.get_module_id() for layer in model.layers] == [0, 2, 4, 5]  # normalisations have numbers too
    assert model.find_layer("conv2") == ("conv2", model.conv2) == model.find_layer("2")
    assert model.get_layer_by_id(4) is model.fc1
    for reference in ("bn1", "1", "", "conv", "-1"):
        with pytest.raises(NotFound, match=r"0 \(conv1\), 2 \(conv2\)"):
            model.find_layer(reference)
    for number in (1, 6, -1):
        with pytest.raises(NotFound, match=r"0 \(conv1\), 2 \(conv2\)"):
            model.get_layer_by_id(number)
    assert model.output_layer() is model.fc2


def test_a_layer_put_in_place_of_another_is_noticed() -> None:
    model = Unlinked()
    model.register_dependencies([(model.one, model.two, DepType.INCOMING)])
    model.two = LinearWithNeuronOps(4, 3)
    with pytest.warns(UserWarning, match="one"):
        assert model.layers == [model.one, model.two]
    assert model.two.ledger is model.ledger and model.output_layer() is model.two


def test_parameters_of_neurons_are_those_with_a_row_for_each() -> None:
    model = Unlinked()
    model.shared, model.own = nn.PReLU(1), nn.PReLU(4)
    model.register_dependencies(
        [
            (model.one, model.shared, DepType.SAME),
            (model.one, model.own, DepType.SAME),
            (model.one, model.two, DepType.INCOMING),
        ]
    )
    found = [id(p) for p in model.neuron_parameters(model.one)]
    assert found == [id(model.one.weight), id(model.one.bias), id(model.own.weight)]


def test_statistics_are_reset_by_layer_and_altogether() -> None:
    model = built(ChainNet)
    recorder = Recorder(model)
    forward(model, ChainNet.example(5), TrackingMode.TRAIN, recorder)
    forward(model, ChainNet.example(5), TrackingMode.EVAL, recorder)
    model.reset_stats_by_layer_id(2)
    trackers = [(layer.train_dataset_tracker, layer.eval_dataset_tracker) for layer in model.layers]
    ages = [(train.get_neuron_age(0), evaluation.get_neuron_age(0)) for train, evaluation in trackers]
    assert ages == [(5, 5), (0, 0), (5, 5), (5, 5)]
    model.reset_all_stats()
    assert all(layer.train_dataset_tracker.get_neuron_age(0) == 0 for layer in model.layers)
    with pytest.raises(NotFound):
        model.reset_stats_by_layer_id(1)


def test_age_grows_in_training_only() -> None:
    model = built(ChainNet)
    for mode, age in ((TrackingMode.DISABLED, 0), (TrackingMode.EVAL, 0), (TrackingMode.TRAIN, 4)):
        model.tracking_mode = mode
        model(ChainNet.example(4))
        assert model.get_age() == age
    model.set_age(9)
    assert model.get_age() == 9
    assert model.get_parameter_count() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_very_deep_network_is_copied_and_pickled(copied: Callable[[nn.Module], nn.Module]) -> None:
    """Layers know whose neurons they read; following that from one to the next would be deeper than Python allows."""
    layers: list[nn.Module] = []
    for _ in range(400):
        layers += [nn.Linear(3, 3), nn.ReLU()]
    network = operable(nn.Sequential(*layers), torch.zeros(1, 3))
    again = copied(network)
    x = torch.randn(4, 3)
    assert torch.equal(again(x), network(x))
    again.set_tracking_mode(TrackingMode.TRAIN)
    again(x)
    assert again.layers[7].train_dataset_tracker.get_neuron_age(0) == 4
    assert network.layers[7].train_dataset_tracker.get_neuron_age(0) == 0
    again.surgeon().apply(again.surgeon().plan(AddNeurons(again.named_layers()[5][0], count=1)), seed=0)
    torch.testing.assert_close(again(x), network(x))
