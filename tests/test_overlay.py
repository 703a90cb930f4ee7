"""Masks and boxes as they are drawn, against NumPy."""

from __future__ import annotations

import colorsys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from graybox.annotations import IGNORED, Box
from graybox.overlay import class_colours, mask_picture, overlaid

WHOLE = (1.0, 1.0)


def test_colours_are_fixed_and_differ() -> None:
    colours = class_colours(np.arange(40))
    for number, colour in enumerate(colours.tolist()):
        hue = number * (5**0.5 - 1) / 2 % 1
        expected = colorsys.hsv_to_rgb(hue, 1.0, 0.7 if number % 3 == 2 else 1.0)
        assert colour == pytest.approx([255 * part for part in expected], abs=0.51)
    assert len({tuple(colour) for colour in colours.tolist()}) == 40
    near = np.abs(colours[:21, None].astype(int) - colours[None, :21]).sum(-1) + 999 * np.eye(21, dtype=int)
    assert near.min() > 30, "twenty classes can be told apart"


def test_a_mask_has_a_colour_per_class_and_stripes_where_it_is_ignored() -> None:
    mask = np.zeros((12, 16), dtype=np.int32)
    mask[2:5, 3:9], mask[6:, :4], mask[8:, 8:] = 1, 300, IGNORED
    pixels = np.asarray(mask_picture(mask, (16, 12)))
    assert pixels.shape == (12, 16, 4)
    assert not pixels[mask == 0].any()
    for number in (1, 300):
        assert (pixels[mask == number] == [*class_colours(np.asarray(number)), 255]).all()
    for (row, column), value in np.ndenumerate(mask):
        if value == IGNORED:
            grey = 96 if (row + column) // 3 % 2 else 176
            assert pixels[row, column].tolist() == [grey, grey, grey, 255]
    nothing = np.asarray(mask_picture(np.where(mask == IGNORED, IGNORED, 0), (16, 12)))
    np.testing.assert_array_equal(nothing, np.where((mask == IGNORED)[..., None], pixels, 0))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_a_resized_mask_takes_the_nearest_pixel(high: int, wide: int, height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 5, (high, wide), dtype=np.int32)
    rows = [int(Fraction(2 * row + 1, 2 * height) * high) for row in range(height)]
    columns = [int(Fraction(2 * column + 1, 2 * width) * wide) for column in range(width)]
    expected = mask_picture(mask[rows][:, columns], (width, height))
    np.testing.assert_array_equal(np.asarray(mask_picture(mask, (width, height))), np.asarray(expected))


def test_a_mask_lies_half_transparent_over_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).integers(0, 4, (10, 12), dtype=np.int32)
    made = overlaid(Image.fromarray(pixels), mask_picture(mask, (12, 10)), [], WHOLE)
    mixed = np.where((mask > 0)[..., None], (pixels.astype(float) + class_colours(mask)) / 2, pixels)
    assert made.mode == "RGB"
    assert np.abs(np.asarray(made) - mixed).max() <= 1.5
    grey = overlaid(Image.fromarray(pixels[..., 0]), None, [], WHOLE)
    np.testing.assert_array_equal(np.asarray(grey), np.repeat(pixels[..., :1], 3, axis=2))
    see_through = Image.new("RGBA", (12, 10), (9, 9, 9, 0))
    assert np.asarray(overlaid(see_through, mask_picture(mask, (12, 10)), [], WHOLE))[mask == 0].tolist() == [
        [9, 9, 9, 0]
    ] * int((mask == 0).sum())


def outline(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Where the line of a box of these pixels runs, both ends included; bool [height, width]."""
    rows, columns = np.indices(size[::-1])
    inside = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    inner = (rows > top) & (rows < bottom) & (columns > left) & (columns < right)
    return inside & ~inner


@pytest.mark.parametrize(
    ("box", "scale", "pixels"),
    [
        (Box(4, 6, 20, 25, 3), WHOLE, (4, 6, 19, 24)),
        (Box(0, 0, 40, 30, 1), WHOLE, (0, 0, 39, 29)),
        (Box(8, 12, 40, 50, 3), (0.5, 0.5), (4, 6, 19, 24)),
        (Box(8, 6, 40, 25), (0.5, 1.0), (4, 6, 19, 24)),
        (Box(100, 100, 101, 101, 2), (0.1, 0.1), (10, 10, 10, 10)),
        (Box(399, 299, 400, 300, 2), (0.1, 0.1), (39, 29, 39, 29)),
    ],
)
def test_a_box_is_drawn_where_it_is(box: Box, scale: tuple[float, float], pixels: tuple[int, int, int, int]) -> None:
    made = np.asarray(overlaid(Image.new("RGB", (40, 30)), None, [box], scale, [""] * 4))
    colour = [255, 255, 255] if box.label < 0 else class_colours(np.asarray(box.label)).tolist()
    expected = np.where(outline((40, 30), *pixels)[..., None], colour, 0)
    np.testing.assert_array_equal(made, expected)


def test_names_stand_where_there_is_room() -> None:
    def inside(box: Box, names: Any = ()) -> np.ndarray:
        """The drawn pixels within the box's line, bool."""
        made = np.asarray(overlaid(Image.new("RGB", (200, 200)), None, [box], WHOLE, names)).any(axis=-1)
        return made[int(box.top) + 2 : int(box.bottom) - 2, int(box.left) + 2 : int(box.right) - 2]

    large = Box(20, 20, 180, 150, 3)
    assert inside(large).any(), "its number"
    assert inside(large, ["", "", "", "a dog"]).sum() > inside(large).sum()
    assert (
        not inside(large, ["", "", "", "a dog"])[40:].any() and not inside(large, ["", "", "", "a dog"])[:, 80:].any()
    )
    assert inside(large._replace(name="a dog"), ["", "", "", "cat"]).sum() == inside(large, [""] * 3 + ["a dog"]).sum()
    assert not inside(large._replace(label=-1)).any(), "no class, no name"
    assert not inside(Box(20, 20, 40, 150, 3), ["", "", "", "a dog"]).any(), "too narrow"
    assert not inside(Box(20, 20, 180, 36, 3), ["", "", "", "a dog"]).any(), "too low"
    for odd in ("\n\n\x00", "猫" * 3, "\ud800", "x" * 5000):
        inside(large._replace(name=odd))


@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0, 60), st.floats(0, 60), st.floats(1e-9, 60), st.floats(1e-9, 60)
)
def test_no_box_is_too_odd_to_draw(width: int, height: int, left: float, top: float, wide: float, high: float) -> None:
    box = Box(left, top, left + wide, top + high, 1)
    made = overlaid(Image.new("L", (width, height)), None, [box], (width / 60, height / 60))
    assert made.size == (width, height) and np.asarray(made).any()
