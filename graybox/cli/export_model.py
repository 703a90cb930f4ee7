"""`graybox export-model`: the network of a checkpoint as a file that others use without Graybox."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graybox.cli.arguments import report
from graybox.cli.experiment_file import UserCodeFailed, load_experiment, split_reference
from graybox.comparison.place import HELP
from graybox.errors import GrayboxError, Invalid

if TYPE_CHECKING:
    from graybox.export import Weights

FORMATS = ("state_dict", "safetensors", "program")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="graybox export-model",
        description="Writes the network of a checkpoint to a file that is used without Graybox.",
        epilog=f"ROOT is {HELP}.",
    )
    made.add_argument("root", metavar="ROOT")
    made.add_argument("--checkpoint", metavar="REF", help="an id, hash or hash@@step=N (default: the newest)")
    made.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="weights as torch.save or safetensors keep them, or a program of torch.export",
    )
    made.add_argument("--output", required=True, metavar="FILE", help="of a program, NAME.pt2")
    made.add_argument(
        "--experiment",
        metavar="FILE.py[:FUNCTION]",
        help="the code that builds the network: a program needs it; for weights it adds the modules' classes",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file, and says what is in it. Answers the exit code: 0, or 2 where there is none."""
    arguments = parser().parse_args(argv)
    try:
        print(export(arguments))
    except UserCodeFailed as failure:
        sys.stderr.write(failure.trace)
        return report("export-model", failure)
    except GrayboxError as error:
        return report("export-model", error)
    return 0


def export(arguments: argparse.Namespace) -> str:
    """Does what the command line asks for; a line for people. Raises GrayboxError; no file is written then."""
    if arguments.format == "program" and arguments.experiment is None:
        raise Invalid(
            "a program is made by running the network, which only its code can build: give --experiment FILE.py, or "
            "choose --format state_dict or safetensors"
        )
    if arguments.experiment is not None:
        split_reference(arguments.experiment)
    # These load torch, which a wrong command line does not need.
    from graybox.checkpoint_network import bring_network_to, weights_in
    from graybox.comparison.side import checkpoint_of
    from graybox.export import export_program, save_safetensors, save_state_dict
    from graybox.weight_files import parameter_count, weights_of

    text = arguments.root if arguments.checkpoint is None else f"{arguments.root}@{arguments.checkpoint}"
    place, record, payload = checkpoint_of(text)
    class_names = place.run.record.get("class_names", [])
    weights: Weights = weights_in(payload, record, class_names)
    output = Path(arguments.output)
    told = ""
    if arguments.experiment is not None:
        experiment = load_experiment(arguments.experiment, place.run.path.parent)
        bring_network_to(experiment, payload, record)
        if arguments.format == "program":
            made = export_program(experiment.model, None, output)
            batches = "batches of any size" if made.dynamic_batch else f"batches of {made.batch}"
            told = f", for {batches}"
        whole = weights_of(experiment.model, class_names, weights.built)
        weights = type(weights)(whole.tensors, whole.attributes, whole.modules, weights.built, class_names,
                                {**weights.others, **whole.others})  # fmt: skip
    if arguments.format == "state_dict":
        save_state_dict(weights, output)
    elif arguments.format == "safetensors":
        save_safetensors(weights, output)
    count = parameter_count(weights.tensors)
    return f"{output}: {arguments.format} of checkpoint {record.id} at step {record.step:,}, {count:,} numbers{told}"
