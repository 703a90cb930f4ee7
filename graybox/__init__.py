"""Graybox: watch and steer the training of a PyTorch network while it runs.

The names below are loaded when they are first used, so that `import graybox` pulls in neither torch nor grpc.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graybox.comparison.runs import compare
    from graybox.comparison.steps import compare_steps
    from graybox.dash import Dash
    from graybox.data_samples_with_ops import DataSampleTrackingWrapper
    from graybox.errors import GrayboxError
    from graybox.experiment import Experiment
    from graybox.exported_program import export_program
    from graybox.manifest import curated, load_manifest
    from graybox.model_with_ops import DepType, NetworkWithOps
    from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
    from graybox.operable_network import operable
    from graybox.plain_network import plain_module
    from graybox.store.retention import KeepCheckpoints
    from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor
    from graybox.tunable import Tunable
    from graybox.weight_files import save_safetensors, save_state_dict
    from graybox.weight_loading import load_weights

__version__ = "0.1.0"

__all__ = [
    "BatchNorm2dWithNeuronOps",
    "Conv2dWithNeuronOps",
    "Dash",
    "DataSampleTrackingWrapper",
    "DepType",
    "Experiment",
    "GrayboxError",
    "KeepCheckpoints",
    "LinearWithNeuronOps",
    "NetworkWithOps",
    "TrackingMode",
    "Tunable",
    "__version__",
    "add_tracked_attrs_to_input_tensor",
    "compare",
    "compare_steps",
    "curated",
    "export_program",
    "load_manifest",
    "load_weights",
    "operable",
    "plain_module",
    "save_safetensors",
    "save_state_dict",
]

_HOMES = {
    "BatchNorm2dWithNeuronOps": "graybox.modules_with_ops",
    "Conv2dWithNeuronOps": "graybox.modules_with_ops",
    "Dash": "graybox.dash",
    "DataSampleTrackingWrapper": "graybox.data_samples_with_ops",
    "DepType": "graybox.model_with_ops",
    "Experiment": "graybox.experiment",
    "GrayboxError": "graybox.errors",
    "KeepCheckpoints": "graybox.store.retention",
    "LinearWithNeuronOps": "graybox.modules_with_ops",
    "NetworkWithOps": "graybox.model_with_ops",
    "TrackingMode": "graybox.tracking",
    "Tunable": "graybox.tunable",
    "add_tracked_attrs_to_input_tensor": "graybox.tracking",
    "compare": "graybox.comparison.runs",
    "compare_steps": "graybox.comparison.steps",
    "curated": "graybox.manifest",
    "export_program": "graybox.exported_program",
    "load_manifest": "graybox.manifest",
    "load_weights": "graybox.weight_loading",
    "operable": "graybox.operable_network",
    "plain_module": "graybox.plain_network",
    "save_safetensors": "graybox.weight_files",
    "save_state_dict": "graybox.weight_files",
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
