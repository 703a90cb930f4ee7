"""The state of sample columns as a checkpoint keeps it: checked, and made into what a snapshot is written from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid
from graybox.store.sample_columns import STATE_COLUMNS, SplitColumns, shape_of
from graybox.store.sample_notes import is_note
from graybox.store.sample_snapshot import ColumnImage, SplitImage
from graybox.store.targets import fits, is_target

_log = logging.getLogger(__name__)


def image_with(columns: SplitColumns, state: Mapping[str, NDArray[Any]]) -> SplitImage:
    """The split as it would be with this state."""
    whole = {
        name: state.get(name, np.full(shape_of(name, columns.count), unseen, dtype=kind))
        for name, (kind, unseen) in STATE_COLUMNS.items()
    }
    notes = {name: value for name, value in state.items() if is_note(name) or is_target(name)}
    told = {"label": columns.label, **columns.targets.of_data()}
    images = {name: ColumnImage.of(array) for name, array in {**told, **whole, **notes}.items()}
    return SplitImage(columns.name, columns.count, columns.fingerprint, images)


def checked_state(splits: list[SplitColumns], state: Mapping[str, ArrayLike]) -> dict[str, dict[str, NDArray[Any]]]:
    """The state by split and column, in the columns' own types. Raises Invalid for what is no column, or does not
    fit."""
    wanted: dict[str, dict[str, NDArray[Any]]] = {columns.name: {} for columns in splits}
    counts = {columns.name: columns.count for columns in splits}
    for key, value in state.items():
        name, _, column = key.rpartition("/")
        if column not in STATE_COLUMNS and not is_note(column) and not is_target(column):
            raise Invalid(f"{key!r} is no sample column; a key is split/column, of {', '.join(STATE_COLUMNS)}")
        if name not in counts:
            _log.warning("left out %s: there is no split %s any more", key, name)
            continue
        array = np.asarray(value)
        right = array.shape == shape_of(column, counts[name])
        if not (fits(column, array.shape, counts[name]) if is_target(column) else right):
            raise Invalid(f"{key!r} has shape {list(array.shape)}, but the split has {counts[name]} samples")
        wanted[name][column] = array.astype(STATE_COLUMNS[column][0]) if column in STATE_COLUMNS else array
    return wanted
