"""`graybox backend`: loads an experiment, trains it, and serves it until it is told to stop."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graybox.cli.arguments import DEFAULT_ROOT, port_number, report
from graybox.cli.experiment_file import UserCodeFailed, load_experiment
from graybox.cli.logs import configure_logging
from graybox.cli.parent import stop_with_parent
from graybox.cli.signals import leave_at_once, on_stop_signals, stop_on_signal
from graybox.errors import GrayboxError
from graybox.service.listening import check_address
from graybox.service.settings import Settings, settings_from_environment
from graybox.store.root import Root

if TYPE_CHECKING:
    from graybox.experiment import Experiment


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox backend", description="Trains an experiment and serves it to whoever watches and steers it."
    )
    made.add_argument(
        "--experiment",
        metavar="FILE.py[:FUNCTION]",
        help="what to train; FUNCTION (default: get_exp) answers a graybox.Experiment (default: handwritten digits)",
    )
    made.add_argument(
        "--root_directory",
        "--root-directory",
        metavar="DIR",
        help=f"where runs are kept (default: the experiment's root_log_dir; {DEFAULT_ROOT} for the digits)",
    )
    made.add_argument("--host", help="address to listen on (default: GRPC_BACKEND_HOST, else 127.0.0.1)")
    made.add_argument("--port", type=port_number, help="0 picks a free one (default: GRPC_BACKEND_PORT, else 50051)")
    made.add_argument(
        "--new_run", "--new-run", action="store_true", help="start a new run instead of going on with the last one"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Blocks until it is told to stop. Answers the exit code: 0 after a clean stop, 2 when it could not start."""
    arguments = parser().parse_args(argv)
    on_stop_signals(leave_at_once)
    stop_with_parent()
    try:
        configure_logging()
        return run(arguments)
    except UserCodeFailed as failure:
        sys.stderr.write(failure.trace)
        return report("backend", failure)
    except GrayboxError as error:
        return report("backend", error)


def run(arguments: argparse.Namespace) -> int:
    """Everything between the command line and the exit code. Raises GrayboxError when it cannot start."""
    settings = settings_from_environment(host=arguments.host, port=arguments.port)
    # What can be said now is said before torch is loaded.
    check_address(settings.host, settings.port)
    asked = arguments.root_directory or (DEFAULT_ROOT if arguments.experiment is None else None)
    root = Root(Path(asked)).path if asked else None
    experiment = load_experiment(arguments.experiment, root)
    if root is None:
        root = Root(Path(experiment.root_log_dir)).path
    return train_and_serve(experiment, root, settings, new_run=arguments.new_run)


def train_and_serve(experiment: Experiment, root: Path, settings: Settings, *, new_run: bool) -> int:
    """Trains and serves until a stop signal. Answers the exit code."""
    from graybox.launch import launch
    from graybox.service.backend import live_backend
    from graybox.service.server import serve

    training = launch(experiment, root_directory=root, new_run=new_run)
    try:
        stop_on_signal(training.stop)
        server = serve(live_backend(training), settings)
        try:
            print(f"Graybox backend: run {training.stores.run.run_id} in {root}, listening on {server.address}")
            in_source = Path(sys.argv[0]).name == "graybox_backend.py"
            dashboard = "python weights_lab.py" if in_source else "graybox dashboard"
            print(f"To see it: {dashboard} --root_directory {shlex.quote(str(root))}", flush=True)
            training.run()
        finally:
            server.stop()
    finally:
        training.close()
    return 0
