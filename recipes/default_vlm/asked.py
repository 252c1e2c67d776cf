"""What a step asks, and how well it is answered: every question about an image in one pass, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wherein.vlm.branches import Branch, lay_out
from wherein.vlm.default import DefaultVLM


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


def loss(vlm: DefaultVLM, asked: Asked) -> tuple[Tensor, Tensor]:
    """The next-token loss of all answers in nats, weighted, and that of each token, float32[L].

    What `vlm.loss` says behind `vlm.prefix`, in seven tenths of the time on a CPU: there each question is a row with a
    copy of its image's keys and values; here the questions about an image follow each other behind it in one row, and
    none sees another or stands behind it.
    """
    images, text = asked.images.to(vlm.device), vlm.encode(vlm.shared_prompt)
    tokens = images if asked.made_up else vlm.tokens(images)
    count, shown = tokens.shape[:2]
    chunks, labels, weights = lay_out([branch for row in asked.rows for branch in row])
    ids, steps, branches, first = _side_by_side(chunks, [len(row) for row in asked.rows])
    ids = torch.cat([torch.tensor(text).expand(count, -1), ids], dim=1).to(vlm.device)
    behind = vlm.grid[0] * vlm.grid[1] + torch.arange(len(text))
    position = torch.cat([asked.cells, behind.expand(count, -1), behind[-1] + 1 + steps], dim=1)
    branches = nn.functional.pad(branches, (shown + len(text), 0))
    words = vlm.language_model.get_input_embeddings()(ids).to(tokens.dtype)
    hidden = vlm.language_model.get_decoder()(
        inputs_embeds=torch.cat([tokens, words], dim=1),
        position_ids=position.to(vlm.device),
        attention_mask=_mask(branches.to(vlm.device), tokens.dtype),
        use_cache=False,
    ).last_hidden_state
    row, state = (labels >= 0).nonzero(as_tuple=True)
    image = torch.arange(count).repeat_interleave(torch.tensor([len(row) for row in asked.rows]))[row]
    place = shown + len(text) - 1 + torch.where(state > 0, first[row] + state, 0)
    logits = vlm.language_model.get_output_embeddings()(hidden[image, place]).float()
    wanted, weight = labels[row, state].to(vlm.device), weights[row, state].to(vlm.device)
    each = nn.functional.cross_entropy(logits, wanted, reduction="none")
    return (each * weight).sum() / weight.sum(), each.detach()


def _side_by_side(chunks: list[list[int]], counts: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`counts[i]` chunks for each of B images -> (ids, steps, branches int64[B, W] each, first int64[R]).

    steps: how far in its chunk a token stands · branches: which of an image's chunks it is of, from 1; 0 is for what
    all of them see, -1 for the padding · first: where in its row a chunk begins.
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
    """What a decoder adds to its scores, float[B, 1, T, T]: a token sees those before it that all see or of its own."""
    sees = ((branches[:, None] == 0) | (branches[:, None] == branches[:, :, None])).tril()
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]
