"""The hyper-parameters that an experiment brings along: of its optimizer, its schedule, its loss, its dropout layers,
its workers, and those that a person registered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim
from torch.nn.modules.dropout import _DropoutNd

from graybox.checks import LARGEST_INTEGER, is_number
from graybox.class_loss import ClassLoss, class_weights_text, parse_class_weights
from graybox.errors import Invalid, Refused
from graybox.sample_stream import check_picklable
from graybox.setting import Setting
from graybox.tunable import Tunable

if TYPE_CHECKING:
    from graybox.experiment import Experiment
    from graybox.session import Session

MAX_WORKERS = 1_024
_NOT_OPTIONS = ("params", "lr", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "param_names")
_SWITCHES = ("nesterov",)
"""Of an optimizer's truth values those that can be changed while it trains: others choose how it keeps its state."""
_SCHEDULED: dict[str, tuple[str, float, float]] = {
    "gamma": ("number", 0.0, 1e6), "step_size": ("integer", 1, LARGEST_INTEGER),
    "T_max": ("integer", 1, LARGEST_INTEGER), "eta_min": ("number", 0.0, 1e6), "factor": ("number", 0.0, 1.0),
    "patience": ("integer", 0, LARGEST_INTEGER), "threshold": ("number", 0.0, 1e6),
    "cooldown": ("integer", 0, LARGEST_INTEGER), "power": ("number", 0.0, 1e3),
    "total_iters": ("integer", 1, LARGEST_INTEGER),
}  # fmt: skip
"""What of torch's schedulers can be changed while they run."""


def live_settings(experiment: Experiment) -> dict[str, Setting]:
    """All of them, by name, in the order to show them. Raises Invalid where two have the same name."""
    found: dict[str, Setting] = {}
    for setting in (
        *_of_optimizer(experiment.optimizer),
        *_of_scheduler(experiment),
        *_of_loss(experiment),
        *_of_dropout(experiment.model),
        _of_workers(experiment),
        *map(_of_person, experiment.hyper_parameters),
    ):
        if setting.name in found:
            raise Invalid(f"there are two hyper-parameters named {setting.name!r}; give one of them another name")
        found[setting.name] = setting
    return found


# -- the optimizer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Option:
    """A number that is an option of the optimizer, or one of several that are, for some groups of its parameters."""

    name: str
    option: str
    part: int | None
    groups: tuple[int, ...]

    def read(self, session: Session) -> Any:
        value = session.experiment.optimizer.param_groups[self.groups[0]][self.option]
        return value if self.part is None else value[self.part]

    def write(self, session: Session, value: Any) -> None:
        for number in self.groups:
            group = session.experiment.optimizer.param_groups[number]
            group[self.option] = self.in_place(group[self.option], value)

    def in_place(self, old: Any, value: Any) -> Any:
        """What the group holds once this one has a value."""
        if self.part is None:
            return value
        return type(old)(value if place == self.part else each for place, each in enumerate(old))


def _of_optimizer(optimizer: optim.Optimizer) -> Iterator[Setting]:
    """One for each option that is a number, for all groups of parameters that begin with the same value; groups that
    begin with another one have a setting of their own."""
    found: list[tuple[_Option, bool]] = []
    options = dict.fromkeys(key for group in optimizer.param_groups for key in group if key not in _NOT_OPTIONS)
    for option in options:
        shares: dict[Any, list[int]] = {}
        for number, group in enumerate(optimizer.param_groups):
            for part, value in _numbers_of(option, group.get(option)):
                shares.setdefault((part, value), []).append(number)
        firsts: set[int | None] = set()
        for (part, value), groups in shares.items():
            prefix = "optimizer" if part not in firsts else f"optimizer.group{groups[0]}"
            firsts.add(part)
            name = f"{prefix}.{option}" if part is None else f"{prefix}.{option}.{part}"
            found.append((_Option(name, option, part, tuple(groups)), isinstance(value, bool)))
    everything = [option for option, _ in found]
    yield from (_setting_of(option, switch, everything) for option, switch in found)


def _numbers_of(option: str, value: Any) -> Iterator[tuple[int | None, Any]]:
    if isinstance(value, bool):
        if option in _SWITCHES:
            yield None, value
    elif is_number(value):
        yield None, float(value)
    elif isinstance(value, (tuple, list)) and value and all(is_number(each) for each in value):
        yield from ((place, float(each)) for place, each in enumerate(value))


def _setting_of(option: _Option, switch: bool, everything: list[_Option]) -> Setting:
    def check_fit(session: Session, value: Any, changes: Mapping[str, Any]) -> None:
        optimizer, scheduler = session.experiment.optimizer, session.experiment.scheduler
        cycled = option.option == "momentum" or (option.option == "betas" and option.part == 0)
        if cycled and getattr(scheduler, "cycle_momentum", False):
            raise Refused(
                f"{option.name} is set by the schedule at every step; build it with cycle_momentum=False to set it"
            )
        group = dict(optimizer.param_groups[option.groups[0]])
        for other in everything:
            if other.name in changes and option.groups[0] in other.groups:
                group[other.option] = other.in_place(group[other.option], changes[other.name])
        _try_options(optimizer, optimizer.param_groups[option.groups[0]], group, f"{option.name} cannot be {value!r}")

    label = option.option.replace("_", " ") + ("" if option.part is None else f" {option.part + 1}")
    if option.name.startswith("optimizer.group"):
        label += f" of parameter group {option.groups[0]}"
    return Setting(
        option.name, label[:1].upper() + label[1:], "bool" if switch else "number", option.read, option.write,
        check_fit=check_fit, description=f"Option {option.option} of the optimizer; its state is kept",
    )  # fmt: skip


def _try_options(optimizer: optim.Optimizer, before: dict[str, Any], after: dict[str, Any], refusal: str) -> None:
    """Raises Invalid, with what torch says, where an optimizer of this kind does not take the options, or cannot go on
    with the state that it has: tried on a copy of its smallest parameter."""
    parameters = [parameter for parameter in before["params"] if parameter.numel()]
    if not parameters:
        return
    parameter = min(parameters, key=torch.Tensor.numel)

    def attempt(group: Mapping[str, Any]) -> Exception | None:
        trial = parameter.detach().clone().requires_grad_()
        trial.grad = torch.zeros_like(trial)
        try:
            made = type(optimizer)([trial], **{key: group[key] for key in optimizer.defaults if key in group})
            made.state[trial] = copy.deepcopy(optimizer.state.get(parameter, {}))
            made.step()
        except Exception as error:  # whatever an optimizer of anybody's raises
            return error
        return None

    failed = attempt(after)
    # One that cannot be made in this way at all tells nothing.
    if failed is not None and attempt(before) is None:
        said = f"it lacks {failed}" if isinstance(failed, KeyError) else str(failed)
        raise Invalid(f"{refusal}: {type(optimizer).__name__} says: {said}") from failed


# -- the schedule ----------------------------------------------------------------------------------------


def _of_scheduler(experiment: Experiment) -> Iterator[Setting]:
    if experiment.scheduler is None:
        return

    def write(session: Session, value: bool) -> None:
        session.experiment.schedule_runs = value

    yield Setting(
        "scheduler.runs", "Schedule runs", "bool", lambda s: s.experiment.schedule_runs, write,
        description="Whether the schedule goes on changing the learning rate; it stands still while not",
    )  # fmt: skip
    yield from _of_parts(experiment.scheduler, "scheduler", lambda s: s.experiment.scheduler)


def _of_parts(scheduler: Any, prefix: str, find: Callable[[Session], Any]) -> Iterator[Setting]:
    for name, (kind, minimum, maximum) in _SCHEDULED.items():
        if not is_number(getattr(scheduler, name, None)):
            continue

        def read(session: Session, name: str = name) -> Any:
            return getattr(find(session), name)

        def write(session: Session, value: Any, name: str = name) -> None:
            setattr(find(session), name, value)

        label = f"Schedule {name.replace('_', ' ')}"
        yield Setting(
            f"{prefix}.{name}", label, kind, read, write, minimum, maximum,
            description=f"{name} of {type(scheduler).__name__}",
        )  # fmt: skip
    for number, part in enumerate(getattr(scheduler, "_schedulers", ())):

        def inner(session: Session, number: int = number) -> Any:
            return find(session)._schedulers[number]

        yield from _of_parts(part, f"{prefix}.{number}", inner)


# -- the loss --------------------------------------------------------------------------------------------


def _of_loss(experiment: Experiment) -> Iterator[Setting]:
    """Label smoothing and class weights, where the loss has them."""
    losses = _losses_of(experiment)
    if not losses:
        return
    first = losses[0]
    if isinstance(getattr(first, "label_smoothing", None), float):

        def write_smoothing(session: Session, value: float) -> None:
            for each in _losses_of(session.experiment):
                each.label_smoothing = value
            session.abandon_evaluation()

        yield Setting(
            "loss.label_smoothing", "Label smoothing", "number", lambda s: _losses_of(s.experiment)[0].label_smoothing,
            write_smoothing, 0.0, 1.0, description="The share of a target that is spread over all classes",
        )  # fmt: skip
    if isinstance(first, (ClassLoss, nn.CrossEntropyLoss, nn.NLLLoss)):
        yield Setting(
            "loss.class_weights", "Class weights", "text", _class_weights, _set_class_weights,
            check_fit=_check_class_weights, empty=True,
            description="How much classes weigh in the loss, such as cat=2, 3=0.5; others weigh 1",
        )  # fmt: skip


def _losses_of(experiment: Experiment) -> list[Any]:
    """The loss that is descended on and, where that is another object, the one that tells a loss for each sample."""
    task: Any = experiment.task
    criterion = getattr(task, "criterion", None)
    if criterion is None:
        return [task.class_loss] if isinstance(getattr(task, "class_loss", None), ClassLoss) else []
    return [each for each in (criterion, getattr(task, "_per_sample", None)) if isinstance(each, nn.Module)]


def _class_count(session: Session) -> int:
    output = session.network.output_layer()
    return output.neuron_count if output is not None else len(session.experiment.class_names)


def _parsed(session: Session, text: str) -> dict[int, float]:
    return parse_class_weights(text, session.experiment.class_names, _class_count(session))


def _check_class_weights(session: Session, text: str, _: Mapping[str, Any]) -> None:
    _parsed(session, text)


def _class_weights(session: Session) -> str:
    loss = _losses_of(session.experiment)[0]
    weights = loss.weights if isinstance(loss, ClassLoss) else loss.weight
    by_class = {} if weights is None else dict(enumerate(weights.tolist()))
    return class_weights_text(by_class, session.experiment.class_names)


def _set_class_weights(session: Session, text: str) -> None:
    by_class = _parsed(session, text)
    for loss in _losses_of(session.experiment):
        old = loss.weights if isinstance(loss, ClassLoss) else loss.weight
        count = max([_class_count(session), *(label + 1 for label in by_class)] if old is None else [len(old)])
        weights = None if not by_class else torch.ones(count, device=session.experiment.device)
        for label, weight in by_class.items():
            assert weights is not None
            weights[label] = weight
        if weights is not None and old is not None:
            weights = weights.to(old)
        if isinstance(loss, ClassLoss):
            loss.weights = weights
        else:
            loss.weight = weights
    session.abandon_evaluation()


# -- the rest --------------------------------------------------------------------------------------------


def _of_dropout(network: nn.Module) -> Iterator[Setting]:
    for path, module in network.named_modules():
        attribute = "p" if isinstance(module, _DropoutNd) else "dropout"
        if not isinstance(module, (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)) or not path:
            continue

        def read(_: Session, module: nn.Module = module, attribute: str = attribute) -> float:
            return float(getattr(module, attribute))

        def write(_: Session, value: float, module: nn.Module = module, attribute: str = attribute) -> None:
            setattr(module, attribute, value)

        yield Setting(
            f"dropout.{path}", f"Dropout of {path}", "number", read, write, 0.0, 1.0,
            description=f"Probability with which {type(module).__name__} leaves a value out in training",
        )  # fmt: skip


def _of_workers(experiment: Experiment) -> Setting:
    def check_fit(session: Session, value: int, _: Mapping[str, Any]) -> None:
        if value:
            check_picklable(session.experiment.datasets["train"].dataset, session.experiment.collate)

    return Setting(
        "workers", "Workers", "integer", lambda s: s.stream.workers, lambda s, value: s.stream.set_workers(value),
        0, MAX_WORKERS, description="Processes that load training samples; 0: the one that trains", check_fit=check_fit,
    )  # fmt: skip


def _of_person(tunable: Tunable) -> Setting:
    def write(session: Session, value: Any) -> None:
        try:
            tunable.set(value)
        except Exception as error:  # the person's own code, whatever it raises
            raise Refused(
                f"{tunable.name} stays {tunable.value!r}: its on_change raised {type(error).__name__}: {error}"
            ) from error
        session.abandon_evaluation()

    return Setting(
        tunable.name, tunable.name, tunable.kind, lambda _: tunable.value, write,
        tunable.minimum, tunable.maximum, description=tunable.description, choices=tunable.choices, empty=True,
    )  # fmt: skip
