"""What is asked about one image and what should be answered, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """A question (`context`, may be empty) and its answer as token ids; `weights`, one a target token, for the loss."""

    context: tuple[int, ...]
    target: tuple[int, ...]
    weights: tuple[float, ...] | None = None


def lay_out(branches: Sequence[Branch]) -> tuple[list[list[int]], Tensor, Tensor]:
    """(chunks, labels int64[R, T], weights float32[R, T]) of R branches, one a row, T the longest.

    A row's chunk is what the language model reads: all but the last token of question and answer. Its states are T: the
    one it starts from, then one a token read; labels[r, t] is what state t should predict, -100 where nothing.
    """
    texts = [branch.context + branch.target for branch in branches]
    length = max(map(len, texts))
    labels, weights = torch.full((len(texts), length), -100), torch.zeros(len(texts), length)
    for row, branch in enumerate(branches):
        start, end = len(branch.context), len(texts[row])
        labels[row, start:end] = torch.tensor(branch.target)
        weights[row, start:end] = torch.tensor(branch.weights or (1.0,) * len(branch.target))
    return [list(text[:-1]) for text in texts], labels, weights
