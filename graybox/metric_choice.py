"""Which metrics are measured: by name, or metrics of torchmetrics that a person brings along."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graybox.checks import checked_name
from graybox.errors import Invalid
from graybox.store.targets import LabelKind
from graybox.task import Task

if TYPE_CHECKING:
    from torchmetrics import Metric

ACCURACY, MACRO_F1, CALIBRATION, PER_CLASS, CONFUSION = (
    "accuracy", "macro_f1", "calibration_error", "per_class", "confusion_matrix"
)  # fmt: skip
NAMES = (ACCURACY, MACRO_F1, CALIBRATION, PER_CLASS, CONFUSION)

Chosen = Mapping[str, "Metric | None"]
"""Metrics by name; None for one of NAMES."""


def checked_metrics(given: Sequence[Any] | Mapping[str, Any] | None, task: Task) -> dict[str, Any] | None:
    """What an experiment measures, by name: a metric of torchmetrics, or None for one of NAMES. given: names and
    metrics, which are called as their class is, or a dict of them under names of their own; None: nothing was said.

    Raises Invalid for anything else, for a name given twice, and for what cannot be measured in such a problem.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise Invalid(f"metrics is a list of names and metrics; write [{given!r}]")
    pairs = given.items() if isinstance(given, Mapping) else [(_name_of(each), each) for each in given]
    found: dict[str, Any] = {}
    for name, metric in pairs:
        if name in found:
            raise Invalid(f"there are two metrics {name!r}; pass a dict to give them names of their own")
        found[name] = _checked(name, metric, task)
    if any(name != ACCURACY for name in found):
        library_ready(0.0)  # it will be needed
    return found


def _name_of(metric: Any) -> str:
    return metric if isinstance(metric, str) else type(metric).__name__


def _checked(name: str, metric: Any, task: Task) -> Any:
    if isinstance(metric, str):
        if metric not in NAMES or metric != name:
            raise Invalid(
                f"there is no metric {metric!r:.100}; there are {', '.join(NAMES)}, and those of torchmetrics"
            )
        if not may_have_classes(task):
            raise Invalid(f"{name} needs a problem with one class per sample, not a {task.name}")
        return None
    from torchmetrics import Metric, MetricCollection

    if not isinstance(metric, (Metric, MetricCollection)):
        raise Invalid(
            f"metrics holds a {type(metric).__name__}; pass names ({', '.join(NAMES)}) or metrics of torchmetrics, "
            "such as torchmetrics.classification.MulticlassAUROC(num_classes=10)"
        )
    if name in ("loss", *NAMES):
        raise Invalid(f"a metric of one's own cannot be called {name!r}: that name is taken")
    return checked_name("the name of a metric", name) and metric


def chosen(names: Sequence[str], known: Chosen | None, task: Task) -> Chosen:
    """What an evaluation measures that was asked for these metrics; without any, what the experiment asks for, or all
    of NAMES. known: the experiment's. Raises Invalid for an unknown name."""
    if not names:
        if known is not None:
            return known
        return dict.fromkeys(NAMES) if may_have_classes(task) else {}
    own = {name: metric for name, metric in (known or {}).items() if metric is not None}
    for name in names:
        if name in NAMES and not may_have_classes(task):
            raise Invalid(f"{name} needs a problem with one class per sample, not a {task.name}")
        if name not in NAMES and name not in own:
            raise Invalid(f"there is no metric {name!r:.100}; there are {', '.join([*NAMES, *own])}")
    return {name: own.get(name) for name in dict.fromkeys(names)}


def may_have_classes(task: Task) -> bool:
    """Whether its samples have one class each, or it does not tell what they have."""
    return getattr(task, "label_kind", LabelKind.CLASS) is LabelKind.CLASS


def needs_library(wanted: Chosen) -> bool:
    """Whether torchmetrics must be there to measure this."""
    return any(metric is None and name != ACCURACY for name, metric in wanted.items())


_loading = threading.Lock()
_loader: threading.Thread | None = None


def library_ready(seconds: float) -> bool:
    """Whether torchmetrics is loaded; waits so long for it at most. It takes seconds, so that a thread does it: whoever
    owns a training answers commands meanwhile."""
    global _loader
    with _loading:
        if _loader is None:
            _loader = threading.Thread(target=_load, name="graybox-torchmetrics", daemon=True)
            _loader.start()
    _loader.join(seconds)
    return not _loader.is_alive()


def _load() -> None:
    with contextlib.suppress(ImportError):  # who needs it is told
        import torchmetrics.classification  # noqa: F401
