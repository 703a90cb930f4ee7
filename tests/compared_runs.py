"""Runs of a small network that is edited while it trains, for tests of what compares runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graybox.commands import Command
from graybox.launch import Training, launch
from tests.test_structural_life import Plain, ask, experiment, train

__all__ = ["Plain", "ask", "finished", "train", "training"]


@contextmanager
def training(root: Path, **changes: Any) -> Iterator[Training]:
    """An experiment at work in a root directory."""
    made = launch(experiment(**changes), root_directory=root)
    try:
        yield made
    finally:
        made.close()


def finished(root: Path, *commands: Command | Callable[[Training], object], steps: int = 3, **changes: Any) -> Path:
    """A run that has ended: so many steps, each command (or call) and as many steps again; its folder."""
    with training(root, **changes) as made:
        train(made, steps)
        for command in commands:
            if callable(command):
                command(made)
            else:
                ask(made, command)
            train(made, steps)
        return made.stores.run.path
