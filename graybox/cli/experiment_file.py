"""Loading the experiment that a user wrote, and saying clearly what is wrong with it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from graybox.errors import GrayboxError, Invalid, NotFound

if TYPE_CHECKING:
    from graybox.experiment import Experiment

Result = TypeVar("Result")

DEFAULT_FUNCTION = "get_exp"
DEFAULT_MODULE = "graybox.examples.digits"


class UserCodeFailed(GrayboxError):
    """The user's file raised. The message is one line; `trace` the part of the traceback that is the user's."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def split_reference(reference: str) -> tuple[Path, str]:
    """`FILE.py[:FUNCTION]` as file and function. Raises Invalid when it is neither."""
    path, colon, function = reference.rpartition(":")
    if not (colon and path.endswith(".py")):
        path, function = reference, DEFAULT_FUNCTION
    if not path.endswith(".py") or not function.isidentifier():
        raise Invalid(f"{reference!r} is no experiment file; give FILE.py or FILE.py:FUNCTION")
    return Path(path), function


def load_experiment(reference: str | None, root_directory: Path | None = None) -> Experiment:
    """The experiment that a file's function builds; without a reference the default one.

    reference: `FILE.py[:FUNCTION]`, the function get_exp by default. It is called without arguments, or with
        `root_directory` when one was given and it has a parameter of that name.

    Raises NotFound for a missing file or function, Invalid for a wrong reference or result, UserCodeFailed when the
    file or its function raises.
    """
    path, function = (None, DEFAULT_FUNCTION) if reference is None else split_reference(reference)
    if path is not None and not path.is_file():
        raise NotFound(f"there is no experiment file {str(path)!r} in {Path.cwd()}")
    # Only now, so that a mistyped name is answered before torch is loaded.
    from graybox.experiment import Experiment

    module = importlib.import_module(DEFAULT_MODULE) if path is None else _import_file(path.resolve())
    path = Path(inspect.getfile(module))
    build = _function_of(module, path, function)
    takes_root = root_directory is not None and "root_directory" in inspect.signature(build).parameters
    built = _guarded(path, lambda: build(root_directory=root_directory) if takes_root else build())
    if not isinstance(built, Experiment):
        raise Invalid(
            f"{function}() in {path.name} answered {_with_article(type(built).__name__)}; "
            "it must answer a graybox Experiment"
        )
    return built


def _import_file(path: Path) -> ModuleType:
    name, folder = _importable_name(path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return _guarded(path, lambda: importlib.import_module(name))


def _importable_name(path: Path) -> tuple[str, Path]:
    """The name under which a data-loading worker, which starts afresh, can import the file too, and from which folder.

    Raises Invalid when another module has that name.
    """
    folder, name = path.parent, path.stem
    if "." in name:
        raise Invalid(f"rename {path.name!r}: the name of a module has no dot")
    while (folder / "__init__.py").is_file():
        folder, name = folder.parent, f"{folder.name}.{name}"
    known = sys.modules.get(name)
    is_other = known is not None and Path(getattr(known, "__file__", None) or "").resolve() != path
    if is_other or name in sys.builtin_module_names:
        raise Invalid(f"rename {path.name!r}: there is another module of the name {name!r}")
    return name, folder


def _function_of(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]  # callable: what it answers is checked when called
    own = [
        other
        for other, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not other.startswith("_")
    ]
    write = "write `def get_exp(): ... return Experiment(...)`"
    if own:
        hint = f"it has {', '.join(own)}; name one with {path.name}:{own[0]}, or {write}"
    else:
        hint = f"it has no functions at all; {write}"
    raise NotFound(f"{path.name} has no function {name}: {hint}")


def _guarded(path: Path, call: Callable[[], Result]) -> Result:
    """Runs the user's code. Whatever it raises, it is not ours: it becomes UserCodeFailed."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        own = _from_file_on(error.__traceback__, path)
        if isinstance(error, GrayboxError):
            # Ours, raised on purpose and written for people: the line it came from is all that it needs.
            raise UserCodeFailed(f"{path.name}{_line(own, path)}: {error}") from error
        lines = traceback.format_exception(type(error), error, own)
        last = str(error).strip().splitlines()
        message = f"{path.name}{_line(own, path)} raised {type(error).__name__}{': ' + last[0] if last else ''}"
        raise UserCodeFailed(message, "".join(lines)) from error


def _from_file_on(trace: TracebackType | None, path: Path) -> TracebackType | None:
    """The traceback without our own part, which comes before the file's first line."""
    while trace is not None and not _is_in(trace, path):
        trace = trace.tb_next
    return trace


def _line(trace: TracebackType | None, path: Path) -> str:
    """`:LINE` of the innermost place in the file, or nothing."""
    found = ""
    while trace is not None:
        if _is_in(trace, path):
            found = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _is_in(trace: TracebackType, path: Path) -> bool:
    return Path(trace.tb_frame.f_code.co_filename) == path


def _with_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
