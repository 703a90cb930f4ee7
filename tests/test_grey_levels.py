"""Grey levels: exact where the scale is known, the whole range where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graybox.grey_levels import grey_levels
from graybox.normalisation import Normalisation


@given(hnp.arrays(np.uint8, (3, 4, 5)), st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0.01, 4))
def test_a_normalised_picture_comes_back_to_half_a_grey_level(
    pixels: np.ndarray, mean: list[float], std: float
) -> None:
    known = Normalisation(np.asarray(mean), np.asarray([std]))
    for dtype in (np.float32, np.float64):
        values = ((pixels / 255.0 - known.mean[:, None, None]) / std).astype(dtype)
        levels, note = grey_levels(values, known)
        np.testing.assert_array_equal(levels, pixels)
        assert note == ""


def test_a_normalisation_of_bytes_comes_back_too_also_of_a_black_picture() -> None:
    known = Normalisation(np.asarray([123.675, 116.28, 103.53]), np.asarray([58.4, 57.1, 57.4]))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5))
    for picture in (pixels, np.ones_like(pixels)):
        values = (picture - known.mean[:, None, None]) / known.std[:, None, None]
        levels, note = grey_levels(values, known)
        np.testing.assert_array_equal(levels, picture)
        assert note == ""


def test_noise_after_normalising_is_cut_off_and_no_reason_to_stretch() -> None:
    known = Normalisation(np.asarray([0.5]), np.asarray([0.25]))
    grey = np.asarray([[[-0.3, 0.0, 0.2, 1.0, 1.4]]])
    levels, note = grey_levels((grey - 0.5) / 0.25, known)
    assert levels.ravel().tolist() == [0, 0, 51, 255, 255] and note == ""


@pytest.mark.parametrize(
    ("values", "levels", "note"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255], ""),
        ([-0.005, 0.2, 1.005], [0, 51, 255], ""),
        ([-2.0, -1.5, 3.0], [0, 26, 255], "values from -2 to 3 are stretched to black and white (no Normalize)"),
        ([100, 100, 100], [128, 128, 128], "every value is 100, shown as grey (no Normalize)"),
        ([0, 0, 0], [0, 0, 0], ""),
        ([True, False, True], [255, 0, 255], ""),
        ([np.nan, np.inf, -np.inf], [0, 255, 0], "values that are not finite: 3"),
        (
            [np.nan, np.inf, -np.inf, 4.0, 8.0], [0, 255, 0, 0, 255],
            "values that are not finite: 3; values from 4 to 8 are stretched to black and white (no Normalize)",
        ),
        (
            [np.nan, 7.0, 7.0],
            [0, 128, 128],
            "values that are not finite: 1; every value is 7, shown as grey (no Normalize)",
        ),
        ([-1.7e308, 0.0, 1.7e308], [0, 128, 255], "values from -1.7e+308 to 1.7e+308 are stretched to black and white "
         "(no Normalize)"),
    ],
)  # fmt: skip
def test_scales(values: list[float], levels: list[int], note: str) -> None:
    found, said = grey_levels(np.asarray([[values]]))
    assert (found.dtype, found.ravel().tolist(), said) == (np.uint8, levels, note)


def test_bytes_stay_and_what_normalize_does_not_explain_is_said() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert grey_levels(pixels)[0] is pixels
    _, note = grey_levels(np.asarray([[[-9.0, 9.0]]]), Normalisation(np.asarray([0.5]), np.asarray([1.0])))
    assert note == "values from -8.5 to 9.5 are stretched to black and white (in spite of its Normalize)"


@given(hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint64]), (1, 3, 3)))
def test_the_order_of_values_is_kept(values: np.ndarray) -> None:
    levels, _ = grey_levels(values)
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(levels[finite][order].astype(int)) >= 0).all()
