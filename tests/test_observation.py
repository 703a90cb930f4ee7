from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.observation import InputColumns, Layout, SampleBatch, observe, predicted
from tests.small_networks import one_thread  # noqa: F401

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6}


def drawn(seed: int, shape: tuple[int, ...], dtype: torch.dtype, offset: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + offset).to(dtype)


def layouts(values: torch.Tensor) -> dict[str, tuple[torch.Tensor, Layout]]:
    """The same activations, values [batch, n, height, width], in every way a consumer may get them."""
    batch, n = values.shape[:2]
    positions = values.shape[2] * values.shape[3]
    flat = values.flatten(1)
    last = values.permute(0, 2, 3, 1)
    beside = torch.cat((flat[:, :0] - 1, -torch.ones(batch, 3, dtype=values.dtype), flat, flat * 2), 1)
    side_by_side = InputColumns(3 + np.arange(n * positions).reshape(n, positions))
    scattered_order = np.random.default_rng(0).permutation(n * positions)
    scattered = torch.empty_like(flat)
    scattered[:, torch.from_numpy(scattered_order.copy())] = flat
    by_position = InputColumns(np.arange(n * positions).reshape(positions, n).T)
    channels = torch.cat((values.neg(), values), 1)
    return {
        "image": (values, Layout()),
        "channels last in memory": (values.contiguous(memory_format=torch.channels_last), Layout()),
        "flattened image": (flat, Layout()),
        "features last": (last, Layout(features_last=True)),
        "sequence": (last.flatten(1, 2), Layout(features_last=True)),
        "flattened sequence": (last.flatten(1), Layout(True, True)),
        "columns side by side": (beside, Layout(True, columns=side_by_side)),
        "columns anywhere": (scattered, Layout(columns=InputColumns(scattered_order.reshape(n, positions)))),
        "columns by position": (last.flatten(1), Layout(True, columns=by_position)),
        "concatenated channels": (channels, Layout(columns=InputColumns(np.arange(n, 2 * n)[:, None]))),
        "concatenated features": (
            channels.permute(0, 2, 3, 1),
            Layout(True, columns=InputColumns(np.arange(n, 2 * n)[:, None])),
        ),
        "every other channel": (
            torch.stack((values, values.neg()), 2).flatten(1, 2),
            Layout(columns=InputColumns(np.arange(0, 2 * n, 2)[:, None])),
        ),
        "features of a sequence of two parts": (
            values.permute(0, 2, 1, 3).flatten(2),
            Layout(True, columns=InputColumns(np.arange(n * values.shape[3]).reshape(n, -1))),
        ),
    }


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(0, 5),
    n=st.integers(1, 6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    dtype=st.sampled_from(list(TOLERANCE)),
    offset=st.sampled_from([0.0, 3.0, -1000.0]),
    seed=st.integers(0, 10_000),
)
def test_every_layout_of_the_same_activations_tells_the_same(
    batch: int, n: int, height: int, width: int, dtype: torch.dtype, offset: float, seed: int
) -> None:
    values = drawn(seed, (batch, n, height, width), dtype, offset)
    exact = values.double().numpy().reshape(batch, n, height * width)
    ids = torch.arange(batch)
    for name, (tensor, layout) in layouts(values).items():
        before = tensor.clone()
        found: Any = observe(tensor, n, layout, everything=True, batch=SampleBatch(ids), probed_position=0)
        assert torch.equal(tensor, before), name
        assert found.samples == found.seen == batch and found.positions == height * width, name
        np.testing.assert_allclose(found.shares, (exact > 0).mean(2).sum(0), rtol=1e-12, err_msg=name)
        np.testing.assert_array_equal(found.counts.double(), (exact > 0).sum(2), err_msg=name)
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * max(abs(offset), 1), "err_msg": name}
        np.testing.assert_allclose(found.means.double(), exact.mean(2), **close)
        np.testing.assert_allclose(found.moments[0], exact.mean(2).sum(0), **close)
        if batch:
            # The deviation is what a sum of plain squares in float32 would lose beside a mean of 1,000.
            mean, square = (found.moments / batch).numpy()
            assert square == pytest.approx((exact**2).mean((0, 2)), rel=1e-6)
            expected = exact.var((0, 2))
            np.testing.assert_allclose(square - mean**2, expected, rtol=2e-5, atol=2e-5, err_msg=name)
        assert found.probe.shape == (min(batch, 8), n), name
        cheap = observe(tensor, n, layout, everything=False)
        np.testing.assert_allclose(cheap.shares, found.shares, rtol=1e-12, err_msg=name)
        assert cheap.moments is cheap.means is cheap.counts is cheap.probe is None


@given(position=st.integers(0, 2**31), seed=st.integers(0, 1000))
def test_a_probe_is_what_all_neurons_did_at_one_position(position: int, seed: int) -> None:
    values = drawn(seed, (10, 3, 2, 5), torch.float32, 0)
    expected = values.flatten(2)[:8, :, position % 10]
    for tensor, layout in (
        (values, Layout()),
        (values.flatten(1), Layout()),
        (values.permute(0, 2, 3, 1), Layout(features_last=True)),
    ):
        found: Any = observe(tensor, 3, layout, everything=True, probed_position=position)
        assert torch.equal(found.probe, expected)


def test_nothing_that_is_kept_holds_on_to_the_activations_or_changes_with_them() -> None:
    for shape in ((4, 3), (4, 3, 2, 2), (4, 3, 9, 9)):
        values = drawn(0, shape, torch.float32, 0)
        found = observe(values, 3, Layout(), everything=True)
        kept = [found.shares, found.counts, found.moments, found.means, found.probe]
        before = [t.clone() for t in kept if t is not None]
        values.zero_()
        observe(torch.ones(9, 3, 9, 9), 3, Layout(), everything=True)  # writes to the same buffers
        for now, then in zip(kept, before, strict=True):
            assert now is not None and torch.equal(now, then)
            assert now.untyped_storage().nbytes() < 1000


def test_whole_numbers_and_booleans_count_too() -> None:
    for values in (torch.tensor([[3, -1], [0, 5]]), torch.tensor([[True, False], [False, True]])):
        found: Any = observe(values, 2, Layout(), everything=True)
        assert found.shares.tolist() == [1, 1]
        np.testing.assert_allclose(found.moments[0], values.double().sum(0))
        np.testing.assert_allclose(found.moments[1], values.double().square().sum(0))


@settings(deadline=None)
@given(labels=st.lists(st.integers(-3, 12), max_size=9), classes=st.integers(1, 9))
def test_labels_that_are_no_class_count_as_none(labels: list[int], classes: int) -> None:
    batch: Any = SampleBatch.of(None, torch.tensor(labels, dtype=torch.int64), classes)
    known = [label + 1 if 0 <= label < classes else 0 for label in labels]
    assert batch.classes.tolist() == known
    assert batch.class_counts.tolist() == np.bincount(known, minlength=classes + 1).tolist()


def test_labels_may_be_probabilities_and_anything_else_is_no_label() -> None:
    soft = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    assert SampleBatch.of(None, soft, 2).classes.tolist() == [2, 1]  # type: ignore[union-attr]
    for labels in (soft, torch.ones(2), torch.ones(2, 3, dtype=torch.int64), None, "labels"):
        assert SampleBatch.of(None, labels, 3).classes is None  # type: ignore[arg-type]
    assert SampleBatch.of(torch.tensor([4]), torch.tensor([1]), 0).classes is None


def test_an_output_neuron_triggers_where_it_is_the_prediction() -> None:
    found: Any = predicted(torch.tensor([2, 0, 2, 7, -1]), 3)
    assert found.shares.tolist() == [1, 0, 2] and found.counts.sum() == 3 and found.seen == 5


@pytest.mark.parametrize(
    ("columns", "words"),
    [([], "neurons, positions"), ([0, 1], "neurons, positions"), ([[0], [-1]], "0 or more")],
)
def test_malformed_columns_are_invalid(columns: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        InputColumns(columns)


def test_columns_that_do_not_fit_are_invalid() -> None:
    layout = Layout(columns=InputColumns([[0], [5]]))
    with pytest.raises(Invalid, match="no column 5"):
        observe(torch.ones(2, 4), 2, layout, everything=False)
    with pytest.raises(Invalid, match="columns of 2 neurons do not fit 3"):
        observe(torch.ones(2, 6), 3, layout, everything=False)
    with pytest.raises(Invalid, match="no columns"):
        observe(torch.ones(6), 2, layout, everything=False)
