"""Cuts a network down while it trains, and takes back what was too much."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graybox.commands import EditNeurons, Undo
from graybox.errors import Refused
from graybox.examples.neuron_worth import Worth
from graybox.experiment import Experiment
from graybox.neuron_health import DEAD, REDUNDANT, HealthThresholds
from graybox.neuron_ops import RemoveNeurons, Several
from graybox.neuron_statistics import copy_statistics
from graybox.own_loop import OwnLoop
from graybox.snapshot import LayerStatistics

DEAD_ONE, REDUNDANT_ONE, WORTH_LEAST = "dead", "redundant", "worth least"


@dataclass(frozen=True)
class Recipe:
    """When to cut, how much, and when to stop.

    first, every: steps before the first cut, and between two of them; until: the share of all steps after which nothing
    is cut, so that what is left can settle.
    share: of the network's parameters that one cut by score takes, at most; target: how many times fewer parameters
    are enough; at_least: the share of its neurons that every layer keeps, so that none becomes a bottleneck.
    tolerance: a cut is undone when, `every` steps later, the validation accuracy is more than this below the best one
    so far, in [0, 1]; the next one is half as large. give_up: so many cuts undone, and no more are tried.
    redundant_above: how similar two neurons are of which one is redundant; see HealthThresholds.
    """

    first: int = 150
    every: int = 50
    until: float = 0.6
    share: float = 0.2
    target: float = 5.5
    at_least: float = 0.25
    tolerance: float = 0.02
    give_up: int = 3
    redundant_above: float = 0.9


@dataclass
class Cut:
    """What was removed at one step. kept: None until it is judged."""

    step: int
    removed: dict[tuple[str, str], tuple[int, int]]
    """By layer and reason: how many neurons, of how many."""
    parameters: int
    multiply_adds: int
    sequence: int
    """Of its entry in the journal."""
    train_accuracy: float = float("nan")
    val_accuracy: float = float("nan")
    kept: bool | None = None


class Minimiser:
    """Cuts an experiment's network down between its training steps, by commands, as a person would on the dashboard:
    every cut is journalled, shows on the plots, and can be undone there.

    It is called after every step, see `Experiment.register_train_loop_callback`. Each so many steps it judges the last
    cut by the validation accuracy and, where that fell too far, undoes it. Then it removes, in this order:

    1. dead neurons: they trigger on less than one sample in a thousand;
    2. of each pair of redundant ones (parallel weights or activations) the one that less depends on: with the smaller
       norm of outgoing weights;
    3. those worth least for each parameter that goes with them, worth as by Molchanov et al., Importance Estimation for
       Neural Network Pruning, CVPR 2019: see `graybox.examples.neuron_worth`.
    """

    def __init__(
        self, experiment: Experiment, recipe: Recipe | None = None, *, tell: Callable[[Cut], None] = lambda _: None
    ) -> None:
        self.experiment = experiment
        self.recipe = recipe or Recipe()
        self.tell = tell
        self.cuts: list[Cut] = []
        self.worth = Worth(experiment.model)
        self._thresholds = HealthThresholds(redundant_above=self.recipe.redundant_above)
        self._whole = experiment.model.get_parameter_count()
        self._fewest = {
            name: math.ceil(layer.neuron_count * self.recipe.at_least)
            for name, layer in experiment.model.named_layers()
        }
        self._last_step = round(experiment.training_steps_to_do * self.recipe.until)
        self._share = self.recipe.share
        self._best = 0.0
        self._accuracies: list[float] = []
        experiment.set_train_loop_clbk_freq(1)
        experiment.register_train_loop_callback(self.after_step)

    # -- between two steps ---------------------------------------------------------------------------

    def after_step(self) -> None:
        """Watch the step that was made, and now and then judge and cut."""
        session, recipe = self._loop.trainer.session, self.recipe
        step = session.step
        if step > self._last_step + recipe.every:
            return
        self.worth.watch()
        if session.last_train is not None:
            self._accuracies.append(session.last_train.accuracy or 0.0)
        if step < recipe.first or (step - recipe.first) % recipe.every:
            return
        accuracy = (self.experiment.eval_full()[1] or 0.0) / 100.0
        undone = self._judge(accuracy)
        self._best = max(self._best, accuracy)
        if step <= self._last_step and not undone:
            self._cut(step)
        self.worth.forget()
        self._accuracies.clear()

    @property
    def _loop(self) -> OwnLoop:
        return self.experiment.loop()

    def _judge(self, accuracy: float) -> bool:
        """Say what became of the last cut; whether it was undone."""
        if not self.cuts or self.cuts[-1].kept is not None:
            return False
        cut = self.cuts[-1]
        cut.train_accuracy, cut.val_accuracy = statistics.fmean(self._accuracies), accuracy
        cut.kept = accuracy >= self._best - self.recipe.tolerance
        if not cut.kept:
            self._share /= 2
            try:
                self._loop.command(Undo(cut.sequence))
            except Refused:  # somebody has changed something since, and knows why
                cut.kept = True
        self.tell(cut)
        return not cut.kept

    def _cut(self, step: int) -> None:
        if sum(cut.kept is False for cut in self.cuts) >= self.recipe.give_up:
            return
        known = copy_statistics(self.experiment.model, step, self._thresholds, fresh=True)
        layers = [layer for layer in known.layers.values() if not layer.info.is_output]
        picks = self._picks(layers)
        if not picks:
            return
        going: dict[str, list[int]] = {}
        for layer, neuron in picks:
            going.setdefault(layer, []).append(neuron)
        edit = Several(edits=tuple(RemoveNeurons(layer, tuple(sorted(neurons))) for layer, neurons in going.items()))
        done = self._loop.command(EditNeurons(edit))
        model, sizes = self.experiment.model, {layer.info.name: layer.info.neurons for layer in layers}
        removed = Counter((layer, why) for (layer, _), why in picks.items())
        self.cuts.append(
            Cut(
                step,
                {(layer, why): (count, sizes[layer]) for (layer, why), count in removed.items()},
                model.get_parameter_count(),
                model.structure.multiply_adds(),
                done.sequence,
            )
        )

    # -- which ones ----------------------------------------------------------------------------------

    def _picks(self, layers: Sequence[LayerStatistics]) -> dict[tuple[str, int], str]:
        """(layer, neuron) of all that go, and why. Dead and redundant ones go at once, others while the cut is within
        its share and the target is not reached."""
        recipe, parameters = self.recipe, self.experiment.model.get_parameter_count()
        left = min(parameters * self._share, parameters - self._whole / recipe.target)
        if left <= 0:
            return {}
        costs = {layer.info.name: self._cost(layer.info.name) for layer in layers}
        spare = {layer.info.name: layer.info.neurons - self._fewest[layer.info.name] for layer in layers}
        picks: dict[tuple[str, int], str] = {}
        norms, worth = self.worth.outgoing_norms(), self.worth.scores()
        free = [
            *(
                (layer.info.name, int(neuron), DEAD_ONE)
                for layer in layers
                for neuron in np.flatnonzero(layer.health == DEAD)
            ),
            *(
                (layer.info.name, neuron, REDUNDANT_ONE)
                for layer in layers
                for neuron in redundant(layer, norms[layer.info.name])
            ),
        ]
        others = sorted(
            (worth[name][neuron] / costs[name], name, neuron)
            for name, count in ((layer.info.name, layer.info.neurons) for layer in layers)
            for neuron in range(count)
        )
        for name, neuron, why in [*free, *((name, neuron, WORTH_LEAST) for _, name, neuron in others)]:
            if why == WORTH_LEAST and left <= 0:
                break
            if spare[name] > 0 and (name, neuron) not in picks:
                picks[name, neuron] = why
                spare[name] -= 1
                left -= costs[name]
        return picks

    def _cost(self, layer: str) -> int:
        """Parameters that one neuron of a layer takes along, as the plan says."""
        plan = self._loop.command(EditNeurons(RemoveNeurons(layer, (0,)), dry_run=True)).value
        return int(plan.parameters_before - plan.parameters_after)


def redundant(layer: LayerStatistics, outgoing_norm: np.ndarray) -> list[int]:
    """Of each pair of neurons that do the same the one with the smaller norm of outgoing weights, float64 [neurons]."""
    chosen: list[int] = []
    if layer.redundant_with is None:
        return chosen
    for one in np.flatnonzero(layer.health == REDUNDANT).tolist():
        other = int(layer.redundant_with[one])
        if one not in chosen and other not in chosen:  # never both
            chosen.append(one if outgoing_norm[one] <= outgoing_norm[other] else other)
    return chosen
