"""The cross-entropy of classes with what can be changed of it while it trains: label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from graybox.errors import Invalid

MAX_CLASS_WEIGHT = 1e6


class ClassLoss:
    """Cross-entropy from log-probabilities, as torch.nn.CrossEntropyLoss has it.

    label_smoothing: the share of a sample's target that is spread over all classes (Szegedy et al., "Rethinking the
    Inception Architecture for Computer Vision", 2016). weights: float [classes] or None, 1 for each; the mean over a
    batch is weighted by those of its true classes.
    """

    def __init__(self) -> None:
        self.label_smoothing = 0.0
        self.weights: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        return self.label_smoothing == 0 and self.weights is None

    def __call__(self, log_probabilities: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(scalar, losses [batch]) of log-probabilities [batch, classes] and class numbers [batch]."""
        if self.is_plain:
            losses = nn.functional.nll_loss(log_probabilities, target, reduction="none")
            return losses.mean(), losses
        classes = log_probabilities.shape[1]
        weights = log_probabilities.new_ones(classes) if self.weights is None else self.weights.to(log_probabilities)
        if len(weights) < classes:
            weights = torch.cat([weights, weights.new_ones(classes - len(weights))])
        mine = weights[:classes][target]
        right = nn.functional.nll_loss(log_probabilities, target, reduction="none") * mine
        all_classes = -(log_probabilities * weights[:classes]).sum(1) / classes
        losses = (1 - self.label_smoothing) * right + self.label_smoothing * all_classes
        return losses.sum() / mine.sum(), losses


def parse_class_weights(text: str, class_names: Sequence[str], classes: int) -> dict[int, float]:
    """By class number, from "cat=2, 3=0.5". Classes that are not named weigh 1. classes: how many there are, 0 where
    that is not known. Raises Invalid, saying what would be right."""
    found: dict[int, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        if not equals or not name:
            raise Invalid(f"class weights are written as cat=2, 3=0.5 (a class's name or number), not {part!r:.100}")
        if name in class_names:
            label = list(class_names).index(name)
        elif name.isascii() and name.isdecimal() and len(name) < 10 and (not classes or int(name) < classes):
            label = int(name)
        else:
            names = f"; there are {', '.join(class_names[:20])}" if class_names else f"; there are {classes or 'some'}"
            raise Invalid(f"there is no class {name!r:.100}{names}")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not 0 <= weight <= MAX_CLASS_WEIGHT:
            raise Invalid(f"the weight of class {name} is a number from 0 to 1e6, not {number!r:.100}")
        found[label] = weight
    return found


def class_weights_text(weights: Mapping[int, float], class_names: Sequence[str]) -> str:
    """What parse_class_weights reads, those of 1 left out."""
    named = {class_names[label] if label < len(class_names) else str(label): w for label, w in weights.items()}
    plain = all("," not in name and "=" not in name and name == name.strip() for name in named)
    items = named.items() if plain else ((str(label), weight) for label, weight in weights.items())
    return ", ".join(f"{name}={repr(weight).removesuffix('.0')}" for name, weight in items if weight != 1)
