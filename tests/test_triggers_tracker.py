from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.activation_totals import BLOCK_SAMPLES
from graybox.errors import Invalid
from graybox.exciting_samples import TOP_SAMPLES, WAITING_SAMPLES
from graybox.observation import Layout, SampleBatch, observe
from graybox.tracking import add_tracked_attrs_to_input_tensor
from graybox.triggers_tracker import TriggersTracker, TriggersTrackerClazzAndSampleID
from tests.small_networks import one_thread  # noqa: F401

CLASSES = 3
Full = TriggersTrackerClazzAndSampleID


class Seen:
    """Everything a tracker was shown, one column per neuron, NaN where the neuron was not there: the oracle."""

    def __init__(self, neurons: int) -> None:
        self.values = np.zeros((0, neurons, 4))
        self.ids = np.zeros(0, dtype=np.int64)
        self.labels = np.zeros(0, dtype=np.int64)

    def show(self, tracker: Full, seed: int, batch: int) -> None:
        numbers = np.random.default_rng(seed)
        values = numbers.normal(size=(batch, self.values.shape[1], 2, 2)).astype(np.float32)
        ids, labels = numbers.integers(0, 30, batch), numbers.integers(-1, CLASSES + 1, batch)
        known = SampleBatch.of(torch.from_numpy(ids), torch.from_numpy(labels), CLASSES)
        found = observe(torch.from_numpy(values), tracker.number_of_neurons, Layout(), everything=True, batch=known)
        tracker.observe(found)
        self.values = np.concatenate((self.values, values.reshape(*values.shape[:2], 4).astype(np.float64)))
        self.ids, self.labels = np.concatenate((self.ids, ids)), np.concatenate((self.labels, labels))

    def carry(self, source: list[int]) -> None:
        columns = np.append(np.arange(self.values.shape[1]), -1)
        padded = np.concatenate((self.values, np.full((len(self.values), 1, 4), np.nan)), 1)
        self.values = padded[:, columns[source]]

    def forget(self, neurons: list[int]) -> None:
        self.values[:, neurons] = np.nan

    def check(self, tracker: Full) -> None:
        ids, values = (tensor.numpy() for tensor in tracker.exciting.top())
        class_rates = tracker.classes.rates().numpy()
        for n in range(self.values.shape[1]):
            there = ~np.isnan(self.values[:, n, 0])
            mine = self.values[there, n]
            assert tracker.get_neuron_age(n) == len(mine)
            if len(mine):
                assert tracker.get_neuron_stats(n) == pytest.approx((mine > 0).mean(), rel=1e-9)
                assert float(tracker.totals.means(recent=False)[n]) == pytest.approx(mine.mean(), rel=1e-5, abs=1e-6)
                assert float(tracker.totals.deviations(recent=False)[n]) == pytest.approx(mine.std(), rel=1e-5)
            for c in range(class_rates.shape[1]):
                of_class = self.values[there & (self.labels == c), n]
                expected = (of_class > 0).mean() if len(of_class) else np.nan
                np.testing.assert_allclose(class_rates[n, c], expected, rtol=1e-9)
            newest: dict[int, float] = {}
            for sample, value in zip(self.ids[there].tolist(), mine.mean(1).tolist(), strict=True):
                newest[sample] = value
            # What is kept is exact of the samples it names; sample by sample it may be that one which made room for
            # others came back lower, so that only what is above all that was ever kept is sure to be there.
            for sample, value in zip(ids[n].tolist(), values[n].tolist(), strict=True):
                assert (sample == -1) == (value == -np.inf)
                if sample >= 0:
                    assert newest[sample] == pytest.approx(value, rel=1e-5, abs=1e-6)
            assert list(values[n]) == sorted(values[n], reverse=True)
            assert len(set(ids[n][ids[n] >= 0])) == np.count_nonzero(ids[n] >= 0) == min(len(newest), TOP_SAMPLES)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("show"), st.integers(0, 1000), st.integers(0, 40)),
        st.tuples(st.just("reset"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("prune"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("add"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("reorder"), st.integers(0, 1000), st.just(0)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(neurons=st.integers(1, 5), steps=steps)
def test_whatever_happens_each_neuron_knows_what_it_saw(neurons: int, steps: list[tuple[str, int, int]]) -> None:
    tracker, seen = Full(neurons), Seen(neurons)
    for what, seed, size in steps:
        n, numbers = tracker.number_of_neurons, np.random.default_rng(seed)
        some = sorted(numbers.choice(n, numbers.integers(0, n), replace=False).tolist()) if n else []
        if what == "show":
            seen.show(tracker, seed, size)
        elif what == "reset":
            tracker.reset(set(some))
            seen.forget(some)
        elif what == "prune":
            tracker.prune(set(some))
            seen.carry([i for i in range(n) if i not in some])
        elif what == "add":
            tracker.add_neurons(seed % 3)
            seen.carry([*range(n), *[-1] * (seed % 3)])
        else:
            order = numbers.permutation(n).tolist()
            tracker.reorder(order)
            seen.carry(order)
        assert tracker.number_of_neurons == tracker.get_neuron_number() == seen.values.shape[1]
    seen.check(tracker)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rounds=st.integers(1, 6), batch=st.integers(1, 300))
def test_without_room_lost_the_most_exciting_samples_are_the_exact_ones(seed: int, rounds: int, batch: int) -> None:
    """Every sample seen once: nothing that made room can come back."""
    tracker, numbers = Full(3), np.random.default_rng(seed)
    values = numbers.normal(size=(rounds * batch, 3)).astype(np.float32)
    values[numbers.random(values.shape) < 0.1] = np.nan
    ids = numbers.permutation(rounds * batch)
    for part in range(rounds):
        rows = slice(part * batch, (part + 1) * batch)
        known = SampleBatch(torch.from_numpy(ids[rows]))
        tracker.observe(observe(torch.from_numpy(values[rows]), 3, Layout(), everything=True, batch=known))
    found = tracker.exciting.top()[0].numpy()
    for n in range(3):
        comparable = np.where(np.isnan(values[:, n]), -np.inf, values[:, n])
        expected = ids[np.argsort(-comparable)][: np.isfinite(comparable).sum()][:TOP_SAMPLES]
        assert found[n][: len(expected)].tolist() == expected.tolist() and (found[n][len(expected) :] == -1).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), sorted_in=st.integers(0, TOP_SAMPLES), waiting=st.integers(0, 60), kept=st.floats(0, 1)
)
def test_samples_that_stand_elsewhere_are_known_by_their_new_numbers(
    seed: int, sorted_in: int, waiting: int, kept: float
) -> None:
    """As if those that are gone had never been shown, and the others by their new numbers."""
    numbers = np.random.default_rng(seed)
    count = sorted_in + waiting
    values = numbers.normal(size=(count, 3)).astype(np.float32)
    place = np.where(numbers.random(count) < kept, numbers.permutation(1_000)[:count], -1)
    tracker, expected = Full(3), Full(3)
    for number, part in enumerate((slice(0, sorted_in), slice(sorted_in, count))):
        for each, ids in ((tracker, np.arange(count)), (expected, place)):
            there = np.flatnonzero(ids[part] >= 0)
            if len(there):
                known = SampleBatch(torch.from_numpy(ids[part][there]))
                shown = torch.from_numpy(values[part][there])
                each.observe(observe(shown, 3, Layout(), everything=True, batch=known))
            if number == 0:
                each.exciting.merge(Full(3).exciting)
    tracker.exciting.renumber(torch.from_numpy(place))
    assert tracker.exciting.same_as(expected.exciting)
    state = Full(3)
    state.load_state_dict(tracker.state_dict())
    assert state.exciting.same_as(expected.exciting)


def test_a_sample_seen_again_counts_as_it_is_now() -> None:
    tracker = Full(1)
    for activation in (9.0, 1.0):
        for _ in range(WAITING_SAMPLES + 1):  # once sorted in, once waiting
            values = torch.tensor([[activation], [5.0]])
            known = SampleBatch(torch.tensor([7, 8]))
            tracker.observe(observe(values, 1, Layout(), everything=True, batch=known))
    ids, values = tracker.exciting.top()
    assert ids[0, :3].tolist() == [8, 7, -1] and values[0, :2].tolist() == [5, 1]


def test_reading_changes_nothing() -> None:
    one, other, seen = Full(3), Full(3), Seen(3)
    for seed in range(20):
        seen.show(one, seed, 20)
        Seen(3).show(other, seed, 20)
        other.exciting.top(), other.rates(), other.classes.rates(), other.state_dict(), other.take([0])
    assert one == other
    for name, value in flat(one.state_dict()).items():
        assert bits(value) == bits(flat(other.state_dict())[name]), name


def flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in state.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def bits(value: Any) -> Any:
    return (value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def grown(make: type[TriggersTracker] = Full, neurons: int = 4, rounds: int = 9) -> Any:
    tracker: Any = make(neurons)
    for seed in range(rounds):
        if make is Full:
            Seen(neurons).show(tracker, seed, 37)
        else:
            tracker.update(torch.randn(37, neurons, 2, generator=torch.Generator().manual_seed(seed)))
    tracker.reset([1])
    if make is Full:
        Seen(neurons).show(tracker, 99, 5)
    return tracker


@pytest.mark.parametrize("make", [TriggersTracker, Full])
def test_a_state_round_trips_bit_for_bit_and_is_a_copy(make: type[TriggersTracker]) -> None:
    tracker, other = grown(make), make(4)
    state = tracker.state_dict()
    before = {name: bits(value) for name, value in flat(state).items()}
    other.load_state_dict(state)
    assert other == tracker
    assert {name: bits(value) for name, value in flat(other.state_dict()).items()} == before
    tracker.update(torch.ones(3, 4))
    assert other != tracker and {name: bits(value) for name, value in flat(state).items()} == before
    other.update(torch.ones(3, 4))
    assert other == tracker
    with pytest.raises(Invalid, match="4 neurons do not fit 5"):
        make(5).load_state_dict(state)


def test_a_plain_state_loads_into_a_full_tracker_and_an_old_one_without_skipped_too() -> None:
    state = grown(TriggersTracker).state_dict()
    tracker = Full(4)
    del state["skipped"]
    tracker.load_state_dict(state)
    assert tracker.rates().tolist() == grown(TriggersTracker).rates().tolist()
    assert tracker != grown(TriggersTracker) and tracker != "a tracker"


EDITS: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    "reset": (lambda t: t.reset([0, 2]), lambda t: None),
    "prune": (lambda t: t.prune({0, 2}), lambda t: t.carry([-1, 0, -1, 1])),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("make", [TriggersTracker, Full])
@pytest.mark.parametrize("rounds", [0, 1, 9])
def test_what_an_edit_took_is_back_with_its_bits(make: type[TriggersTracker], edit: str, rounds: int) -> None:
    tracker = grown(make, rounds=rounds)
    before = {name: bits(value) for name, value in flat(tracker.state_dict()).items()}
    kept = tracker.take([0, 2])
    do, undo = EDITS[edit]
    do(tracker)
    assert {name: bits(value) for name, value in flat(tracker.state_dict()).items()} != before or rounds == 0
    undo(tracker)
    tracker.put([0, 2], kept)
    assert {name: bits(value) for name, value in flat(tracker.state_dict()).items()} == before


def test_what_comes_back_after_more_training_is_as_it_was_and_the_others_have_gone_on() -> None:
    tracker, undisturbed = grown(), grown()
    kept = tracker.take([0, 2])
    rates, means = tracker.rates(), tracker.totals.means(recent=False)
    classes, ages = tracker.classes.rates().clone(), tracker.ages()
    top = tracker.exciting.top()[0].clone()
    tracker.prune({0, 2})
    for seed in range(100, 160):
        seen = np.random.default_rng(seed).normal(size=(40, 4, 2, 2)).astype(np.float32)
        known = SampleBatch.of(torch.arange(40), torch.arange(40) % CLASSES, CLASSES)
        for one, values in ((tracker, seen[:, [1, 3]]), (undisturbed, seen)):
            n = values.shape[1]
            one.observe(observe(torch.from_numpy(values.copy()), n, Layout(), everything=True, batch=known))
    tracker.carry([-1, 0, -1, 1])
    tracker.put([0, 2], kept)
    back, stayed = torch.tensor([0, 2]), torch.tensor([1, 3])
    assert torch.equal(tracker.rates()[back], rates[back]) and torch.equal(tracker.ages()[back], ages[back])
    assert torch.equal(tracker.totals.means(recent=False)[back], means[back])
    torch.testing.assert_close(tracker.classes.rates()[back], classes[back], equal_nan=True, rtol=0, atol=0)
    assert torch.equal(tracker.exciting.top()[0][back], top[back])
    assert torch.equal(tracker.rates()[stayed], undisturbed.rates()[stayed])
    assert torch.equal(tracker.exciting.top()[0][stayed], undisturbed.exciting.top()[0][stayed])
    # Activations that the others saw meanwhile are not compared with ones of other samples.
    assert tracker.probe.columns["rows"][:, back].isnan().all() and not tracker.probe.columns["rows"].isnan().all()


def test_the_recent_window_forgets_and_a_lifetime_does_not() -> None:
    tracker, half = Full(2), BLOCK_SAMPLES // 2
    for value in (1.0, 1.0, 1.0, -3.0, -3.0, -3.0):
        tracker.observe(observe(torch.full((half, 2), value), 2, Layout(), everything=True))
    assert tracker.totals.rates(recent=False).tolist() == tracker.rates().tolist() == [0.5, 0.5]
    assert tracker.totals.rates(recent=True).tolist() == [0.25, 0.25]  # the block of both, and that of -3
    assert tracker.totals.means(recent=True).tolist() == [-2, -2]
    assert tracker.totals.deviations(recent=True).tolist() == pytest.approx([3**0.5, 3**0.5])
    assert tracker.totals.deviations(recent=False).tolist() == [2, 2]
    nobody = Full(1).totals
    assert nobody.rates(recent=True).isnan().all() and nobody.means(recent=False).isnan().all()


def test_an_activation_that_is_no_number_leaves_the_window_and_touches_no_other_neuron() -> None:
    tracker = Full(2)
    tracker.observe(observe(torch.tensor([[float("inf"), 1.0]]), 2, Layout(), everything=True))
    for _ in range(3):
        tracker.observe(observe(torch.ones(BLOCK_SAMPLES, 2), 2, Layout(), everything=True))
    assert tracker.totals.means(recent=True).tolist() == [1, 1]
    assert tracker.totals.means(recent=False).tolist() == [float("inf"), 1]
    tracker.reset([0])
    assert tracker.totals.means(recent=False).isnan().tolist() == [True, False]


@pytest.mark.parametrize("make", [TriggersTracker, Full])
def test_two_trackers_make_one(make: type[TriggersTracker]) -> None:
    """Counting beside and merging is counting at once."""
    whole: Any = make(3)
    first: Any = make(3)
    second: Any = first.empty()
    for seed in range(12):
        values = torch.randn(11, 3, 2, generator=torch.Generator().manual_seed(seed))
        known = SampleBatch.of(torch.arange(11) + 11 * seed, torch.arange(11) % CLASSES, CLASSES)
        found = observe(values, 3, Layout(), everything=True, batch=known)
        whole.observe(found)
        (first if seed < 7 else second).observe(found)
    first.merge(second)
    assert first.samples == whole.samples and torch.equal(first.ages(), whole.ages())
    torch.testing.assert_close(first.rates(), whole.rates(), rtol=1e-12, atol=0)
    if make is Full:
        torch.testing.assert_close(first.totals.means(recent=True), whole.totals.means(recent=True))
        torch.testing.assert_close(first.classes.rates(), whole.classes.rates(), rtol=1e-12, atol=0)
        assert torch.equal(first.exciting.top()[0], whole.exciting.top()[0])
        one, two = first.probe.columns["rows"], whole.probe.columns["rows"]
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(Invalid, match="4 neurons do not fit 3"):
        first.merge(make(4))


def test_merging_moves_the_window_on() -> None:
    tracker, beside = Full(1), Full(1)
    tracker.observe(observe(torch.ones(BLOCK_SAMPLES, 1), 1, Layout(), everything=True))
    beside.observe(observe(-torch.ones(BLOCK_SAMPLES, 1), 1, Layout(), everything=True))
    tracker.merge(beside)
    assert tracker.totals.rates(recent=True).tolist() == [0.5]
    tracker.merge(beside)
    assert tracker.totals.rates(recent=True).tolist() == [0] and tracker.rates().tolist() == [1 / 3]


def test_a_tensor_that_says_what_it_is_tells_classes_and_samples() -> None:
    tracker = Full(2, device="cpu")
    values = torch.tensor([[1.0, -1.0], [3.0, 1.0], [-1.0, 2.0]])
    tracker.update(
        add_tracked_attrs_to_input_tensor(
            values, in_id_batch=torch.tensor([5, 6, 7]), label_batch=torch.tensor([0, 2, 0])
        )
    )
    tracker.update(values.clone())  # one that does not
    assert tracker.classes.rates().nan_to_num(-1).tolist() == [[0.5, -1, 1], [0.5, -1, 1]]
    assert tracker.exciting.top()[0][:, :3].tolist() == [[6, 5, 7], [7, 6, 5]]
    assert tracker.ages().tolist() == [6, 6]


def test_what_is_not_counted_ages_the_neurons_and_leaves_their_rate() -> None:
    tracker = TriggersTracker(2)
    tracker.update(torch.ones(4, 2))
    tracker.add(None, 36)
    assert tracker.rates().tolist() == [1, 1] and tracker.ages().tolist() == [40, 40]
    assert tracker.counted().tolist() == [4, 4] and tracker.samples == 40
