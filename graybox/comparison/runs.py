"""Two runs or checkpoints compared: hyper-parameters, structure, weights, metrics and samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graybox.comparison.movement import Movement, movement
from graybox.comparison.samples import SplitDifference, sample_differences
from graybox.comparison.side import Side, side_of
from graybox.comparison.structure import StructureDifference, structure_difference

TOP = 20
"""So many neurons and samples are named unless somebody says otherwise."""


@dataclass(frozen=True)
class Comparison:
    """settings, metrics, interventions: by name, what they are in A and in B, None where they are not; settings and
    interventions only where they differ. structure, moved: None where one of the two has no checkpoint yet."""

    a: Side
    b: Side
    settings: dict[str, tuple[Any, Any]]
    structure: StructureDifference | None
    moved: Movement | None
    metrics: dict[str, tuple[float | None, float | None]]
    interventions: dict[str, tuple[int, int]]
    samples: list[SplitDifference]

    def to_json(self) -> dict[str, Any]:
        """For programs: numbers, text, lists and dicts; what is not finite is null."""
        told = {
            "a": self.a.head(),
            "b": self.b.head(),
            "settings": self.settings,
            "structure": None if self.structure is None else asdict(self.structure),
            "moved": None if self.moved is None else asdict(self.moved),
            "metrics": self.metrics,
            "interventions": self.interventions,
            "samples": [asdict(each) for each in self.samples],
        }
        found: dict[str, Any] = plain(told)
        return found


def compare(a: str, b: str, top: int = TOP) -> Comparison:
    """Two runs or checkpoints, as `graybox diff` names them: `ROOT`, `ROOT/RUN`, or either with `@CHECKPOINT`.

    Reads what is on disk and nothing else: neither the user's code nor a device is needed, and both may train
    meanwhile. top: so many neurons and samples. Raises NotFound, Invalid or StorageError naming what is wrong.
    """
    one, other = side_of(a), side_of(b)
    both = one.payload is not None and other.payload is not None
    return Comparison(
        one,
        other,
        _differing(one.settings, other.settings),
        structure_difference(one.payload, other.payload) if both else None,  # type: ignore[arg-type]  # both are there
        movement(one.payload, other.payload, top) if both else None,  # type: ignore[arg-type]
        {name: (one.metrics.get(name), other.metrics.get(name)) for name in sorted({**one.metrics, **other.metrics})},
        {
            name: (one.interventions.get(name, 0), other.interventions.get(name, 0))
            for name in sorted({**one.interventions, **other.interventions})
            if one.interventions.get(name, 0) != other.interventions.get(name, 0)
        },
        sample_differences(one.samples, other.samples, top),
    )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    plains = {name: (plain(a.get(name)), plain(b.get(name))) for name in {**a, **b}}
    return {name: values for name, values in plains.items() if values[0] != values[1]}


def plain(value: Any) -> Any:
    """As JSON can hold it: tuples as lists, tensors as what they hold, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
