"""What a written answer says: its box, and the boxes its token probabilities speak for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein.boxtext import Codec
from wherein.geometry import iou
from wherein.vlm.decoding import Written

DRAWS = 128
BEST = 32  # of the drawn boxes, those that agree best with all: their mean moves little where one of them jumps


@dataclass(frozen=True)
class Reading:
    """An answer read; boxes are float64[4] in model pixels.

    written: what the text says · expected: the mean of each edge, near and far swapped where they cross · agreed: of
    boxes drawn from the answer's probabilities, the mean of the BEST by their mean IoU with all of them.
    """

    written: NDArray[np.float64]
    expected: NDArray[np.float64]
    agreed: NDArray[np.float64]


def score(answer: Written) -> float:
    """Geometric mean of the probabilities of the digits chosen, in 0..1."""
    chosen = [step.probability for step in answer.steps if step.texts[step.chosen].strip().isdigit()]
    return math.exp(sum(math.log(max(p, 1e-12)) for p in chosen) / max(len(chosen), 1))


def read(answer: Written, codec: Codec, width: int, height: int) -> Reading:
    """Read an answer that fits `codec`'s grammar for a `width` x `height` picture.

    The probabilities of a far edge are those behind the written near one, as the model gave them.
    """
    written = codec.decode(answer.text, width, height)
    assert written is not None, f"the grammar let {answer.text!r} through"
    spans, rng = codec.spans(answer.text), np.random.default_rng(0)
    expected, drawn = np.empty((2, 2)), np.empty((DRAWS, 2, 2))
    for axis, size in enumerate((width, height)):
        texts = codec.numbers(size)
        numbers, pixels = np.array([float(text) for text in texts]), size / (codec.unit or size)
        start, gap = texts.index(answer.text[slice(*spans[axis])]), 1 - codec.beyond
        near = _chances(answer, spans[axis], texts, range(len(texts) - gap))
        far = _chances(answer, spans[axis + 2], texts, range(start + gap, len(texts)))
        expected[:, axis] = np.sort([near @ numbers, far @ numbers + codec.beyond]) * pixels
        ends = numbers[_draw(rng, near, far, gap)] + [0, codec.beyond]
        within = rng.uniform(-0.5, 0.5, ends.shape) * codec.step  # a number stands for all that is nearest to it
        drawn[:, :, axis] = np.clip((ends + within) * pixels, 0, size)
    boxes = drawn.reshape(DRAWS, 4)
    best = iou(boxes, boxes).mean(1).argsort()[-BEST:]
    return Reading(written, expected.ravel(), boxes[best].mean(0))


def _chances(
    answer: Written, span: tuple[int, int], texts: Sequence[str], possible: Sequence[int]
) -> NDArray[np.float64]:
    """float64[len(texts)]: the probability of each number where answer.text[start:end] stands.

    A choice not taken counts for every possible number that it begins alike: nothing more is known of those.
    """
    start, end = span
    chances, reach = np.zeros(len(texts)), 1.0
    for step in answer.steps:
        if not start <= step.start <= end:  # a choice at `end` was whether the number ends there
            continue
        for i, (text, p) in enumerate(zip(step.texts, step.probabilities, strict=True)):
            if i != step.chosen:
                begun = answer.text[start : step.start] + text
                digits = begun[: len(begun) - len(begun.lstrip("0123456789"))]
                whole = digits != begun
                found = [k for k in possible if (texts[k] == digits if whole else texts[k].startswith(digits))]
                chances[found] += reach * float(p) / len(found)
        reach *= step.probability
    chances[texts.index(answer.text[start:end])] += reach
    return chances


def _draw(rng: np.random.Generator, near: NDArray[np.float64], far: NDArray[np.float64], gap: int) -> NDArray[np.int64]:
    """Places int64[DRAWS, 2] of near and far numbers, the far one at least `gap` behind; probabilities float64[K]."""
    first = rng.choice(len(near), DRAWS, p=near / near.sum())
    before = np.concatenate([[0.0], far.cumsum() / far.sum()])
    low = before[first + gap]
    second = np.searchsorted(before[1:], low + rng.random(DRAWS) * (1 - low), side="right")
    return np.stack([first, np.clip(second, first + gap, len(far) - 1)], axis=1)
