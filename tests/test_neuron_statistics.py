from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.neuron_statistics import DEAD, FROZEN, GOOD, YOUNG, copy_statistics, health
from graybox.proto import experiment_service_pb2 as pb
from graybox.tracking import TrackingMode
from tests.small_networks import ChainNet, built, one_thread  # noqa: F401


def test_the_numbers_are_those_of_the_wire() -> None:
    assert (GOOD, YOUNG, DEAD, FROZEN) == (pb.GOOD, pb.YOUNG, pb.DEAD, pb.FROZEN)


rates = st.sampled_from([0.0, 9e-4, 1e-3, 0.5, 1.0])
ages = st.sampled_from([0, 999, 1000, 10**9])


@given(st.lists(st.tuples(rates, ages, st.booleans())))
def test_a_neuron_is_frozen_before_young_before_dead_before_good(neurons: list[tuple[float, int, bool]]) -> None:
    def verdict(rate: float, age: int, frozen: bool) -> int:
        if frozen:
            return FROZEN
        if age < 1000:
            return YOUNG
        return DEAD if rate < 0.001 else GOOD

    rates, ages, frozen = (np.array([n[i] for n in neurons]) for i in range(3))
    found = health(rates, ages, frozen.astype(bool))
    assert found.tolist() == [verdict(*neuron) for neuron in neurons]


def test_statistics_are_copies_of_what_the_network_holds() -> None:
    torch.manual_seed(0)
    model: Any = built(ChainNet)
    model.set_tracking_mode(TrackingMode.TRAIN)
    for _ in range(3):
        model(ChainNet.example(500))
    model.set_tracking_mode(TrackingMode.EVAL)
    model(ChainNet.example(40))
    model.conv1.frozen[2] = True
    model.fc1.set_per_neuron_learning_rate([1], 0.25)
    model.conv2.train_dataset_tracker.reset([0])
    statistics = copy_statistics(model, 17)

    assert statistics.step == 17 and list(statistics.layers) == [0, 2, 4, 5]
    for layer in model.layers:
        copied = statistics.layers[layer.get_module_id()]
        for values in (copied.train_rate, copied.eval_rate, copied.train_age, copied.eval_age, copied.frozen,
                       copied.learning_rate, copied.health):  # fmt: skip
            assert values.shape == (layer.neuron_count,)
        np.testing.assert_array_equal(copied.train_rate, layer.train_dataset_tracker.rates().numpy())
        np.testing.assert_array_equal(copied.eval_rate, layer.eval_dataset_tracker.rates().numpy())
    conv1, conv2, fc1, fc2 = statistics.layers.values()
    assert conv1.train_age.tolist() == [1500] * 4 and conv1.eval_age.tolist() == [40] * 4
    assert conv1.frozen.tolist() == [False, False, True, False] and conv1.health.tolist() == [GOOD, GOOD, FROZEN, GOOD]
    assert conv2.health.tolist()[0] == YOUNG and fc1.learning_rate.tolist() == [1, 0.25, 1, 1, 1, 1]
    assert fc2.health.tolist() == [YOUNG] * 3  # nobody told what the prediction was

    before = [values.copy() for values in (conv1.train_rate, conv1.train_age, conv1.frozen, fc1.learning_rate)]
    model.set_tracking_mode(TrackingMode.TRAIN)
    model(-ChainNet.example(500))
    model.conv1.frozen[0] = True
    model.fc1.set_per_neuron_learning_rate([0], 0.5)
    model.reset_all_stats()
    for kept, values in zip(before, (conv1.train_rate, conv1.train_age, conv1.frozen, fc1.learning_rate), strict=True):
        np.testing.assert_array_equal(kept, values)


def test_a_layer_says_how_it_is_built() -> None:
    conv1, conv2, fc1, fc2 = (s.info for s in copy_statistics(built(ChainNet), 0).layers.values())
    assert (conv1.layer_id, conv1.name, conv1.layer_type) == (0, "conv1", "Conv2d")
    assert (conv2.neurons, conv2.incoming_neurons, conv2.kernel_size, conv2.stride) == (5, 4, (3, 3), (1, 1))
    assert (conv1.parameter_count, conv2.parameter_count) == (4 * 2 * 9 + 4, 5 * 4 * 9)
    assert (fc1.layer_type, fc1.kernel_size, fc1.stride, fc1.incoming_neurons) == ("Linear", (), (), 20)
    assert [info.is_output for info in (conv1, conv2, fc1, fc2)] == [False, False, False, True]
    assert [info.consumers for info in (conv1, conv2, fc1, fc2)] == [(2,), (4,), (5,), ()]
