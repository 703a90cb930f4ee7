"""The result of the work, usable without Graybox: as plain modules, as weights that others read, as a program.

docs/export.md says which is for what.
"""

from __future__ import annotations

from graybox.exported_program import ExportReport, export_program
from graybox.plain_network import plain_module
from graybox.weight_files import Weights, save_safetensors, save_state_dict
from graybox.weight_loading import load_weights

__all__ = [
    "ExportReport", "Weights", "export_program", "load_weights", "plain_module", "save_safetensors", "save_state_dict",
]  # fmt: skip
