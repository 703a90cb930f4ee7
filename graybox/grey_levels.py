"""Numbers as grey levels from 0 to 255."""

from __future__ import annotations

import numpy as np

from graybox.normalisation import Normalisation

_ROUNDING = 0.01
"""How far beyond [0, 1] values lie that were in it before somebody resized or rounded."""
_AUGMENTED = 0.5
"""The same for values whose scale is known: noise and sharpening lead further out."""


def grey_levels(values: np.ndarray, normalised: Normalisation | None = None) -> tuple[np.ndarray, str]:
    """(uint8 of the same shape, a note on what had to be guessed) of numbers [channels, height, width].

    Bytes stay as they are. Of other types [0, 1] is black to white, once `normalised` (of as many channels) is taken
    back, or [0, 255] where its mean says so. Values of another scale are stretched over their whole range, which the
    note says; where they are all the same, they are grey. Infinite ones become black or white, NaN black.
    """
    if values.dtype == np.uint8:
        return values, ""
    with np.errstate(all="ignore"):  # the largest floats overflow on the way
        numbers = values.astype(np.float64)
        unit, tolerance = 1.0, _ROUNDING
        if normalised is not None:
            numbers = normalised.taken_back(numbers)
            unit, tolerance = 255.0 if normalised.of_bytes else 1.0, _AUGMENTED
        finite = np.isfinite(numbers)
        notes = [] if finite.all() else [f"values that are not finite: {finite.size - int(finite.sum())}"]
        if finite.any():
            low, high = float(numbers[finite].min()), float(numbers[finite].max())
            if low < -tolerance * unit or high > (1.0 + tolerance) * unit:
                numbers, note = _stretched(numbers, low, high)
                notes.append(f"{note} ({'no' if normalised is None else 'in spite of its'} Normalize)")
            else:
                numbers = numbers / unit
        numbers = np.nan_to_num(numbers, nan=0.0, posinf=1.0, neginf=0.0)
        return (numbers.clip(0.0, 1.0) * 255.0).round().astype(np.uint8), "; ".join(notes)


def _stretched(numbers: np.ndarray, low: float, high: float) -> tuple[np.ndarray, str]:
    """Numbers, the finite ones of which go from low to high, with these brought to 0 and 1; and how that is said."""
    if high == low:
        return np.where(np.isfinite(numbers), 0.5, numbers), f"every value is {low:g}, shown as grey"
    note = f"values from {low:g} to {high:g} are stretched to black and white"
    if not np.isfinite(high - low):
        numbers, low, high = numbers / 4, low / 4, high / 4
    return (numbers - low) / (high - low), note
