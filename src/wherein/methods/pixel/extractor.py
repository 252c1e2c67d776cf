"""The prompt feature extractor: what a place in a picture shows, in a few tokens (PixelLLM, CVPR'24).

Notable choices:
- 27.2 M parameters at depth 2; that count, the published one, needs a last attention of full width, where SAM has half
- the dense part of the prompt, SAM's embedding of "no mask", goes through the projection of the other prompts
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wherein.methods.pixel.two_way import TwoWay


class PromptFeatureExtractor(nn.Module):
    """Cells float[R, N, C] of pictures and prompts float[R, P, 256] -> visual tokens float[R, tokens, out].

    `tokens` learnt ones look, together with the prompt, at the cells; each has a linear layer of its own behind it.
    """

    def __init__(self, features: int, prompt: int, width: int, depth: int, tokens: int, out: int) -> None:
        super().__init__()
        self.image = nn.Linear(features, width)
        self.prompt = nn.Linear(prompt, width)
        self.place = nn.Linear(prompt, width)
        self.tokens = nn.Parameter(torch.empty(tokens, width))
        self.transformer = TwoWay(width, depth, last=width)
        self.weight = nn.Parameter(torch.empty(tokens, out, width))
        self.bias = nn.Parameter(torch.empty(tokens, out))
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """The first values of what is no layer."""
        nn.init.normal_(self.tokens)
        nn.init.normal_(self.weight, std=self.weight.shape[-1] ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, cells: Tensor, prompts: Tensor, dense: Tensor, places: Tensor) -> Tensor:
        """`dense` float[256] is added to all cells; `places` float[N, 256] say where they are."""
        image = self.image(cells) + self.prompt(dense)
        queries = torch.cat([self.tokens.expand(len(cells), -1, -1), self.prompt(prompts)], dim=1)
        seen = self.transformer(queries, image, self.place(places)[None])
        own = seen[:, : len(self.tokens)]
        return torch.einsum("rtc,toc->rto", own, self.weight) + self.bias
