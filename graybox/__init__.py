"""Graybox: watch and steer the training of a PyTorch network while it runs.

The names below are loaded when they are first used, so that `import graybox` pulls in neither torch nor grpc.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graybox.dash import Dash
    from graybox.data_samples_with_ops import DataSampleTrackingWrapper
    from graybox.errors import GrayboxError
    from graybox.experiment import Experiment
    from graybox.model_with_ops import DepType, NetworkWithOps
    from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
    from graybox.operable_network import operable
    from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor
    from graybox.tunable import Tunable

__version__ = "0.1.0"

__all__ = [
    "BatchNorm2dWithNeuronOps",
    "Conv2dWithNeuronOps",
    "Dash",
    "DataSampleTrackingWrapper",
    "DepType",
    "Experiment",
    "GrayboxError",
    "LinearWithNeuronOps",
    "NetworkWithOps",
    "TrackingMode",
    "Tunable",
    "__version__",
    "add_tracked_attrs_to_input_tensor",
    "operable",
]

_HOMES = {
    "BatchNorm2dWithNeuronOps": "graybox.modules_with_ops",
    "Conv2dWithNeuronOps": "graybox.modules_with_ops",
    "Dash": "graybox.dash",
    "DataSampleTrackingWrapper": "graybox.data_samples_with_ops",
    "DepType": "graybox.model_with_ops",
    "Experiment": "graybox.experiment",
    "GrayboxError": "graybox.errors",
    "LinearWithNeuronOps": "graybox.modules_with_ops",
    "NetworkWithOps": "graybox.model_with_ops",
    "TrackingMode": "graybox.tracking",
    "Tunable": "graybox.tunable",
    "add_tracked_attrs_to_input_tensor": "graybox.tracking",
    "operable": "graybox.operable_network",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graybox' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
