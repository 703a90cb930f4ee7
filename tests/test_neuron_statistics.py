from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graybox.neuron_health import HealthThresholds
from graybox.neuron_statistics import (
    COPIED_CLASSES,
    DEAD,
    FROZEN,
    GOOD,
    OVERFIT,
    REDUNDANT,
    YOUNG,
    copy_statistics,
    fetched,
    layer_statistics,
    on_device,
)
from graybox.tracking import RecordSettings, TrackingMode
from tests.no_waiting import NoWaiting
from tests.small_networks import ChainNet, built, one_thread  # noqa: F401


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


def trained(classes: int = 3) -> Any:
    """A network that saw 1,200 samples in training and 200 in evaluation, with gradients."""
    torch.manual_seed(0)
    model: Any = built(ChainNet)
    model.ledger.settings = RecordSettings(classes=classes)
    for mode, batches in ((TrackingMode.TRAIN, 12), (TrackingMode.EVAL, 2)):
        for number in range(batches):
            model.set_tracking_mode(mode)
            model.ledger.samples_are(torch.arange(100) + 100 * number, torch.arange(100) % 3)
            logits = model(ChainNet.example(100))
            model.register_prediction(logits.argmax(1), 3)
            logits.square().mean().backward()
    model.set_tracking_mode(TrackingMode.DISABLED)
    return model


def test_everything_known_of_a_neuron_is_copied() -> None:
    model = trained()
    before = {name: layer.weight.detach().clone() for name, layer in model.named_layers()}
    for _, layer in model.named_layers():
        layer.records.keep_weights(layer.weight)
    with torch.no_grad():
        model.conv1.weight[1] *= 1.5
    for (name, layer), copied in zip(model.named_layers(), copy_statistics(model, 1).layers.values(), strict=True):
        train, weight = layer.records.train, layer.weight.detach().double().flatten(1)
        np.testing.assert_array_equal(copied.train_mean, train.totals.means(recent=False))
        np.testing.assert_array_equal(copied.train_std, train.totals.deviations(recent=False))
        np.testing.assert_array_equal(copied.eval_mean, layer.records.eval.totals.means(recent=False))
        np.testing.assert_array_equal(copied.window_rate, train.totals.rates(recent=True))
        np.testing.assert_array_equal(copied.window_mean, train.totals.means(recent=True))
        np.testing.assert_array_equal(copied.top_samples, train.exciting.top()[0])
        np.testing.assert_array_equal(copied.top_values, train.exciting.top()[1])
        if copied.class_rates is not None:
            np.testing.assert_array_equal(copied.class_rates, train.classes.rates())
        assert copied.top_samples is not None and copied.top_samples.dtype == np.int64
        np.testing.assert_allclose(copied.weight_norm, weight.norm(dim=1), rtol=1e-6)
        np.testing.assert_allclose(copied.gradient_norm, layer.weight.grad.double().flatten(1).norm(dim=1), rtol=1e-6)
        change = (weight - before[name].double().flatten(1)).norm(dim=1) / before[name].double().flatten(1).norm(dim=1)
        np.testing.assert_allclose(copied.relative_change, change, rtol=1e-6)
        assert float(change.max()) == pytest.approx(0.5 if name == "conv1" else 0)
        assert name == "fc2" or (copied.class_rates is not None and copied.class_rates.shape[1] == 3)


def test_a_copy_waits_once() -> None:
    model = trained()
    with NoWaiting():
        found = [on_device(layer, HealthThresholds(), fresh=True) for layer in model.layers]
    assert {"weight_norm", "redundant_with", "train_mean", "top_samples", "class_rates"} <= set(found[0])
    read = fetched(found)  # the one transfer
    for group, values in zip(found, read, strict=True):
        assert group.keys() == values.keys()
        for name, tensor in group.items():
            np.testing.assert_array_equal(values[name], tensor.detach().double().numpy(), err_msg=name)


def test_sizes_that_would_be_dear_to_copy_are_left_out() -> None:
    copied = copy_statistics(trained(COPIED_CLASSES + 1), 1).layers[0]
    assert copied.class_rates is None and copied.train_mean is not None


def test_health_follows_what_the_neurons_do() -> None:
    model = trained()
    thresholds = HealthThresholds(young_below=1_200, overfit_above=0.3)
    with torch.no_grad():
        model.fc1.weight[4] = 2 * model.fc1.weight[1]
        model.fc1.bias[4] = 2 * model.fc1.bias[1]
    totals = [model.fc1.records.train.totals.sums["sums"], model.fc1.records.eval.totals.sums["sums"]]
    for sums, eval_rate in zip(totals, (0.5, 0.9), strict=True):
        sums[:2, 0] = 0
        sums[2, 0] = 0.5 * (1_200 if sums is totals[0] else 200)
        sums[2, 0, 2] = eval_rate * (1_200 if sums is totals[0] else 200)
    totals[0][2, 0, 3] = 0  # dead
    model.fc1.frozen[5] = True

    def fc1(fresh: bool, limits: HealthThresholds = thresholds) -> Any:
        return layer_statistics(model, "fc1", model.fc1, False, limits, fresh=fresh)

    found = fc1(fresh=True)
    assert found.health.tolist() == [GOOD, GOOD, OVERFIT, DEAD, REDUNDANT, FROZEN]
    assert found.redundant_with.tolist() == [-1, -1, -1, -1, 1, -1]
    assert found.similarity[4] == pytest.approx(1)
    assert fc1(True, HealthThresholds(young_below=1_201)).health.tolist() == [YOUNG] * 5 + [FROZEN]
    assert fc1(True, HealthThresholds(young_below=1_201)).redundant_with.tolist() == [-1] * 6


def test_what_takes_long_is_worked_out_anew_when_asked_or_after_an_edit() -> None:
    model = trained()
    layer = model.conv2
    layer.records.readings_due = float("inf")  # as after one that took very long
    first = layer.records.readings = {"weight_norm": torch.ones(5, dtype=torch.float64)}
    assert on_device(layer, HealthThresholds(), fresh=False)["weight_norm"] is first["weight_norm"]
    assert on_device(layer, HealthThresholds(), fresh=True)["weight_norm"].tolist() != [1] * 5
    assert layer.records.readings_due < float("inf")
    layer.records.readings, layer.records.readings_due = first, float("inf")
    layer.records.reset([0])
    assert on_device(layer, HealthThresholds(), fresh=False)["weight_norm"].tolist() != [1] * 5


def test_without_gradients_or_a_checkpoint_these_are_unknown() -> None:
    for copied in copy_statistics(built(ChainNet), 0).layers.values():
        for unknown in (copied.gradient_norm, copied.relative_change, copied.train_mean, copied.window_rate):
            assert unknown is not None and np.isnan(unknown).all()
        assert copied.train_rate.tolist() == [0] * len(copied.train_rate)
        assert (copied.health == YOUNG).all() and copied.class_rates is None
