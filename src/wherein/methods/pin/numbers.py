"""Numbers as a language model's own embeddings: what an insert says of a cell's place before any training."""

from __future__ import annotations

import torch
from torch import Tensor

from wherein.vlm.base import FrozenVLM
from wherein.vlm.connector import embed

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def number_codes(vlm: FrozenVLM) -> tuple[Tensor, Tensor]:
    """The ten digits and the ten number words, float32[10, D_t] each, so that two numbers in one token stay apart.

    Embeddings of `vlm`'s language model (a word of several tokens: their mean), less their mean, norm 1 on average.
    """
    table: Tensor = vlm.language_model.get_input_embeddings().weight.detach()
    digits = table[[vlm.encode(f"[{digit}")[-1] for digit in range(10)]].float()
    return _code(digits.cpu()), _code(embed([vlm.encode(f" {word}") for word in WORDS], table))


def _code(embeddings: Tensor) -> Tensor:
    centred = embeddings - embeddings.mean(0)
    return centred / centred.norm(dim=1).mean()  # type: ignore[no-any-return]


def numbered(vlm: FrozenVLM) -> Tensor:
    """float32[N, D_t]: for each cell the digit of its column plus the word of its row, in tenths of the picture.

    An insert that starts here already says something the language model can read, if it reads words off its image
    tokens at all; training then learns where an edge lies.
    """
    (rows, columns), (digits, words) = vlm.grid, number_codes(vlm)
    index = torch.arange(rows * columns)
    return digits[index % columns * 10 // columns] + words[index // columns * 10 // rows]
