"""The house as DESIGN draws it: who may import whom, lazy names, and the size of files and functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graybox
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "graybox"
ENTRY_POINTS = [REPOSITORY / "graybox_backend.py", REPOSITORY / "weights_lab.py"]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Files and functions that are longer on purpose, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

# folder of graybox ("" is the core): what none of its files may import, at any depth.
FORBIDDEN = {
    "": ["graybox.service", "graybox.dashboard", "graybox.cli"],
    "structure": ["graybox.service", "graybox.dashboard", "graybox.cli", "graybox.store"],
    "comparison": ["graybox.service", "graybox.dashboard", "graybox.cli", "grpc", "dash"],
    "store": ["torch", "torchvision", "grpc", "dash", "graybox"],
    "service": ["torch", "torchvision", "dash", "graybox.dashboard", "graybox.cli"],
    "dashboard": ["torch", "torchvision", "graybox"],
    "proto": ["torch", "dash", "graybox"],
    "examples": ["graybox.service", "graybox.dashboard", "graybox.cli"],
    "cli": [],
}
ALLOWED = {
    "store": ["graybox.store", "graybox.errors"],
    "dashboard": ["graybox.dashboard", "graybox.proto"],
    "proto": ["graybox.proto"],
}
# Core modules that the torch-free halves import, so that they must be torch-free themselves.
TORCH_FREE = ["commands", "errors", "neuron_ops", "plan_summary", "snapshot"]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file as (line, absolute name), those inside functions and by importlib included."""
    package = list(path.relative_to(REPOSITORY).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            for name in node.names:
                yield node.lineno, ".".join([*parts, name.name])
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"importlib.import_module", "__import__"}
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def is_within(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def wrong_imports(path: Path) -> list[str]:
    parts = path.relative_to(PACKAGE).parts
    folder = parts[0] if len(parts) > 1 else ""
    assert folder in FORBIDDEN, f"{folder} is a new room: say in FORBIDDEN what it must not import"
    forbidden = FORBIDDEN[folder]
    if folder == "" and path.stem in TORCH_FREE:
        forbidden = [*forbidden, "torch", "torchvision"]
    return [
        f"{relative(path)}:{line} imports {name}"
        for line, name in imports_of(path)
        if is_within(name, forbidden) and not is_within(name, ALLOWED.get(folder, []))
    ]


def test_arrows() -> None:
    assert [wrong for path in modules() for wrong in wrong_imports(path)] == []


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("trainer.py", "import graybox.service.server"),
        ("trainer.py", "def late():\n    from graybox import cli"),
        ("trainer.py", "def late():\n    from .dashboard.app import make_app"),
        ("snapshot.py", "import torch.nn as nn"),
        ("store/journal.py", "from torch import Tensor"),
        ("store/journal.py", "from graybox.snapshot import Snapshot"),
        ("store/journal.py", "from ..commands import Command"),
        ("dashboard/pages/data.py", "from graybox.store.root import Root"),
        ("dashboard/pages/data.py", "import importlib\nimportlib.import_module('torch')"),
    ],
)
def test_a_wrong_arrow_is_found(place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graybox" / place
    path.parent.mkdir(parents=True)
    path.write_text(code)
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "graybox")
    assert len(wrong_imports(path)) == 1


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running the code."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import graybox", {"torch", "torchvision", "grpc", "dash", "numpy"}),
        ("import graybox.cli.demo", {"torch", "torchvision", "grpc", "dash", "numpy"}),
        ("import graybox.commands, graybox.snapshot, graybox.neuron_ops, graybox.errors", {"torch", "grpc", "dash"}),
        ("import graybox.service.server", {"torch", "torchvision", "dash"}),
        ("import graybox.dashboard.main", {"torch", "torchvision"}),
    ],
)
def test_what_an_import_pulls_in(code: str, heavy: set[str]) -> None:
    assert loaded_after(code) & heavy == set()


def test_every_store_module_is_free_of_torch() -> None:
    names = ", ".join(f"graybox.store.{path.stem}" for path in (PACKAGE / "store").glob("*.py"))
    assert loaded_after(f"import {names}") & {"torch", "grpc", "dash"} == set()


@pytest.mark.parametrize("name", graybox.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(graybox, name) is not None
    assert name in dir(graybox)


def test_public_names_come_from_their_homes() -> None:
    from graybox.experiment import Experiment

    assert graybox.Experiment is Experiment
    with pytest.raises(AttributeError, match=r"no attribute 'Experimint'; it offers .*Experiment"):
        graybox.Experimint  # noqa: B018


def test_typing_sees_what_is_loaded_lazily() -> None:
    declared = {
        name.asname or name.name: node.module
        for block in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert declared == graybox._HOMES
    assert {*declared, "__version__"} == set(graybox.__all__)


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in [*modules(), *ENTRY_POINTS]}
    long = {name: length for name, length in lengths.items() if length >= MAX_FILE_LINES}
    assert {name: length for name, length in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "an exception that is no longer needed"


def test_functions_are_short() -> None:
    long = {
        f"{relative(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in [*modules(), *ENTRY_POINTS]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 >= MAX_FUNCTION_LINES
    }
    assert {name: length for name, length in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long), "an exception that is no longer needed"


def test_the_entry_points_are_thin() -> None:
    for path in ENTRY_POINTS:
        assert len(path.read_text().splitlines()) <= 20, f"{path.name} does more than start something"
