"""Words carried from a picture's cells to its visual tokens, where the cells have words.

A language model that was taught to read pictures through a connector knows the connector's tokens: they are mixtures of
its own words. New visual tokens would have to name everything anew; with a carrier they choose where to look, and what
is read there comes along as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INNER = 32  # width of what is compared
NEAR = 4.0  # logits by which a cell in the place that is asked about is ahead before training
QUIET = 0.05  # of the norm of a visual token: what it says by itself, beside the words, of a norm of about 2


class Carrier(nn.Module):
    """Each visual token looks at the cells, and gets the mean of their words by how much it looks at each.

    Untrained, all look at the place that is asked about: its words are there from the first step on.
    """

    def __init__(self, token: int, features: int, place: int) -> None:
        super().__init__()
        self.query, self.image, self.place = (nn.Linear(width, INNER) for width in (token, features, place))
        self.near = nn.Parameter(torch.tensor(NEAR))

    def forward(self, tokens: Tensor, cells: Tensor, places: Tensor, words: Tensor, within: Tensor) -> Tensor:
        """Tokens float[R, t, D], cells float[R, N, C], where they are float[N, P], their words float[R, N, D_t], and
        the share of each cell within the place that is asked about float[R, N] -> float[R, t, D_t]."""
        key = self.image(cells) + self.place(places)
        fits = self.query(tokens) @ key.transpose(1, 2) / INNER**0.5
        look = torch.softmax(fits + self.near * within[:, None], dim=-1)
        return look @ words.to(look)
