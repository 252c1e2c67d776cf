"""Numbers as a language model's own embeddings: what an insert says of a cell's place before any training."""

from __future__ import annotations

import torch
from torch import Tensor

from wherein.vlm.base import FrozenVLM

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def number_codes(vlm: FrozenVLM) -> tuple[Tensor, Tensor]:
    """The ten digits and the ten number words, float32[10, D_t] each, so that two numbers in one token stay apart.

    Embeddings of `vlm`'s language model (a word of several tokens: their mean), less their mean, norm 1 on average.
    """
    table: Tensor = vlm.language_model.get_input_embeddings().weight.detach()

    def codes(tokens: list[list[int]]) -> Tensor:
        found = torch.stack([table[ids].float().mean(0) for ids in tokens]).cpu()
        found = found - found.mean(0)
        mean: Tensor = found.norm(dim=1).mean()
        return found / mean

    return codes([vlm.encode(f"[{digit}")[-1:] for digit in range(10)]), codes([vlm.encode(f" {w}") for w in WORDS])


def numbered(vlm: FrozenVLM) -> Tensor:
    """float32[N, D_t]: for each cell the digit of its column plus the word of its row, in tenths of the picture.

    An insert that starts here already says something the language model can read, if it reads words off its image
    tokens at all; training then learns where an edge lies.
    """
    (rows, columns), (digits, words) = vlm.grid, number_codes(vlm)
    index = torch.arange(rows * columns)
    return digits[index % columns * 10 // columns] + words[index // columns * 10 // rows]
