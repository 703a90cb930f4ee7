"""Cross-entropy with smoothing and class weights, against torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graybox.class_loss import ClassLoss, class_weights_text, parse_class_weights
from graybox.errors import Invalid


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 9), st.integers(2, 6), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_it_is_that_of_torch(batch: int, classes: int, smoothing: float, weighted: bool, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=numbers, dtype=torch.float64)
    target = torch.randint(0, classes, (batch,), generator=numbers)
    weights = torch.rand(classes, generator=numbers, dtype=torch.float64) + 0.1 if weighted else None
    loss = ClassLoss()
    loss.label_smoothing, loss.weights = smoothing, weights
    whole, each = loss(logits.log_softmax(1), target)
    options = {"weight": weights, "label_smoothing": smoothing}
    assert torch.allclose(whole, nn.CrossEntropyLoss(**options)(logits, target), rtol=1e-12)
    assert torch.allclose(each, nn.CrossEntropyLoss(**options, reduction="none")(logits, target), rtol=1e-12)


def test_classes_beyond_the_weights_weigh_one() -> None:
    loss = ClassLoss()
    loss.weights = torch.tensor([2.0])
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    expected = nn.CrossEntropyLoss(weight=torch.tensor([2.0, 1.0, 1.0]))(logits, target)
    assert torch.allclose(loss(logits.log_softmax(1), target)[0], expected)


@given(st.dictionaries(st.integers(0, 4), st.just(0.0) | st.floats(1e-3, 1e6), max_size=5), st.booleans())
def test_what_is_written_is_read(weights: dict[int, float], named: bool) -> None:
    names = ("cat", "dog", "a=b" if named else "bird", "x, y" if named else "cow", "pig")
    wanted = {label: weight for label, weight in weights.items() if weight != 1}
    found = parse_class_weights(class_weights_text(weights, names), names, 5)
    assert found.keys() == wanted.keys()
    for label, weight in wanted.items():
        assert found[label] == weight


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "written as cat=2"), ("cat=", "from 0 to"), ("cow=2", "no class 'cow'; there are cat, dog"),
        ("2=1", "no class '2'"), ("cat=-1", "from 0 to"), ("cat=nan", "from 0 to"),
        ("cat=1e9", "from 0 to 1e6"), ("=2", "written as"),
    ],
)  # fmt: skip
def test_what_is_no_weight_is_said(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        parse_class_weights(text, ("cat", "dog"), 2)
