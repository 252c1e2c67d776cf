"""Constrained decoding: many questions continue from one shared image prefix, and each answer fits a grammar.

At every step the language model's logits are renormalised over the tokens the grammar allows, so an answer is never
unparsable and its token probabilities are those of a choice among valid answers. Characters that the grammar forces
(a comma after the second digit) are fed together with the choice before them: one forward pass per real choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.boxtext import Grammar, TokenConstraint
from wherein.vlm.prefix import Continuation, Prefix

_constraint = lru_cache(maxsize=8)(TokenConstraint)  # what may follow a text is found once, not for every answer


@dataclass(frozen=True)
class Step:
    """One choice: `start` is its character offset in the text; texts and probabilities float64[K] of the K allowed
    tokens (summing to one), `chosen` the index taken."""

    start: int
    texts: tuple[str, ...]
    probabilities: NDArray[np.float64]
    chosen: int

    @property
    def probability(self) -> float:
        """The probability of the token taken."""
        return float(self.probabilities[self.chosen])


@dataclass
class Written:
    """A constrained answer: its text, the choices that were made on the way (forced characters are none), and the
    probability that the model would rather have begun its refusal, where one was named."""

    text: str = ""
    steps: list[Step] = field(default_factory=list)
    refusal: float | None = None


class Said(NamedTuple):
    """What a model freely wrote, and whether it came to an end of its own or was cut off."""

    text: str
    ended: bool


def write(
    tokenizer: Any,
    prefix: Prefix,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    grammar: Grammar,
    refusal: int | None = None,
) -> list[Written]:
    """Greedy constrained answers to `prompts[b]` (token ids) about image `rows[b]` of the prefix.

    `refusal` is the first token of a text outside the grammar: how likely it is, against an answer, is told.
    """
    if len(parts := prefix.parts(len(rows))) != 1:  # none, where there is no question
        some = ((rows[part], prompts[part]) for part in parts)
        return [answer for each in some for answer in write(tokenizer, prefix, *each, grammar, refusal)]
    constraint = _constraint(tokenizer, grammar)
    continuation = Continuation(prefix, rows)
    answers, logits = _begin(continuation, prompts, constraint, refusal)
    while any(not grammar.full(answer.text) for answer in answers):
        chunks = []
        for answer, row in zip(answers, logits, strict=True):
            done = grammar.full(answer.text)
            chunks.append([] if done else _take(answer, *_choices(answer, row, constraint), None, constraint))
        if all(grammar.full(answer.text) for answer in answers):
            break
        logits = continuation.feed(chunks)
    return answers


def search(
    tokenizer: Any,
    prefix: Prefix,
    row: int,
    prompt: Sequence[int],
    grammar: Grammar,
    refusal: int | None,
    beams: int,
) -> Written:
    """The likeliest answer to `prompt` about image `row` that a beam search finds (no length penalty); see `write`."""
    constraint = _constraint(tokenizer, grammar)
    continuation = Continuation(prefix, [row])
    (first,), logits = _begin(continuation, [prompt], constraint, refusal)
    alive, done = [(0.0, first)], list[tuple[float, Written]]()
    while alive and len(done) < beams:
        options = []
        for b, (score, answer) in enumerate(alive):
            allowed, probabilities = _choices(answer, logits[b], constraint)
            best = np.argsort(-probabilities, kind="stable")[:beams]
            options += [
                (score + np.log(max(probabilities[i], 1e-300)), b, int(i), allowed, probabilities) for i in best
            ]
        options = sorted(options, key=lambda option: -option[0])[:beams]
        going, chunks, parents = [], [], []
        for score, b, chosen, allowed, probabilities in options:
            answer = replace(alive[b][1], steps=list(alive[b][1].steps))
            chunk = _take(answer, allowed, probabilities, chosen, constraint)
            if grammar.full(answer.text):
                done.append((score, answer))
            else:
                going.append((score, answer))
                chunks.append(chunk)
                parents.append(b)
        alive = going
        if alive:
            continuation = continuation.at(parents)
            logits = continuation.feed(chunks)
    return max(done, key=lambda found: found[0])[1]


def _begin(
    continuation: Continuation, prompts: Sequence[Sequence[int]], constraint: TokenConstraint, refusal: int | None
) -> tuple[list[Written], Tensor]:
    """Feed the prompts and what every answer opens with: (the answers so far, logits float32[B, V])."""
    opening = constraint.forced("")
    answers = [Written(opening) for _ in prompts]
    logits = continuation.feed(prompts)
    if refusal is not None:
        start = constraint.spell(opening)[:1] or constraint.allowed("")
        for answer, row in zip(answers, logits, strict=True):
            answer.refusal = float(torch.softmax(row[[refusal, *start]].cpu().double(), dim=0)[0])
    if opening:
        logits = continuation.feed([constraint.spell(opening)] * len(answers))
    return answers, logits


def write_freely(
    prefix: Prefix, rows: Sequence[int], prompts: Sequence[Sequence[int]], most: int, end: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """Greedy free continuations of `prompts[b]` about image `rows[b]`: up to `most` token ids, none of `end`, and
    whether one of these came behind them."""
    if len(parts := prefix.parts(len(rows))) != 1:  # none, where there is no question
        return [text for part in parts for text in write_freely(prefix, rows[part], prompts[part], most, end)]
    texts: list[list[int]] = [[] for _ in rows]
    going = [True] * len(rows)
    continuation = Continuation(prefix, rows)
    logits = continuation.feed(prompts)
    for written in range(most + 1):
        best = logits.argmax(-1).tolist()
        going = [alive and token not in end for alive, token in zip(going, best, strict=True)]
        if written == most or not any(going):
            break
        chunks = [[token] if alive else [] for alive, token in zip(going, best, strict=True)]
        for text, chunk in zip(texts, chunks, strict=True):
            text += chunk
        logits = continuation.feed(chunks)
    return [(text, not cut) for text, cut in zip(texts, going, strict=True)]


def _choices(answer: Written, logits: Tensor, constraint: TokenConstraint) -> tuple[list[int], NDArray[np.float64]]:
    """The tokens allowed next, and their probabilities float64[K] among each other."""
    allowed = constraint.allowed(answer.text)
    return allowed, torch.softmax(logits[allowed].cpu().double(), dim=0).numpy()


def _take(
    answer: Written,
    allowed: list[int],
    probabilities: NDArray[np.float64],
    chosen: int | None,
    constraint: TokenConstraint,
) -> list[int]:
    """Take a token, the likeliest where none is chosen, then whatever the grammar forces; returns the ids to feed."""
    index = int(probabilities.argmax()) if chosen is None else chosen
    texts = tuple(constraint.piece(token) for token in allowed)
    answer.steps.append(Step(len(answer.text), texts, probabilities, index))
    answer.text += texts[index]
    forced = constraint.forced(answer.text)
    answer.text += forced
    return [allowed[index], *constraint.spell(forced)]
