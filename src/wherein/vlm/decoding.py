"""Constrained decoding: many questions continue from one shared image prefix, and each answer fits a grammar.

At every step the language model's logits are renormalised over the tokens the grammar allows, so an answer is never
unparsable and its token probabilities are those of a choice among valid answers. Characters that the grammar forces
(a comma after the second digit) are fed together with the choice before them: one forward pass per real choice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.boxtext import Grammar, TokenConstraint


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


@dataclass(frozen=True)
class Prefix:
    """Images and a shared text, run once: the language model's key/value cache, `length` tokens long."""

    cache: Any
    length: int

    @classmethod
    def run(cls, language_model: Any, image: Tensor, shared: Sequence[int]) -> Prefix:
        """Image tokens float[B, M, D_t] and the ids of a text that follows each of them."""
        ids = torch.tensor([list(shared)], dtype=torch.long, device=image.device).expand(image.shape[0], -1)
        text = language_model.get_input_embeddings()(ids).to(image.dtype)
        out = language_model.get_decoder()(inputs_embeds=torch.cat([image, text], dim=1), use_cache=True)
        return cls(out.past_key_values, image.shape[1] + len(shared))


class _Continuation:
    """B rows that continue from a prefix at their own pace: right-padded chunks, masked padding, own positions."""

    def __init__(self, language_model: Any, prefix: Prefix, rows: Sequence[int]) -> None:
        self.model = language_model
        self.device = next(language_model.parameters()).device
        self.cache = copy.deepcopy(prefix.cache)
        self.cache.batch_select_indices(torch.tensor(list(rows), device=self.device))
        self.filled = torch.ones(len(rows), prefix.length, dtype=torch.long, device=self.device)
        self.position = torch.full((len(rows),), prefix.length, dtype=torch.long, device=self.device)

    def feed(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append chunks[b] to row b (an empty chunk is a pause); float32[B, V] logits behind each row's last token."""
        lengths = torch.tensor([len(chunk) for chunk in chunks], device=self.device)
        width = int(lengths.max())
        ids = torch.zeros(len(chunks), width, dtype=torch.long)
        for b, chunk in enumerate(chunks):
            ids[b, : len(chunk)] = torch.tensor(chunk, dtype=torch.long)
        steps = torch.arange(width, device=self.device)
        self.filled = torch.cat([self.filled, (steps < lengths[:, None]).long()], dim=1)
        hidden = self.model.get_decoder()(
            input_ids=ids.to(self.device),
            attention_mask=self.filled,
            position_ids=self.position[:, None] + steps,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.position = self.position + lengths
        last = hidden[torch.arange(len(chunks), device=self.device), (lengths - 1).clamp(min=0)]
        return self.model.get_output_embeddings()(last).float()  # type: ignore[no-any-return]


def write(
    language_model: Any,
    tokenizer: Any,
    prefix: Prefix,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    grammar: Grammar,
    refusal: str | None = None,
) -> list[Written]:
    """Greedy constrained answers to `prompts[b]` (token ids) about image `rows[b]` of the prefix.

    `refusal` is a text outside the grammar: how likely it begins, against an answer, is told, not written.
    """
    constraint = TokenConstraint(tokenizer, grammar)
    continuation = _Continuation(language_model, prefix, rows)
    opening = constraint.forced("")
    answers = [Written(opening) for _ in rows]
    logits = continuation.feed(prompts)
    if refusal is not None:
        start = constraint.spell(opening)[:1] or constraint.allowed("")
        rival = [tokenizer.encode(refusal, add_special_tokens=False)[0], *start]
        for answer, row in zip(answers, logits, strict=True):
            answer.refusal = float(torch.softmax(row[rival].double(), dim=0)[0])
    if opening:
        logits = continuation.feed([constraint.spell(opening)] * len(answers))
    while any(not grammar.full(answer.text) for answer in answers):
        chunks = [
            [] if grammar.full(answer.text) else _choose(answer, row, constraint)
            for answer, row in zip(answers, logits, strict=True)
        ]
        if all(grammar.full(answer.text) for answer in answers):
            break
        logits = continuation.feed(chunks)
    return answers


def _choose(answer: Written, logits: Tensor, constraint: TokenConstraint) -> list[int]:
    """Take the likeliest allowed token, then whatever the grammar forces; returns the ids to feed."""
    allowed = constraint.allowed(answer.text)
    probabilities = torch.softmax(logits[allowed].double(), dim=0).cpu().numpy()
    texts = tuple(constraint.piece(token) for token in allowed)
    chosen = int(probabilities.argmax())
    answer.steps.append(Step(len(answer.text), texts, probabilities, chosen))
    answer.text += texts[chosen]
    forced = constraint.forced(answer.text)
    answer.text += forced
    return [allowed[chosen], *constraint.spell(forced)]
