from __future__ import annotations

from typing import Any

import pytest
import torch

from graybox.errors import Invalid, NotFound, Refused
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    Reinitialize,
    RemoveNeurons,
    Select,
    Several,
    SortByStat,
    select_from_json,
)
from graybox.selection import STATISTICS, resolve, sorted_order, statistic
from tests.small_networks import one_thread  # noqa: F401
from tests.surgery_cases import Desk


@pytest.fixture
def desk() -> Desk:
    """conv1, conv2, fc1 and the output fc2; conv1's rates and weights are set, the others' are as they come."""
    made = Desk("Chain", steps=1)
    conv: Any = made.network.find_layer("conv1")[1]
    with torch.no_grad():
        for neuron in range(conv.neuron_count):
            conv.weight[neuron] = [3.0, 1.0, 2.0, 0.5, 4.0, 5.0][neuron] / conv.weight[neuron].numel() ** 0.5
    return made


def test_all_neurons_of_a_layer_and_of_all_layers(desk: Desk) -> None:
    counts = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    assert resolve(desk.network, Select(layers=("conv1",))) == {"conv1": tuple(range(counts["conv1"]))}
    assert resolve(desk.network, Select()) == {name: tuple(range(count)) for name, count in counts.items()}
    by_id = str(desk.network.find_layer("conv2")[1].get_module_id())
    assert resolve(desk.network, Select(layers=(by_id,), neurons=(2, 0))) == {"conv2": (0, 2)}


def test_the_output_layer_is_left_alone_by_edits_of_structure_unless_it_is_named(desk: Desk) -> None:
    output = "fc2"
    assert output in resolve(desk.network, Select())
    assert output not in resolve(desk.network, Select(), structural=True)
    assert list(resolve(desk.network, Select(layers=(output,)), structural=True)) == [output]


def test_the_lowest_and_the_highest_by_a_statistic(desk: Desk) -> None:
    def chosen(**options: Any) -> tuple[int, ...]:
        return resolve(desk.network, Select(layers=("conv1",), statistic="weight_norm", **options))["conv1"]

    count = desk.network.find_layer("conv1")[1].neuron_count
    norms = [3.0, 1.0, 2.0, 0.5, 4.0, 5.0][:count]
    order = sorted(range(count), key=norms.__getitem__)
    assert chosen(lowest=2) == tuple(sorted(order[:2]))
    assert chosen(lowest=2, highest=True) == tuple(sorted(order[-2:]))
    assert chosen(share=0.5) == tuple(sorted(order[: count // 2]))
    assert chosen(share=0.01) == (order[0],), "at least one"
    assert chosen(share=1.0) == tuple(range(count))
    assert chosen(lowest=99) == tuple(range(count))
    assert chosen(lowest=1, neurons=(0, 2)) == (2,)


def test_the_lowest_over_all_layers_together(desk: Desk) -> None:
    found = resolve(desk.network, Select(lowest=3, statistic="weight_norm"))
    every = sorted(
        (value, name, number)
        for name, layer in desk.network.named_layers()
        for number, value in enumerate(statistic(layer, "weight_norm").tolist())
    )
    assert {(name, n) for name, neurons in found.items() for n in neurons} == {(name, n) for _, name, n in every[:3]}


def test_by_health_and_by_predicate(desk: Desk) -> None:
    desk.do(Freeze("conv2", (1,)))
    assert resolve(desk.network, Select(health="frozen")) == {"conv2": (1,)}
    found = resolve(desk.network, Select(predicate=lambda n: n.frozen or (n.layer == "conv1" and n.neuron == 0)))
    assert found == {"conv1": (0,), "conv2": (1,)}
    rates = desk.network.find_layer("conv2")[1].train_dataset_tracker.rates()
    found = resolve(
        desk.network,
        Select(layers=("conv2",), predicate=lambda n: n["trigger_rate"] >= float(rates.max()) and n.age == 6),
    )
    assert found == {"conv2": tuple(int(i) for i in (rates == rates.max()).nonzero().flatten())}
    assert resolve(desk.network, Select(layers=("conv1",), predicate=lambda n: n.health == "young"))["conv1"]


@pytest.mark.parametrize(
    ("select", "error", "message"),
    [
        (Select(layers=("nowhere",)), NotFound, "no layer 'nowhere'"),
        (Select(layers=("conv1",), neurons=(99,)), NotFound, "no neuron 99"),
        (Select(lowest=1, statistic="beauty"), NotFound, "no statistic 'beauty'; there are age, "),
        (Select(predicate=lambda n: n["beauty"] > 1), NotFound, "no statistic 'beauty'"),
        (Select(predicate=lambda n: False), Refused, "no neuron matches all layers and the given condition"),
        (Select(layers=("conv1",), health="dead"), Refused, "no neuron matches layers conv1 and health dead"),
        (Select(health="sleepy"), Invalid, "no health 'sleepy'; there are good, young, dead"),
    ],
)
def test_what_selects_nothing_is_refused(desk: Desk, select: Select, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        desk.surgeon.plan(Freeze(""), select)


def test_an_edit_by_selection_is_resolved_to_neurons(desk: Desk) -> None:
    plan = desk.surgeon.plan(Reinitialize("", perturbation_ratio=0.5), Select(layers=("conv1", "fc1"), neurons=(0, 1)))
    assert plan.edit == Several(
        edits=(
            Reinitialize("conv1", (0, 1), perturbation_ratio=0.5),
            Reinitialize("fc1", (0, 1), perturbation_ratio=0.5),
        )
    )
    single = desk.surgeon.plan(RemoveNeurons(""), Select(layers=("conv1",), lowest=1, statistic="weight_norm"))
    assert single.edit == RemoveNeurons("conv1", (3,))
    counts = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    desk.surgeon.apply(desk.surgeon.plan(AddNeurons("", count=1), Select()), 1)
    for name, layer in desk.network.named_layers():
        assert layer.neuron_count == counts[name] + (name != "fc2")
    sorting = desk.surgeon.plan(SortByStat(""), Select(layers=("conv1", "conv2")))
    assert all(isinstance(part.edit, SortByStat) for part in sorting.parts)


def test_every_statistic_is_a_number_for_each_neuron(desk: Desk) -> None:
    for name in STATISTICS:
        for _, layer in desk.network.named_layers():
            assert statistic(layer, name).shape == (layer.neuron_count,), name


def test_ties_keep_their_order(desk: Desk) -> None:
    conv: Any = desk.network.find_layer("conv1")[1]
    assert sorted_order(conv, "age", descending=True) == tuple(range(conv.neuron_count))
    norms = statistic(conv, "weight_norm")
    assert list(norms[list(sorted_order(conv, "weight_norm", descending=True))]) == sorted(norms, reverse=True)


@pytest.mark.parametrize(
    ("query", "predicate"),
    [
        (
            "weight_norm > 1.5 and layer_type == 'Conv2d'",
            lambda v: v["weight_norm"] > 1.5 and v.layer.startswith("conv"),
        ),
        ("layer == 'fc1' and neuron in (0, 3)", lambda v: v.layer == "fc1" and v.neuron in (0, 3)),
        ("layer like 'conv%' and not frozen and age >= 1", lambda v: v.layer.startswith("conv") and v.age >= 1),
        ("health == 'young' and neuron % 2 == 0", lambda v: v.health == "young" and v.neuron % 2 == 0),
        ("df[df['neuron'] < 2]", lambda v: v.neuron < 2),
    ],
)
def test_a_query_selects_as_a_function_does(desk: Desk, query: str, predicate: Any) -> None:
    found = resolve(desk.network, Select(query=query))
    assert found == resolve(desk.network, Select(predicate=predicate))
    assert found != resolve(desk.network, Select())


def test_a_query_may_sort_and_limit_and_goes_with_the_other_conditions(desk: Desk) -> None:
    found = resolve(desk.network, Select(query="layer == 'conv1' sortby weight_norm limit 3"))
    assert found == resolve(desk.network, Select(layers=("conv1",), lowest=3, statistic="weight_norm"))
    assert resolve(desk.network, Select(query="neuron < 3", layers=("fc1",), neurons=(2, 5))) == {"fc1": (2,)}
    select = Select(query="neuron < 3")
    assert select_from_json(select.to_json()) == select


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ("weight_nrm > 1", Invalid, "weight_norm"),
        ("weight_norm >", Invalid, "character"),
        ("show count", Invalid, "a query selects neurons by a condition"),
        ("@reset", Invalid, "a query selects neurons by a condition"),
        ("weight_norm < 0", Refused, "no neuron matches all layers and the query weight_norm < 0"),
    ],
)
def test_a_query_that_selects_nothing_says_why(desk: Desk, query: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        resolve(desk.network, Select(query=query))
