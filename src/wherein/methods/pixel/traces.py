"""Localized Narratives as targets: what the mouse showed while a word was said (Pont-Tuset et al., 2020; SPEC of the
released PixelLLM for the steps).

Caption words are matched with the words that were said, by edit distance; only where that finds too little, by their
share of the way through the text, as released, which drifts wherever the two texts differ in length.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAMPLES = 16  # places of the mouse while an utterance was said
SHORT = 1e-5  # seconds below which the mouse did not move, and shares of the image that are no place
ALIKE = 0.6  # two words that agree this far, 0..1, are one: a typing error, another ending
UNLIKE = 2.5  # the cost of taking one word for another that is not: more than leaving out the one, putting in the other
ENOUGH = 0.5  # the share of the words that must be matched, else the ratio rule holds
Spans = Sequence[tuple[str, float, float]]


@dataclass(frozen=True, eq=False)
class Traced:
    """What the mouse showed during each of U utterances, as shares of the image, not cut off at its edge.

    boxes float64[U, 4], xyxy · centres float64[U, 2], the mean over time · valid bool[U]: something was said, and the
    mouse was somewhere.
    """

    boxes: NDArray[np.float64]
    centres: NDArray[np.float64]
    valid: NDArray[np.bool_]


def moves(strokes: Sequence[ArrayLike]) -> bool:
    """Whether there is a trace at all: two points of different times in strokes float[N, 3]."""
    return len({second for stroke in strokes for second in np.asarray(stroke).reshape(-1, 3)[:, 2].tolist()}) > 1


def trace(strokes: Sequence[ArrayLike], spans: Spans) -> Traced | None:
    """Strokes float64[N, 3] of (x, y, seconds), and utterances (text, from, to); None with fewer than two points."""
    joined = np.concatenate([np.zeros((0, 3)), *(np.asarray(stroke, np.float64).reshape(-1, 3) for stroke in strokes)])
    times, first = np.unique(joined[:, 2], return_index=True)
    if len(times) < 2:
        return None
    path = joined[first, :2]
    boxes, centres = np.zeros((len(spans), 4)), np.zeros((len(spans), 2))
    for i, (_, start, end) in enumerate(spans):
        places = _at(np.linspace(start, end, SAMPLES), times, path)
        mean_over_time = (places[1:] + places[:-1]).mean(0) / 2
        centres[i] = places.mean(0) if end - start < SHORT else mean_over_time
        boxes[i] = [*places.min(0), *places.max(0)]
    said = np.array([bool(text.strip()) for text, _, _ in spans], bool)
    return Traced(boxes, centres, said & (centres > SHORT).all(1))


def _at(seconds: NDArray[np.float64], times: NDArray[np.float64], path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places float64[S, 2] on a path, between its points and beyond its ends in a straight line."""
    after = np.clip(np.searchsorted(times, seconds), 1, len(times) - 1)
    share = (seconds - times[after - 1]) / (times[after] - times[after - 1])
    return np.asarray(path[after - 1] + share[:, None] * (path[after] - path[after - 1]))


def pixels(boxes: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """Boxes float64[U, 4] in shares of a picture -> cut to it and in whole pixels of a picture of this size."""
    return np.asarray(np.round(np.clip(boxes, 0, 1) * [width, height, width, height]))


def by_ratio(count: int, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each of `count` tokens the valid utterance as far through the text, int64[count]; -1 without a valid one."""
    if not valid.any() or not count:
        return np.full(count, -1)
    share = np.cumsum(valid)[valid] / valid.sum()
    token = np.linspace(share[0], share[-1], count)
    return np.asarray(np.flatnonzero(valid)[np.abs(token[:, None] - share).argmin(1)])


def by_words(words: Sequence[str], spans: Spans, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each word of a caption the utterance it was said in, int64[len(words)]; -1: in none that is valid.

    Words that were said and words of the caption are matched in order, at the least cost of editing one into the other.
    """
    said = [(_plain(word), i) for i, (text, _, _) in enumerate(spans) for word in text.split()]
    said = [(word, i) for word, i in said if word]
    pairs = _matched([_plain(word) for word in words], [word for word, _ in said])
    if len(pairs) < ENOUGH * len(words):
        return by_ratio(len(words), valid)
    found = np.full(len(words), -1)
    for place, other in pairs:
        utterance = said[other][1]
        found[place] = utterance if valid[utterance] else -1
    return found


def _plain(word: str) -> str:
    return re.sub(r"\W", "", word).casefold()


def _matched(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of like words, in order: the cheapest edit, where leaving out or putting in a word costs 1, and taking one
    for another what they differ, or more than both where they are not alike."""
    cost = np.zeros((len(ours) + 1, len(theirs) + 1))
    cost[:, 0], cost[0] = np.arange(len(ours) + 1), np.arange(len(theirs) + 1)
    change = [[_difference(a, b) for b in theirs] for a in ours]
    for i in range(1, len(ours) + 1):
        for j in range(1, len(theirs) + 1):
            cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + change[i - 1][j - 1])
    pairs, i, j = [], len(ours), len(theirs)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + change[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


@lru_cache(maxsize=1 << 20)
def _difference(a: str, b: str) -> float:
    """What it costs to take one word for another. Most pairs are unlike at a glance, and come up again and again."""
    if a == b:
        return 0.0
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:  # no ratio is above these
        return UNLIKE
    alike = matcher.ratio()
    return 1.0 - alike if alike >= ALIKE else UNLIKE
