"""What a step asks, and how well it is answered: every question about an image in one pass, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wherein.vlm.branches import Branch, lay_out
from wherein.vlm.default import DefaultVLM

Decode = Callable[[Tensor, Tensor, Tensor], Tensor]  # see Decoder


class Layout(NamedTuple):
    """The questions about each of B images, one behind the other in a row, and the L tokens of all answers.

    ids, steps, branches int64[B, W]: tokens, how far in its question each stands, and which of its image's questions
    it is of, from 1; -1 for the padding · image, place, wanted int64[L], weight float32[L]: whose row a token of an
    answer is to be told from, behind how many tokens of it, and how much it counts.
    """

    ids: Tensor
    steps: Tensor
    branches: Tensor
    image: Tensor
    place: Tensor
    wanted: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Asked:
    """What a step asks: of each of B images, shown through `cells` int64[B, n], the questions in `rows`.

    images: x_v float[B, n, D_v] of these cells, or, if they are `made_up`, what the connector would make of them,
    float[B, n, D_t].
    """

    images: Tensor
    cells: Tensor
    rows: list[list[Branch]]
    made_up: bool = False

    @cached_property
    def layout(self) -> Layout:
        """The rows as tensors, made once: who makes the rows asks for it, since it takes Python a while."""
        chunks, labels, weights = lay_out([branch for row in self.rows for branch in row])
        counts = [len(row) for row in self.rows]
        ids, steps, branches, first = _side_by_side(chunks, counts)
        row, state = (labels >= 0).nonzero(as_tuple=True)
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[row]
        place = torch.where(state > 0, first[row] + state, 0)
        return Layout(ids, steps, branches, image, place, labels[row, state], weights[row, state])


class Decoder(nn.Module):
    """`vlm`'s decoder as a function of tensors alone: x float[B, T, D_t], position int64[B, T], and what is added to
    its scores, mask float[B, 1, T, T] -> hidden states float[B, T, D_t]."""

    def __init__(self, vlm: DefaultVLM) -> None:
        super().__init__()
        self.decoder = vlm.language_model.get_decoder()

    def forward(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """One pass, without a cache."""
        states = self.decoder(inputs_embeds=x, position_ids=position, attention_mask=mask, use_cache=False)
        return states.last_hidden_state  # type: ignore[no-any-return]


def loss(vlm: DefaultVLM, asked: Asked, decode: Decode | None = None) -> tuple[Tensor, Tensor]:
    """The next-token loss of all answers in nats, weighted, and that of each token, float32[L].

    What `vlm.loss` says behind `vlm.prefix`, in seven tenths of the time on a CPU: there each question is a row with a
    copy of its image's keys and values; here the questions about an image follow each other behind it in one row, and
    none sees another or stands behind it. `decode`: what does as Decoder does.
    """
    device, text = vlm.device, torch.tensor(vlm.encode(vlm.shared_prompt))
    ids, steps, branches, image, place, wanted, weight = (part.to(device) for part in asked.layout)
    images = asked.images.to(device)
    tokens = images if asked.made_up else vlm.tokens(images)
    count, shown = tokens.shape[:2]
    words = vlm.language_model.get_input_embeddings()(torch.cat([text.to(device).expand(count, -1), ids], dim=1))
    behind = vlm.grid[0] * vlm.grid[1] + torch.arange(len(text), device=device)
    position = torch.cat([asked.cells.to(device), behind.expand(count, -1), behind[-1] + 1 + steps], dim=1)
    mask = _mask(nn.functional.pad(branches, (shown + len(text), 0)), tokens.dtype)
    decode = Decoder(vlm) if decode is None else decode
    hidden = decode(torch.cat([tokens, words.to(tokens.dtype)], dim=1), position, mask)
    logits = vlm.language_model.get_output_embeddings()(hidden[image, shown + len(text) - 1 + place]).float()
    each = nn.functional.cross_entropy(logits, wanted, reduction="none")
    return (each * weight).sum() / weight.sum(), each.detach()


def _side_by_side(chunks: list[list[int]], counts: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`counts[i]` chunks for each of B images -> (ids, steps, branches int64[B, W] each, first int64[R]).

    ids, steps, branches: see Layout · first: where in its row a chunk begins.
    """
    rows, first, chunk = [], [], iter(chunks)
    for count in counts:
        row: list[tuple[int, int, int]] = []
        for branch in range(1, count + 1):
            first.append(len(row))
            row += [(token, step, branch) for step, token in enumerate(next(chunk))]
        rows.append(row)
    width = max(map(len, rows))
    padded = [row + [(0, 0, -1)] * (width - len(row)) for row in rows]
    ids, steps, branches = torch.tensor(padded, dtype=torch.long).view(len(rows), width, 3).unbind(-1)
    return ids, steps, branches, torch.tensor(first)


def _mask(branches: Tensor, dtype: torch.dtype) -> Tensor:
    """What a decoder adds to its scores, float[B, 1, T, T]: a token sees those before it that all see, of branch 0, or
    of its own."""
    sees = ((branches[:, None] == 0) | (branches[:, None] == branches[:, :, None])).tril()
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]
