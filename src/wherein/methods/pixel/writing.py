"""Captions with the states behind their tokens, in one pass: what says the next token also says where this one is.

The released code decodes, and then runs the decoder again over the finished text to have the states. Here they are kept
while it is written, so a caption with places costs what a caption costs, and a point head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wherein.methods.pixel.language import Reading


@dataclass(frozen=True, eq=False)
class Written:
    """A caption: its tokens without begin and end, the state float[T, D] behind each, the log-probability of each
    float32[T], and whether it `ended` or was cut off."""

    tokens: list[int]
    states: Tensor
    scores: Tensor
    ended: bool


@torch.inference_mode()
def write(reading: Reading, begin: int, end: int, longest: int, beams: int = 1) -> list[Written]:
    """The likeliest caption of up to `longest` tokens for each row, greedily or by beam search.

    With several `beams`, a `reading` has each row that many times, one behind another. A beam's worth is the mean
    log-probability of its tokens, the end among them.
    """
    count, device = len(reading.shown), reading.shown.device
    rows = torch.arange(count, device=device)
    current = torch.full((count,), begin, device=device)
    tokens, states = current.new_zeros(count, 0), []
    scores = torch.zeros(count, 0, device=device)
    done = torch.zeros(count, dtype=torch.bool, device=device)
    for place in range(longest + 1):
        state, logits = reading.step(current)
        states.append(state)
        if place == longest:
            break
        origin, current, each = _best(logits, scores, done, tokens, end, beams)
        if beams > 1:
            reading.reorder(origin)
            states = [kept[origin] for kept in states]
        tokens = torch.cat([tokens[origin], current[:, None]], dim=1)
        scores = torch.cat([scores[origin], each[:, None]], dim=1)
        done = done[origin] | (current == end)
        if done.all():
            break
    kept = rows if beams == 1 else _likeliest(tokens, scores, end, beams)
    behind = torch.stack(states, dim=1)[:, 1:]
    return [_row(tokens[i], scores[i], behind[i], end) for i in kept.tolist()]


def _best(
    logits: Tensor, scores: Tensor, done: Tensor, tokens: Tensor, end: int, beams: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's next: the row that it continues, its token, and that token's log-probability."""
    own = logits.float().log_softmax(-1)
    frozen = torch.full_like(own, -torch.inf)
    frozen[:, end] = 0.0  # a caption that has ended stays as it is
    own = torch.where(done[:, None], frozen, own)
    if beams == 1:
        each, token = own.max(-1)
        return torch.arange(len(own), device=own.device), token, each
    total = (scores.sum(1)[:, None] + own).view(-1, beams, own.shape[1])
    if not tokens.shape[1]:
        total[:, 1:] = -torch.inf  # all beams of a row begin alike: take different tokens of one of them
    vocabulary = own.shape[1]
    best = total.flatten(1).topk(beams, dim=1).indices
    first = torch.arange(len(total), device=own.device)[:, None] * beams
    origin, token = (first + best // vocabulary).flatten(), (best % vocabulary).flatten()
    return origin, token, own[origin, token]


def _likeliest(tokens: Tensor, scores: Tensor, end: int, beams: int) -> Tensor:
    """The best beam of each row, by the mean over its tokens up to the end."""
    length = (tokens != end).sum(1) + (tokens == end).any(1)
    worth = (scores.sum(1) / length.clamp(min=1)).view(-1, beams)
    best: Tensor = worth.argmax(1) + torch.arange(len(worth), device=worth.device) * beams
    return best


def _row(tokens: Tensor, scores: Tensor, behind: Tensor, end: int) -> Written:
    """A row up to its end; the state of its last token is there even where the row was cut off."""
    ends = (tokens == end).nonzero()
    length = int(ends[0, 0]) if len(ends) else len(tokens)
    return Written(tokens[:length].tolist(), behind[:length], scores[:length], bool(len(ends)))
