"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from graybox.calling import logits_of
from graybox.errors import Invalid
from graybox.store.targets import LabelKind
from graybox.task import Criterion, PairTask, StepResult, losses_of, unreduced

IGNORED = 255
"""In a target: a pixel that counts for nothing, as in Pascal VOC and Cityscapes."""
AUXILIARY = 0.5
"""How much the loss of an auxiliary answer weighs, as in torchvision's reference training."""


class Segmentation(PairTask):
    """A class for every pixel. The network answers logits [batch, classes, height, width], or a dict with them under
    "out" and perhaps further ones under "aux", as torchvision's segmentation networks do. The target is whole numbers
    [batch, height, width], 255 where a pixel does not count.

    criterion: any function of (logits, target); by default the cross-entropy per pixel, its mean over all pixels that
    count, and for each sample over those of its own (NaN where none counts); that of "aux" is added with half its
    weight. Scores of a sample: the share of its pixels that are predicted right, and the intersection over union, the
    mean over the classes that are there or predicted.
    """

    name = "segmentation"
    label_kind = LabelKind.MASK

    def __init__(self, criterion: Criterion | None = None) -> None:
        self.criterion = criterion
        self._per_sample = unreduced(criterion)
        self.classes = 0

    def prepare(self, outputs: Any) -> None:
        logits = logits_of(outputs)
        if logits.dim() != 4:
            raise Invalid(
                f"a network for segmentation answers [batch, classes, height, width], this one {list(logits.shape)}"
            )
        self.classes = int(logits.shape[1])

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        logits = logits_of(outputs)
        self.classes = int(logits.shape[1])
        wanted = class_map(target, logits)
        if self.criterion is None:
            loss, losses = pixel_losses(logits, wanted)
            auxiliary = outputs.get("aux") if isinstance(outputs, Mapping) else None
            if isinstance(auxiliary, torch.Tensor):
                loss = loss + AUXILIARY * pixel_losses(auxiliary, wanted)[0]
        else:
            loss, losses = losses_of(self.criterion, self._per_sample, logits, wanted)
        sets, scores = pixel_scores(logits.detach(), wanted)
        return StepResult(loss, losses.detach().float(), None, sets=sets, scores=scores)

    def beyond(self, target: Any) -> torch.Tensor | None:
        if self.criterion is not None or not self.classes or not isinstance(target, torch.Tensor) or target.dim() < 3:
            return None
        # 255 counts for nothing, however many classes there are.
        return (((target >= self.classes) | (target < 0)) & (target != IGNORED)).flatten(1).any(1)


def class_map(target: Any, logits: torch.Tensor) -> torch.Tensor:
    """The target as int64 [batch, height, width]. Raises Invalid, saying what is there instead."""
    if isinstance(target, torch.Tensor) and target.dim() == 4 and target.shape[1] == 1:
        target = target[:, 0]
    wanted = (logits.shape[0], *logits.shape[2:])
    if not isinstance(target, torch.Tensor) or target.shape != wanted or target.dtype.is_floating_point:
        what = f"{str(target.dtype).removeprefix('torch.')} {list(target.shape)}" if isinstance(
            target, torch.Tensor
        ) else type(target).__name__  # fmt: skip
        raise Invalid(
            f"the target of a segmentation is a class for every pixel, whole numbers {list(wanted)}, not {what}; mend "
            "the data set (a mask is made a tensor by PILToTensor, not by ToTensor), or pass task= to the Experiment"
        )
    return target.long()


def pixel_losses(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scalar, losses [batch]) of logits [batch, classes, height, width] and classes [batch, height, width]: the mean
    cross-entropy over all pixels that count (0 where there is none), and over those of each sample (NaN)."""
    losses = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none").flatten(1).sum(1)
    pixels = (target != IGNORED).flatten(1).sum(1)
    return losses.sum() / pixels.sum().clamp_min(1), losses.detach() / pixels


@torch.no_grad()
def pixel_scores(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(bool [batch, classes]: which classes are predicted anywhere, scores float [batch]: pixel_accuracy, iou), over
    the pixels that count; NaN where there is none."""
    batch, classes = logits.shape[:2]
    counted = (target != IGNORED).flatten(1)
    wanted = target.flatten(1).clamp(0, classes - 1)
    found = logits.argmax(1).flatten(1)
    right = (found == wanted) & counted
    # A place for every class of every sample; adding up whole numbers does not depend on the order.
    start = torch.arange(batch, device=logits.device)[:, None] * classes

    def count(kind: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        places = torch.zeros(batch * classes, dtype=torch.int64, device=logits.device)
        places.scatter_add_(0, (kind + start).flatten(), which.flatten().to(torch.int64))
        return places.view(batch, classes)

    predicted, both = count(found, counted), count(wanted, right)
    union = count(wanted, counted) + predicted - both
    present = union > 0
    iou = (both / union.clamp_min(1)).sum(1) / present.sum(1)
    return predicted > 0, {"pixel_accuracy": right.sum(1) / counted.sum(1), "iou": iou}
