from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

from graybox.cli.experiment_file import UserCodeFailed, load_experiment, split_reference
from graybox.errors import Invalid, NotFound
from graybox.experiment import Experiment
from tests.cli.conftest import TINY, Write

pytestmark = pytest.mark.usefixtures("clean_imports")


@pytest.mark.parametrize(
    ("reference", "path", "function"),
    [
        ("mine.py", "mine.py", "get_exp"),
        ("a/mine.py:build", "a/mine.py", "build"),
        ("odd:folder/mine.py", "odd:folder/mine.py", "get_exp"),
    ],
)
def test_a_reference_is_file_and_function(reference: str, path: str, function: str) -> None:
    assert split_reference(reference) == (Path(path), function)


@pytest.mark.parametrize(
    "reference", ["", "mine", "mine.txt", "mine.py:", "mine.py:a b", ":get_exp", "mine.txt:get_exp"]
)
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(Invalid, match=r"is no experiment file; give FILE.py or FILE.py:FUNCTION"):
        split_reference(reference)


def test_the_function_is_found_and_called(write: Write) -> None:
    path = write("gx_plain.py", TINY, "def get_exp(): return build()\ndef other(): return build('another')")
    first = load_experiment(str(path))
    assert isinstance(first, Experiment)
    assert first.name == "whole"
    assert load_experiment(f"{path}:other").name == "another"


def test_a_function_that_asks_for_the_root_directory_gets_it(write: Write, tmp_path: Path) -> None:
    path = write("gx_root.py", TINY, "def get_exp(root_directory='mine'): return build(str(root_directory))")
    assert load_experiment(str(path), tmp_path).name == str(tmp_path)
    assert load_experiment(str(path)).name == "mine"


def test_modules_beside_the_file_are_importable(write: Write) -> None:
    write("gx_neighbour.py", TINY)
    assert load_experiment(str(write("gx_uses.py", "from gx_neighbour import build as get_exp"))).name == "whole"


def test_a_file_in_a_package_may_import_relatively(write: Write) -> None:
    write("gx_package/__init__.py")
    write("gx_package/parts.py", TINY)
    path = write("gx_package/main.py", "from .parts import build\ndef get_exp(): return build('relative')")
    assert load_experiment(str(path)).name == "relative"


def _length_and_type(dataset: object) -> tuple[int, str]:
    return len(dataset), type(dataset).__name__  # type: ignore[arg-type]


def test_a_process_that_starts_afresh_can_load_its_data_set(write: Write) -> None:
    path = write("gx_workers.py", TINY, "def get_exp(): return build()")
    load_experiment(str(path))
    points = sys.modules["gx_workers"].Points()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_length_and_type, (points,)) == (8, "Points")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no experiment file '.*/nowhere.py'"):
        load_experiment(str(tmp_path / "nowhere.py"))


def test_a_file_without_the_function_names_those_it_has(write: Write) -> None:
    path = write("gx_without.py", "from os.path import join\ndef make(): ...\ndef _hidden(): ...\ndef train(): ...")
    with pytest.raises(NotFound) as caught:
        load_experiment(str(path))
    message = str(caught.value)
    assert message.startswith(
        "gx_without.py has no function get_exp: it has make, train; name one with gx_without.py:make"
    )


def test_a_file_without_functions_says_so(write: Write) -> None:
    path = write("gx_empty.py", "get_exp = 3")
    with pytest.raises(NotFound, match="it has no functions at all"):
        load_experiment(str(path))


@pytest.mark.parametrize(("answer", "named"), [("None", "a NoneType"), ("3", "an int"), ("[build()]", "a list")])
def test_a_wrong_answer_is_named(write: Write, answer: str, named: str) -> None:
    path = write("gx_wrong.py", TINY, f"def get_exp(): return {answer}")
    with pytest.raises(
        Invalid, match=rf"get_exp\(\) in gx_wrong.py answered {named}; it must answer a graybox Experiment"
    ):
        load_experiment(str(path))


def test_an_exception_shows_the_users_part_of_the_traceback(write: Write) -> None:
    path = write("gx_raises.py", "def inner(): raise KeyError('colour')\ndef get_exp():\n    return inner()")
    with pytest.raises(UserCodeFailed) as caught:
        load_experiment(str(path))
    assert str(caught.value) == "gx_raises.py:1 raised KeyError: 'colour'"
    assert "line 3, in get_exp" in caught.value.trace
    assert "line 1, in inner" in caught.value.trace
    assert "experiment_file.py" not in caught.value.trace


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import os\nraise ValueError('bad data')", "gx_import.py:2 raised ValueError: bad data"),
        ("import nothing_of_this_name", "gx_import.py:1 raised ModuleNotFoundError: No module named"),
        ("raise SystemExit('no GPU here')", "gx_import.py:1 raised SystemExit: no GPU here"),
        ("def get_exp(:", "gx_import.py raised SyntaxError: "),
        ("raise RuntimeError('one\\ntwo')", "gx_import.py:1 raised RuntimeError: one"),
        ("raise RuntimeError", "gx_import.py:1 raised RuntimeError"),
        ("def get_exp(needed): ...", "gx_import.py raised TypeError: get_exp() missing"),
    ],
)
def test_a_file_that_cannot_be_imported_or_called(write: Write, code: str, line: str) -> None:
    path = write("gx_import.py", code)
    with pytest.raises(UserCodeFailed) as caught:
        load_experiment(str(path))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert "experiment_file.py" not in caught.value.trace


def test_a_syntax_error_shows_the_place(write: Write) -> None:
    path = write("gx_syntax.py", "x = 1\ndef get_exp(:\n    pass")
    with pytest.raises(UserCodeFailed) as caught:
        load_experiment(str(path))
    assert f'File "{path}", line 2' in caught.value.trace


def test_an_experiment_that_graybox_refuses_needs_no_traceback(write: Write) -> None:
    path = write("gx_refused.py", TINY, "Points.__len__ = lambda self: 0\ndef get_exp():\n    return build()")
    with pytest.raises(UserCodeFailed, match=r"^gx_refused.py:\d+: the train data set is empty") as caught:
        load_experiment(str(path))
    assert caught.value.trace == ""


@pytest.mark.parametrize("name", ["json.py", "torch.py", "sys.py", "a.b.py"])
def test_a_name_that_hides_another_module_is_refused(write: Write, name: str) -> None:
    path = write(name, TINY, "def get_exp(): return build()")
    before = list(sys.path)
    with pytest.raises(Invalid, match=rf"rename '{name}'"):
        load_experiment(str(path))
    assert sys.path == before
