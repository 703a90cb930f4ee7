"""Anything with two axes of numbers, or more, is a picture; anything else is refused with a reason."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision import tv_tensors

from graybox.errors import GrayboxError, Refused
from graybox.normalisation import Normalisation
from graybox.picture import picture_of
from graybox.sample_images import encode, shrunk

NUMBERS = np.random.default_rng(0)


def bytes_of(*shape: int) -> np.ndarray:
    return NUMBERS.integers(0, 256, shape, dtype=np.uint8)


def shown(data: Any) -> np.ndarray:
    return np.asarray(picture_of(data).image)


@pytest.mark.parametrize(
    ("raw", "size", "mode"),
    [
        (torch.rand(1, 4, 5), (5, 4), "L"), (torch.rand(4, 5), (5, 4), "L"), (torch.rand(3, 4, 5), (5, 4), "RGB"),
        (torch.rand(4, 6, 5), (5, 6), "RGB"), (np.zeros((6, 5, 3)), (5, 6), "RGB"), (np.zeros((6, 5, 1)), (5, 6), "L"),
        (np.zeros((6, 5, 4), np.uint8), (5, 6), "RGBA"), (torch.rand(2, 4, 5), (5, 4), "RGB"),
        (torch.rand(7, 4, 5), (5, 4), "RGB"), (torch.rand(3, 4, 5).bfloat16(), (5, 4), "RGB"),
        (torch.rand(3, 4, 5).half(), (5, 4), "RGB"), (torch.zeros(4, 5, dtype=torch.bool), (5, 4), "L"),
        (torch.rand(3, 4, 5).to(torch.float8_e4m3fn), (5, 4), "RGB"), (torch.rand(4, 5).to_sparse(), (5, 4), "L"),
        (torch.full((1, 3, 3), float("nan")), (3, 3), "L"), (torch.randint(-5, 900, (1, 3, 3)), (3, 3), "L"),
        (torch.zeros(4, 5, dtype=torch.uint16), (5, 4), "L"), (np.zeros((4, 5), np.longdouble), (5, 4), "L"),
        (tv_tensors.Image(torch.zeros(3, 4, 5)), (5, 4), "RGB"), (torch.rand(1, 1), (1, 1), "L"),
        (Image.new("1", (5, 4)), (5, 4), "L"), (Image.new("LA", (5, 4)), (5, 4), "RGBA"),
        (Image.new("CMYK", (5, 4)), (5, 4), "RGB"), (torch.rand(3, 4, 5, requires_grad=True), (5, 4), "RGB"),
        (Image.new("F", (5, 4), 7.5), (5, 4), "L"), (Image.new("HSV", (5, 4)), (5, 4), "RGB"),
        (Image.new("I;16", (5, 4)), (5, 4), "L"),
        # Channels last where the last axis is short and the first is not; or in an array, the odd or smallest one.
        (torch.rand(64, 32, 4), (32, 64), "RGB"), (np.zeros((9, 8, 2)), (8, 9), "RGB"),
        (np.zeros((8, 8, 30)), (8, 8), "RGB"), (np.zeros((30, 8, 8)), (8, 8), "RGB"),
        (np.zeros((30, 50, 6)), (50, 30), "RGB"), (np.zeros((6, 30, 50)), (50, 30), "RGB"),
        (torch.rand(200, 8, 9), (9, 8), "RGB"),
        # Volumes and clips.
        (torch.rand(2, 3, 4, 5), (5, 4), "RGB"), (torch.rand(16, 3, 6, 5), (5, 6), "RGB"),
        (np.zeros((9, 8, 7, 3)), (7, 8), "RGB"), (torch.rand(1, 9, 8, 7), (7, 8), "L"),
    ],
)  # fmt: skip
def test_everything_that_looks_like_a_picture(raw: Any, size: tuple[int, int], mode: str) -> None:
    picture = picture_of(raw)
    assert (picture.image.size, picture.image.mode) == (size, mode)
    encode(picture.image, thumbnail=True)


def test_bytes_are_shown_as_they_are_whatever_the_order_of_axes() -> None:
    for channels in (1, 3, 4):
        pixels = bytes_of(9, 7, channels)
        expected = pixels[..., 0] if channels == 1 else pixels
        for data in (pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels.transpose(2, 0, 1).copy())):
            np.testing.assert_array_equal(shown(data), expected)
    np.testing.assert_array_equal(shown(pixels[..., 0]), pixels[..., 0])
    np.testing.assert_array_equal(shown(Image.fromarray(pixels)), pixels)


def test_two_four_and_more_channels_and_what_is_said_of_them() -> None:
    pixels = bytes_of(12, 9, 7)
    two = picture_of(pixels[:2])
    np.testing.assert_array_equal(np.asarray(two.image), np.stack([*pixels[:2], 0 * pixels[0]], axis=-1))
    assert two.note == "the 2 channels are shown as red and green"
    four = picture_of(pixels[:4] / 255.0)
    np.testing.assert_array_equal(np.asarray(four.image), pixels[:3].transpose(1, 2, 0))
    assert four.note == "the first 3 of 4 channels are shown"
    many = picture_of(torch.from_numpy(pixels))
    np.testing.assert_array_equal(np.asarray(many.image), pixels[[0, 5, 11]].transpose(1, 2, 0))
    assert many.note == "channels 0, 5 and 11 of 12 are shown as red, green and blue"
    assert picture_of(pixels[:3]).note == picture_of(pixels[0]).note == ""


def test_the_middle_slice_of_a_volume_and_of_a_clip() -> None:
    volume = bytes_of(1, 9, 8, 7)
    middle = picture_of(torch.from_numpy(volume))
    np.testing.assert_array_equal(np.asarray(middle.image), volume[0, 4])
    assert middle.note == "slice 4 of 0 to 8 is shown"
    clip = bytes_of(6, 3, 8, 7)
    np.testing.assert_array_equal(shown(clip), clip[3].transpose(1, 2, 0))
    np.testing.assert_array_equal(shown(clip.transpose(0, 2, 3, 1)), clip[3].transpose(1, 2, 0))
    assert picture_of(volume[:, :1]).note == ""


def test_pictures_of_sixteen_bits_and_of_floats_are_not_cut_off() -> None:
    ramp = np.linspace(0, 60_000, 35).reshape(5, 7)
    expected = np.round(ramp / 60_000 * 255)
    for data in (
        Image.fromarray(ramp.astype(np.uint16)),
        Image.fromarray(ramp.astype(np.float32)),
        ramp.astype(np.int32),
    ):
        assert np.abs(shown(data) - expected).max() <= 1
        assert picture_of(data).note == "values from 0 to 60000 are stretched to black and white (no Normalize)"


def test_a_palette_with_transparency_keeps_it() -> None:
    image = Image.new("P", (4, 4))
    image.info["transparency"] = b"\x00\xff"
    assert picture_of(image).image.mode == "RGBA"


def test_the_picture_among_several_parts() -> None:
    pixels = bytes_of(3, 6, 5)
    ids, mask = torch.arange(12), torch.zeros(6, 5, dtype=torch.int64)
    for data in (
        {"input_ids": ids, "pixel_values": torch.from_numpy(pixels)}, {"depth": mask, "image": pixels}, (ids, pixels),
        [pixels, mask], {"mask": mask, "view": pixels}, {"views": [ids, pixels]}, ("a caption", {"image": pixels}),
        [Image.fromarray(pixels.transpose(1, 2, 0))],
    ):  # fmt: skip
        np.testing.assert_array_equal(shown(data), pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (torch.rand(16), r"shape \[16\]"), (torch.rand(9, 8, 7, 6), "none of its axes is short enough"),
        (torch.zeros(0, 4), r"shape \[0, 4\]"), ("text", "type str"), ({"view": 1}, "a dict .* type int"),
        (None, "NoneType"), (5, "type int"), (np.array([["a", "b"]]), "<U1"),
        (torch.zeros(4, 5, dtype=torch.complex64), "complex64"),
        ((), "an empty tuple"), ({}, "an empty dict"), ({"labels": torch.rand(4, 4)}, "an empty dict"),
        (torch.rand(1, 16_000), "a row of numbers"), (torch.rand(3, 1, 9), "a row of numbers"),
        (torch.rand(4, 5, device="meta"), "on meta"), (torch.rand(1, 1, 3, 4, 5), r"shape \[1, 1, 3, 4, 5\]"),
        (list(range(5000)), "a list has no picture in any of its parts"), (object(), "type object"),
        (Image.new("L", (0, 4)), "0 x 4 pixels"), (Image.new("La", (4, 4)), "mode La"),
        (np.array([[object()]]), "object"), ([[[[torch.rand(4, 4)]]]], "within others"),
        ({"input_ids": torch.arange(5), "attention_mask": torch.arange(5)}, r"in any of its parts \(a sample of shape"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_with_a_reason(raw: Any, reason: str) -> None:
    with pytest.raises(Refused, match="has no picture") as refused:
        picture_of(raw)
    with pytest.raises(Refused, match=reason):
        picture_of(raw)
    assert len(str(refused.value)) < 500


DTYPES = st.sampled_from(
    [np.bool_, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float32,
     np.float64, np.complex64]
)  # fmt: skip
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=9))
)


@given(ARRAYS, st.booleans(), st.booleans(), st.integers(0, 12), st.integers(0, 12))
def test_any_array_is_a_picture_of_its_own_proportions_or_refused(
    values: np.ndarray, tensor: bool, normalised: bool, width: int, height: int
) -> None:
    data = torch.from_numpy(values) if tensor else values
    known = Normalisation(np.asarray([0.4, 0.5, 0.6]), np.asarray([0.2, 0.25, 0.3])) if normalised else None
    try:
        picture = picture_of(data, known).image
    except GrayboxError:
        many = values.ndim == 4 and min(values.shape[0], values.shape[1], values.shape[3]) > 4
        assert values.ndim not in (2, 3, 4) or values.dtype.kind == "c" or 1 in values.shape or many
        return
    assert {*picture.size} <= {*values.shape}
    small = shrunk(picture, width, height)
    scale = min(width / picture.width if width else 1, height / picture.height if height else 1, 1)
    assert small.size == tuple(max(1, round(side * scale)) for side in picture.size)
    for thumbnail in (False, True):
        decoded = Image.open(io.BytesIO(encode(small, thumbnail=thumbnail)[0]))
        decoded.load()
        assert decoded.size == small.size
