from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.tracking import Ledger, TrackingMode, TriggersTracker, add_tracked_attrs_to_input_tensor, trigger_shares


def naive_shares(values: np.ndarray) -> np.ndarray:
    """[batch, neurons, positions] -> [neurons], one neuron and sample after the other."""
    batch, neurons, positions = values.shape
    shares = np.zeros(neurons)
    for sample in range(batch):
        for neuron in range(neurons):
            shares[neuron] += sum(1 for v in values[sample, neuron] if v > 0) / positions
    return shares


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64]


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(0, 5),
    neurons=st.integers(1, 6),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 10_000),
)
def test_every_layout_of_the_same_values_counts_the_same(
    batch: int, neurons: int, height: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-2, 3, (batch, neurons, height, width), generator=generator).to(dtype)
    expected = naive_shares(values.double().numpy().reshape(batch, neurons, height * width))

    layouts = {
        "image": trigger_shares(values, neurons),
        "channels last in memory": trigger_shares(values.contiguous(memory_format=torch.channels_last), neurons),
        "flattened image": trigger_shares(values.flatten(1), neurons),
        "features last": trigger_shares(values.permute(0, 2, 3, 1), neurons, features_last=True),
        "flattened sequence": trigger_shares(
            values.permute(0, 2, 3, 1).flatten(1), neurons, features_last=True, flat_features_last=True
        ),
    }

    for name, shares in layouts.items():
        assert shares.dtype == torch.float64 and shares.shape == (neurons,), name
        np.testing.assert_allclose(shares.numpy(), expected, rtol=1e-12, err_msg=name)
        assert float(shares.max()) <= batch and float(shares.min()) >= 0, name


def test_only_positive_values_trigger() -> None:
    values = torch.tensor([[0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45]])
    assert trigger_shares(values, 6).tolist() == [0, 0, 0, 1, 0, 1]


def test_a_smaller_tensor_after_a_larger_one_sees_nothing_of_it() -> None:
    assert trigger_shares(torch.ones(50, 3, 9, 9), 3).tolist() == [50, 50, 50]
    assert trigger_shares(-torch.ones(2, 3, 2, 2), 3).tolist() == [0, 0, 0]


def test_counting_leaves_no_trace_in_the_gradient() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    shares = trigger_shares(x, 3)
    assert not shares.requires_grad
    x.sum().backward()  # would fail if counting had written to x
    assert x.grad is not None and torch.equal(x.grad, torch.ones(4, 3))


@pytest.mark.parametrize(
    ("shape", "features_last"),
    [((4, 5), False), ((4, 5, 2), False), ((4, 3, 2), True), ((3,), False), ((4, 2), False)],
)
def test_a_shape_that_does_not_fit_is_invalid(shape: tuple[int, ...], features_last: bool) -> None:
    with pytest.raises(Invalid, match="3 neurons"):
        trigger_shares(torch.ones(shape), 3, features_last=features_last)


def test_counting_never_waits_for_the_device() -> None:
    # A meta tensor has no values: whatever asks for one raises.
    shares = trigger_shares(torch.ones(4, 3, 5, 5, device="meta"), 3)
    tracker = TriggersTracker(3, device="meta")
    tracker.add(shares, 4)
    assert tracker.triggers.device.type == "meta" and tracker.samples == 4


def test_counting_in_inference_mode_does_not_spoil_later_counting() -> None:
    tracker = TriggersTracker(3)
    with torch.inference_mode():
        tracker.update(torch.ones(4, 3, 11, 13))  # larger than any other test's, so that the buffer is made anew
        tracker.update(torch.ones(1000, 3, 11, 13))
    tracker.update(torch.ones(1000, 3, 11, 13))
    assert tracker.rates().tolist() == [1, 1, 1] and tracker.samples == 2004


def test_rates_are_the_mean_share() -> None:
    torch.manual_seed(0)
    tracker = TriggersTracker(3)
    batches = [torch.randn(n, 3, 2, 2) for n in (4, 1, 9)]
    for batch in batches:
        tracker.update(batch)
    expected = (torch.cat(batches) > 0).double().mean((0, 2, 3))
    torch.testing.assert_close(tracker.rates(), expected, rtol=1e-12, atol=0)
    assert tracker.ages().tolist() == [14] * 3
    for neuron in range(3):
        assert tracker.get_neuron_stats(neuron) == pytest.approx(float(expected[neuron]))
        assert tracker.get_neuron_triggers(neuron) == pytest.approx(14 * float(expected[neuron]))
    assert tracker.get_neuron_number() == tracker.number_of_neurons == 3


def test_a_tracker_that_saw_nothing_has_rate_zero() -> None:
    tracker = TriggersTracker(2)
    assert tracker.rates().tolist() == [0, 0] and tracker.get_neuron_stats(1) == 0.0 and tracker.get_neuron_age(1) == 0


def test_a_reset_neuron_starts_anew_and_the_others_go_on() -> None:
    tracker = TriggersTracker(3)
    tracker.update(torch.ones(10, 3))
    tracker.reset({1})
    assert tracker.rates().tolist() == [1, 0, 1] and tracker.ages().tolist() == [10, 0, 10]
    tracker.update(torch.tensor([[1.0, -1, -1], [1, 1, 1]]))
    assert tracker.rates().tolist() == [1, 0.5, 11 / 12] and tracker.ages().tolist() == [12, 2, 12]
    tracker.reset([])
    assert tracker.ages().tolist() == [12, 2, 12]
    tracker.reset()
    assert tracker.ages().tolist() == [0, 0, 0] and tracker.triggers.sum() == 0


def test_state_round_trips_and_is_a_copy() -> None:
    tracker = TriggersTracker(3)
    tracker.update(torch.ones(10, 3))
    tracker.reset([2])
    state = tracker.state_dict()
    other = TriggersTracker(3)
    assert other != tracker
    other.load_state_dict(state)
    assert other == tracker
    tracker.update(torch.ones(1, 3))
    assert other != tracker and other.samples == 10 and state["samples"] == 10 and state["triggers"].tolist() == [
        10, 10, 0,
    ]  # fmt: skip
    other.update(torch.ones(1, 3))
    assert other == tracker
    with pytest.raises(Invalid, match="4 neurons do not fit 3"):
        other.load_state_dict(TriggersTracker(4).state_dict())
    assert other == tracker
    assert tracker != "a tracker"


def test_held_counts_wait_for_commit_and_vanish_when_dropped() -> None:
    ledger, tracker = Ledger(), TriggersTracker(2)
    one = torch.ones(2, dtype=torch.float64)
    ledger.add(tracker, one, 1)
    assert tracker.samples == 1
    ledger.hold()
    ledger.add(tracker, one, 1)
    assert tracker.samples == 1
    ledger.commit()
    assert tracker.samples == 2 and tracker.triggers.tolist() == [2, 2]
    ledger.hold()
    ledger.add(tracker, one, 1)
    ledger.drop()
    ledger.commit()
    assert tracker.samples == 2
    ledger.add(tracker, one, 1)
    assert tracker.samples == 3
    ledger.hold()
    ledger.add(tracker, one, 1)
    ledger.hold()  # the step before never ended
    ledger.commit()
    assert tracker.samples == 3
    assert ledger.mode is TrackingMode.DISABLED


def test_tensors_say_which_samples_they_are() -> None:
    x, ids, labels = torch.ones(2, 3), torch.tensor([7, 8]), torch.tensor([0, 1])
    assert add_tracked_attrs_to_input_tensor(x, in_id_batch=ids, label_batch=labels) is x
    assert x.in_id_batch is ids and x.label_batch is labels  # type: ignore[attr-defined]
