from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from graybox.dependencies import Dependencies, DepType, is_weighted
from graybox.errors import Invalid
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps

SAME, INCOMING, NONE = DepType.SAME, DepType.INCOMING, DepType.NONE


def conv(incoming: int, neurons: int) -> Conv2dWithNeuronOps:
    return Conv2dWithNeuronOps(incoming, neurons, 1)


def test_followers_are_the_normalisations_in_order_and_consumers_come_behind_them() -> None:
    first, second, third = conv(3, 4), conv(4, 5), conv(4, 6)
    norm, plain_norm = BatchNorm2dWithNeuronOps(4), nn.GroupNorm(2, 4)
    dependencies = Dependencies(
        [
            (norm, plain_norm, SAME), (first, norm, SAME), (plain_norm, third, INCOMING), (first, second, INCOMING),
            (norm, third, INCOMING), (second, third, NONE),
        ]
    )  # fmt: skip
    assert dependencies.followers(first) == [norm, plain_norm]
    assert dependencies.consumers(first) == [third, second]  # as declared, each once
    assert dependencies.consumers(second) == [] and dependencies.followers(second) == []
    assert dependencies.producers(third) == [first] and dependencies.producers(second) == [first]
    assert len(dependencies.edges) == 5


def test_two_layers_with_the_same_neurons_do_not_follow_each_other() -> None:
    left, right = conv(3, 4), conv(3, 4)
    dependencies = Dependencies([(left, right, SAME), (right, left, SAME)])
    assert dependencies.followers(left) == [] and is_weighted(right) and not is_weighted(nn.Linear(1, 1))


def test_normalisations_in_a_circle_come_to_an_end() -> None:
    layer, one, two = conv(3, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    assert Dependencies([(layer, one, SAME), (one, two, SAME), (two, one, SAME)]).followers(layer) == [one, two]


@pytest.mark.parametrize(
    "edge",
    [(conv(1, 1), conv(1, 1)), (conv(1, 1), conv(1, 1), "SAME"), (None, conv(1, 1), SAME), "edge", 3, None,
     (conv(1, 1), 3, NONE)],
)  # fmt: skip
def test_a_malformed_edge_is_invalid(edge: Any) -> None:
    with pytest.raises(Invalid, match=r"\(module, module, DepType\)"):
        Dependencies([edge])


@pytest.mark.parametrize("target", [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)])
def test_what_has_no_neuron_operations_cannot_consume(target: nn.Module) -> None:
    with pytest.raises(Invalid, match=f"{type(target).__name__} cannot consume"):
        Dependencies([(conv(3, 4), target, INCOMING)])


def test_positions_tell_how_neurons_are_flattened() -> None:
    layer, other = conv(3, 4), conv(3, 4)
    norm, same, flat, odd = nn.BatchNorm2d(4), conv(4, 2), LinearWithNeuronOps(36, 2), LinearWithNeuronOps(10, 2)
    wide, side_by_side, added = conv(8, 2), LinearWithNeuronOps(8, 2), LinearWithNeuronOps(36, 2)
    dependencies = Dependencies(
        [
            (layer, norm, SAME), (norm, same, INCOMING), (layer, flat, INCOMING), (layer, odd, INCOMING),
            (layer, wide, INCOMING), (other, wide, INCOMING),
            (norm, side_by_side, INCOMING), (other, side_by_side, INCOMING),
            (norm, added, INCOMING), (other, added, INCOMING),
        ]
    )  # fmt: skip
    assert dependencies.producers(side_by_side) == [layer, other]
    found = [dependencies.positions(layer, c) for c in (same, flat, odd, wide, side_by_side, added)]
    assert found == [1, 9, None, None, None, 9]
