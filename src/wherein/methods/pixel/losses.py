"""What a pixel-aligned model is trained on: pure functions (PixelLLM, CVPR'24; weights as released).

A caption's labels are its tokens and its end. The place of a token is read from the state behind it, so points stand
beside labels, and the end has none.

A caption of two tokens, the first of which is at (10, 20) to (30, 40) and was said to be 4 pixels further right; the
second has no place. Four coordinates, two of them 4 pixels off:

>>> said = torch.tensor([[[[14.0, 20.0], [34.0, 40.0]], [[0.0, 0.0], [9.0, 9.0]], [[0.0, 0.0], [9.0, 9.0]]]])
>>> true = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
>>> placed = places(torch.tensor([[5, 6, 1]]), true, end=1)
>>> placed.tolist(), point_loss(said, true, placed).item()
([[True, False, False]], 2.0)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wherein.errors import InputError
from wherein.methods.pixel.language import IGNORED

SMOOTHING = 0.1
POINT_WEIGHT = 0.1  # of a loss in pixels of the square
FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
TASKS = {
    "trace": frozenset({"text", "point"}),
    "caption": frozenset({"text"}),
    "refer": frozenset({"box"}),
    "segment": frozenset({"box", "mask"}),
}
"""What each kind of data teaches: a `box` is read at a phrase's last token alone, and the phrase itself, which the
model was given, is not learnt by heart."""


def switched(tasks: str | Sequence[str], rows: int, loss: str, device: torch.device | str = "cpu") -> Tensor:
    """bool[R]: which rows have a loss, for the task of all or one task each.

    Raises InputError for a task that is none of `TASKS`, or not one each.
    """
    each = [tasks] * rows if isinstance(tasks, str) else list(tasks)
    if len(each) != rows:
        raise InputError(f"There are {rows} rows and {len(each)} tasks: give one for all, or one each.")
    for task in each:
        if task not in TASKS:
            raise InputError(f"There is no task {task!r}: choose {', '.join(TASKS)}.")
    return torch.tensor([loss in TASKS[task] for task in each], device=device)


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits float[R, T, V] with labels int64[R, T], smoothed: 0.1 spread over the wrong tokens.

    The mean over labels that are not `IGNORED`; 0 where all are.
    """
    wanted = labels != IGNORED
    if not wanted.any():
        return logits.sum() * 0.0
    log_p, aim = logits[wanted].float().log_softmax(-1), labels[wanted]
    right = log_p.gather(-1, aim[:, None])[:, 0]
    share = SMOOTHING / (log_p.shape[-1] - 1)
    return -((1 - SMOOTHING) * right + share * (log_p.sum(-1) - right)).mean()


def places(labels: Tensor, points: Tensor, end: int) -> Tensor:
    """bool[R, T]: the tokens of a trace with a place: neither filler nor end, and not all of whose target is zero."""
    return (labels != IGNORED) & (labels != end) & (points != 0).flatten(2).any(-1)


def last_words(labels: Tensor, end: int) -> Tensor:
    """bool[R, T]: the one token of each phrase whose next is the end; none where it was cut off or is empty."""
    follows = F.pad(labels[:, 1:] == end, (0, 1))
    first = follows & (follows.cumsum(1) == 1)
    return first & (labels != end)


def point_loss(said: Tensor, true: Tensor, placed: Tensor) -> Tensor:
    """Mean distance along each axis of points float[R, T, P, 2], over the tokens `placed` bool[R, T]: pixels.

    0 where none is.
    """
    if not placed.any():
        return said.sum() * 0.0
    return (said[placed] - true[placed].to(said)).abs().mean()


def mask_loss(logits: Tensor, expected: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """20 focal + dice + squared error of the expected IoU; logits float[R, h, w], IoU float[R], true bool[R, S, S].

    Logits are resized to the square first, and only its `valid` bool[R, S, S] pixels count, those of the picture.
    0 without a row.
    """
    if not len(logits):
        return logits.sum() * 0.0
    drawn = F.interpolate(logits[:, None].float(), true.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    target, counted = true.to(drawn), valid.to(drawn)
    focal = (sigmoid_focal(drawn, target) * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
    share, truth = drawn.sigmoid() * counted, target * counted
    dice = 1 - (2 * (share * truth).sum((1, 2)) + 1) / (share.sum((1, 2)) + truth.sum((1, 2)) + 1)
    found = (drawn > 0).to(drawn) * counted
    both = (found * truth).sum((1, 2))
    iou = both / (found.sum((1, 2)) + truth.sum((1, 2)) - both).clamp(min=1)
    return (FOCAL_WEIGHT * focal + DICE_WEIGHT * dice + IOU_WEIGHT * (expected.float() - iou) ** 2).mean()


def sigmoid_focal(logits: Tensor, target: Tensor) -> Tensor:
    """The focal loss of each pixel (Lin et al., 2017), of logits and targets of one shape."""
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    missed = p * (1 - target) + (1 - p) * target
    balance = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return balance * missed**FOCAL_GAMMA * plain
