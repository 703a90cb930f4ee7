"""Make a network smaller while it trains: take out what it does not need, undo what was too much.

    python -m graybox.examples.minimise --root_directory my-runs

trains the digits twice with one seed and one number of steps, whole and with `Minimiser` at work between the steps, and
prints what was removed when and why, and what it cost. docs/minimise.md says how it works and what was measured. As
`--experiment graybox/examples/minimise.py` of the backend it can be watched.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F
from torchvision import datasets
from torchvision.datasets.folder import default_loader
from torchvision.transforms.functional import pil_to_tensor

from graybox.dash import Dash
from graybox.evaluation import EvaluationPass
from graybox.examples.digits import SimpleConvNet, write_digits
from graybox.examples.minimiser import Cut, Minimiser, Recipe
from graybox.experiment import Experiment
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps

DEFAULT_ROOT = "graybox-minimise"
STEPS = 2_000
SEED = 1
PLACES = tuple((down, right) for down in range(3) for right in range(3))
"""Where training moves a scan to: by up to a pixel in each direction."""


# -- the experiment ------------------------------------------------------------------------------------


class WideConvNet(SimpleConvNet):
    """Twice as many neurons in every layer as the default experiment's network, and no dropout: what one begins with
    where nobody knows yet how many it takes. Images [batch, 3, 8, 8] -> logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = Conv2dWithNeuronOps(in_channels=3, out_channels=32, kernel_size=3, padding=1)
        self.bnorm1 = BatchNorm2dWithNeuronOps(32)
        self.layer2 = Conv2dWithNeuronOps(in_channels=32, out_channels=64, kernel_size=3, padding=1)
        self.bnorm2 = BatchNorm2dWithNeuronOps(64)
        self.fc1 = LinearWithNeuronOps(in_features=64 * 4 * 4, out_features=128)
        self.drop1 = nn.Dropout(0.0)  # dropout would hold back what is left when most neurons are gone
        self.fc2 = LinearWithNeuronOps(in_features=128, out_features=10)


def get_exp(root_directory: str | Path = DEFAULT_ROOT) -> Experiment:
    """For the backend: the digits, cut down while you watch."""
    experiment = digits(root_directory, STEPS, SEED, "digits, cut down")
    Minimiser(experiment, tell=print_cut)
    return experiment


def digits(
    root_directory: str | Path, steps: int, seed: int, name: str, places: Sequence[tuple[int, int]] = PLACES
) -> Experiment:
    """The digits of `graybox.examples.digits`, with a learning rate that falls to nothing. All 539 scans that are not
    trained on validate, at each of the places: of 269 scans, one more or less is 0.4 points already."""
    root = Path(root_directory)
    data = write_digits(root / "digits")
    torch.set_num_threads(1)  # so small a network is no faster with more
    torch.manual_seed(seed)
    model = WideConvNet()
    model.define_deps()
    model.example_input = torch.zeros(1, 3, 8, 8)  # for the number of multiply-adds
    return Experiment(
        model=model,
        optimizer_class=optim.Adam,
        scheduler=lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        train_dataset=datasets.ImageFolder(str(data / "train"), shifted, loader=read_once),
        eval_dataset=EveryPlace([data / "val", data / "test"], places),
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        learning_rate=2e-3,
        batch_size=64,
        training_steps_to_do=steps,
        name=name,
        root_log_dir=root,
        logger=Dash(root),
        seed=seed,
        full_eval_frequency=400,
        checkpoint_frequency=0,
    )


@functools.cache
def read_once(path: str) -> torch.Tensor:
    """uint8 [3, 8, 8]. Reading a scan takes longer than training on it."""
    image: torch.Tensor = pil_to_tensor(default_loader(path))
    return image


def normalised(image: torch.Tensor) -> torch.Tensor:
    """float32 of mean about 0 and deviation about 1."""
    return image.to(torch.float32).sub_(0.306 * 255.0).div_(0.374 * 255.0)


def shifted(image: torch.Tensor) -> torch.Tensor:
    """Moved by up to a pixel."""
    down, right = torch.randint(3, (2,)).tolist()
    return placed(image, down, right)


def placed(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Moved by a pixel to where the frame then begins, 0 to 2 each; (1, 1) leaves it in the middle."""
    return normalised(F.pad(image, (1, 1, 1, 1))[:, down : down + 8, right : right + 8])


class EveryPlace(datasets.ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """The scans of several folders, each at every one of the places (down, right), one after the other."""

    def __init__(self, folders: Sequence[Path], places: Sequence[tuple[int, int]] = PLACES) -> None:
        super().__init__(str(folders[0]), loader=read_once)
        self.places = tuple(places)
        scans = [scan for folder in folders for scan in datasets.ImageFolder(str(folder)).samples]
        self.samples = self.imgs = [scan for scan in scans for _ in self.places]
        self.targets = [label for _, label in self.samples]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        return placed(self.loader(path), *self.places[index % len(self.places)]), label


# -- whole against cut ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A run at its end. Accuracies in [0, 1]; seconds_per_step: the median of the last hundred steps."""

    parameters: int
    multiply_adds: int
    neurons: dict[str, int]
    train_accuracy: float
    val_accuracy: float
    seconds_per_step: float
    cuts: list[Cut] = field(default_factory=list)


def train(root_directory: str | Path, *, steps: int, seed: int, recipe: Recipe | None, tell: bool = True) -> Trained:
    """One run from the beginning; recipe: None leaves the network whole."""
    experiment = digits(root_directory, steps, seed, "digits" if recipe is None else "digits, cut down")
    experiment.skip_loading = True
    minimiser = None if recipe is None else Minimiser(experiment, recipe, **({"tell": print_cut} if tell else {}))
    times: list[float] = []
    experiment.set_train_loop_clbk_freq(1)
    experiment.register_train_loop_callback(lambda: times.append(time.perf_counter()))
    try:
        percent: float | None = None
        for begin in range(0, steps, experiment.full_eval_frequency):
            experiment.train_n_steps(min(experiment.full_eval_frequency, steps - begin))
            percent = experiment.eval_full()[1]
        model = experiment.model
        return Trained(
            model.get_parameter_count(),
            model.structure.multiply_adds(),
            {name: layer.neuron_count for name, layer in model.named_layers()},
            accuracy_on(experiment, "train"),
            (percent or 0.0) / 100.0,
            statistics.median(np.diff(times[-101:]).tolist()),
            [] if minimiser is None else minimiser.cuts,
        )
    finally:
        experiment.close()


def accuracy_on(experiment: Experiment, split: str) -> float:
    """The share of a split's samples that are predicted rightly."""
    kept = np.zeros(len(experiment.datasets[split]), dtype=bool)
    done = EvaluationPass(experiment, split, kept, batch_size=256, seed=0, record=lambda outcome: None)
    while done.advance():
        pass
    return done.result().accuracy or 0.0


def compare(
    root_directory: str | Path, *, steps: int = STEPS, seed: int = SEED, recipe: Recipe | None = None, tell: bool = True
) -> tuple[Trained, Trained]:
    """(uncut, cut): the same seed, the same number of steps. Prints as it goes, unless it is not to tell."""
    if tell:
        print(f"{steps:,} steps on the digits, seed {seed}: first whole, then cut down\n", flush=True)
    uncut = train(root_directory, steps=steps, seed=seed, recipe=None)
    if tell:
        print_heading()
    cut = train(root_directory, steps=steps, seed=seed, recipe=recipe or Recipe(), tell=tell)
    if tell:
        print_comparison(uncut, cut)
    return uncut, cut


# -- printing ------------------------------------------------------------------------------------------

_HEADING = ("step", "layer", "removed", "why", "parameters", "multiply-adds", "train", "val", "")
_WIDTHS = (5, 8, 9, 12, 11, 14, 7, 7, 6)


def print_heading() -> None:
    """The columns of `print_cut`. The accuracies are those that the cut network had a while later."""
    print(_line(_HEADING, _WIDTHS), flush=True)


def print_cut(cut: Cut) -> None:
    """One row per layer and reason."""
    for (layer, why), (removed, of) in cut.removed.items():
        print(
            _line(
                (
                    f"{cut.step:,}", layer, f"{removed} of {of}", why, f"{cut.parameters:,}",
                    f"{cut.multiply_adds:,}", f"{cut.train_accuracy:.2%}", f"{cut.val_accuracy:.2%}",
                    "" if cut.kept else "undone",
                ),
                _WIDTHS,
            ),
            flush=True,
        )  # fmt: skip


def print_comparison(uncut: Trained, cut: Trained) -> None:
    """How the two runs ended."""
    print()
    widths = (20, 12, 12, 16)
    print(_line(("", "uncut", "cut", ""), widths))
    for name, before, after in (
        ("parameters", uncut.parameters, cut.parameters),
        ("multiply-adds", uncut.multiply_adds, cut.multiply_adds),
    ):
        print(_line((name, f"{before:,}", f"{after:,}", f"{before / after:.1f} times fewer"), widths))
    for name, one, other in (
        ("train accuracy", uncut.train_accuracy, cut.train_accuracy),
        ("validation accuracy", uncut.val_accuracy, cut.val_accuracy),
    ):
        print(_line((name, f"{one:.2%}", f"{other:.2%}", f"{100 * (other - one):+.2f} points"), widths))
    print(_line(("seconds per step", f"{uncut.seconds_per_step:.4f}", f"{cut.seconds_per_step:.4f}", ""), widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m graybox.examples.minimise", description=__doc__)
    parser.add_argument("--root_directory", default=DEFAULT_ROOT, help="where the digits and both runs are kept")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each run ({STEPS:,})")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first weights, the order and all else")
    given = parser.parse_args(arguments)
    compare(given.root_directory, steps=given.steps, seed=given.seed)


if __name__ == "__main__":
    main()
