"""Several questions about one image in one sequence: [image tokens][shared text][branch 1][branch 2]...

Each branch sees the image, the shared text and itself, never another branch, and its positions continue from the
shared text. One forward pass then gives exactly what separate passes would, at the cost of one image.
"""

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


@dataclass(frozen=True)
class Packed:
    """The text of a batch of packed sequences, padded to one length T behind P image tokens.

    ids int64[B, T] · labels int64[B, T]: the token to predict next, -100 elsewhere · weights float32[B, T] ·
    branch int64[B, T]: 0 shared, 1.. branch, -1 padding · positions int64[B, P + T] · mask bool[B, 1, P + T, P + T].
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    branch: Tensor
    positions: Tensor
    mask: Tensor


def pack(
    image_tokens: int, shared: Sequence[int], batch: Sequence[Sequence[Branch]], cells: Tensor | None = None
) -> Packed:
    """Lay out `batch[i]`, the branches asked of image i, behind `image_tokens` tokens and the `shared` text.

    With `cells` int64[B, P], row i shows only those P of the image's tokens, each at the position it has in the whole.
    """
    rows = [_row(shared, branches) for branches in batch]
    length = max(len(row) for row in rows)
    table = torch.zeros(len(rows), length, 5, dtype=torch.float64)
    table[..., 1], table[..., 3] = -100, -1
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    ids, labels, weights, branch, offset = table.unbind(-1)
    image = torch.arange(image_tokens).expand(len(rows), -1) if cells is None else cells
    positions = torch.cat([image, image_tokens + offset.long()], dim=1)
    branch = branch.long()
    return Packed(ids.long(), labels.long(), weights.float(), branch, positions, _mask(image.shape[1], branch))


def _row(shared: Sequence[int], branches: Sequence[Branch]) -> list[tuple[float, ...]]:
    """(id, label, weight, branch, offset) of each text token; a label sits on the token before the one it names.

    A branch without context is predicted from the shared text's last token, so only one in a row may be.
    """
    row: list[tuple[float, ...]] = [(token, -100, 0.0, 0, i) for i, token in enumerate(shared)]
    for number, branch in enumerate(branches, start=1):
        text, first = branch.context + branch.target, len(branch.context)
        weights = branch.weights or (1.0,) * len(branch.target)
        if not first:
            token, taken, *_, offset = row[len(shared) - 1] if shared else (0, 0, 0)
            if taken != -100:
                raise ValueError("a branch without context needs a shared token of its own to predict its start from")
            row[len(shared) - 1] = (token, text[0], weights[0], 0, offset)
        for i, token in enumerate(text):
            label, weight = (text[i + 1], weights[i + 1 - first]) if first <= i + 1 < len(text) else (-100, 0.0)
            row.append((token, label, weight, number, len(shared) + i))
    return row


def _mask(image_tokens: int, branch: Tensor) -> Tensor:
    """bool[B, 1, S, S], true where query row may look at key column; padding rows see themselves only."""
    whole = torch.cat([torch.zeros(branch.shape[0], image_tokens, dtype=torch.long), branch], dim=1)
    query, key = whole[:, :, None], whole[:, None, :]
    size = whole.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    own = torch.eye(size, dtype=torch.bool)
    return (causal & ((key == 0) | (key == query)) & (key >= 0) | own)[:, None]
