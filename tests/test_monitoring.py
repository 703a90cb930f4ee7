from __future__ import annotations

from typing import Any

import torch

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.model_with_ops import NetworkWithOps
from graybox.monitoring import describe_network, describe_samples
from graybox.tracking import TrackingMode
from tests.small_experiments import toy_data
from tests.small_networks import ChainNet, built


def test_one_line_per_layer_with_its_rates() -> None:
    torch.manual_seed(0)
    model: Any = built(ChainNet)
    model.set_tracking_mode(TrackingMode.TRAIN)
    with torch.no_grad():
        model.bn1.bias[0] = -100.0  # dead
    logits = model(ChainNet.example(20))
    model.register_prediction(logits.argmax(1), 3)
    model.fc1.frozen[[1, 2]] = True
    head, *rows, last = describe_network(model).splitlines()
    assert head.split() == ["id", "layer", "type", "neurons", "train", "eval", "dead", "frozen"]
    table = [row.split() for row in rows]
    assert [row[:4] for row in table] == [
        ["0", "conv1", "Conv2d", "4"], ["2", "conv2", "Conv2d", "5"], ["4", "fc1", "Linear", "6"],
        ["5", "fc2", "Linear", "3"],
    ]  # fmt: skip
    for row, layer in zip(table, model.layers, strict=True):
        rates = layer.train_dataset_tracker.rates()
        assert float(row[4]) == round(float(rates.mean()), 3) and row[5] == "0.000"
        assert int(row[6]) == int((rates == 0).sum()) and int(row[7]) == int(layer.frozen.sum())
    assert int(table[0][6]) >= 1 and table[2][7] == "2"
    assert float(table[3][4]) == 0.333  # one prediction per sample among three neurons
    assert last == f"{model.get_parameter_count()} parameters, age 20 samples"
    assert all(row == row.rstrip() for row in rows)


def test_a_network_that_saw_nothing_has_no_dead_neurons() -> None:
    lines = describe_network(built(ChainNet)).splitlines()
    assert [line.split()[4:] for line in lines[1:-1]] == [["0.000", "0.000", "0", "0"]] * 4


def test_a_network_without_layers_is_described_too() -> None:
    assert describe_network(NetworkWithOps()).splitlines()[-1] == "0 parameters, age 0 samples"


def test_one_line_per_split_with_what_its_samples_did() -> None:
    train, val = DataSampleTrackingWrapper(toy_data(1_500)), DataSampleTrackingWrapper(toy_data(20))
    assert describe_samples({"val": val}).splitlines()[1].split() == ["val", "20", "0", "0", "0", "-"]
    labels = train.columns.label
    train.update_batch_sample_stats(8, range(4), [0.5, 0.25, 1.0, float("nan")], [*labels[:3], (labels[3] + 1) % 3])
    train.denylist_samples([7, 8])
    head, *rows = describe_samples({"train": train, "val": val}).splitlines()
    assert head.split() == ["split", "samples", "discarded", "seen", "wrong", "loss"]
    assert rows[0].split() == ["train", "1,500", "2", "4", "1", "0.5833"]
    assert rows[1].startswith("val    20 ") and rows[0].index("2") == head.index("discarded")
