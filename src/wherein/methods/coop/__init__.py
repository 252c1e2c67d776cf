"""coop: learned words in front of the question (CoOp, Zhou et al., 2022), PIN's baseline on the language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wherein.errors import AdapterError, InputError
from wherein.geometry import Frame
from wherein.methods.base import register
from wherein.methods.insert import Insert, InsertConfig, Inserted
from wherein.vlm.base import FrozenVLM

DEVIATION = 0.02  # of the first words, as CoOp has it


@dataclass(frozen=True)
class CoopConfig(InsertConfig):
    """Settings of learned words. tokens: how many, 16 in the paper · width: of one, D_t."""

    width: int
    tokens: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("tokens", "width")


class LearnedWords(Insert):
    """`tokens` float32[T, D_t] stand, the same for every question, behind the image and before the question.

    The question begins with as many placeholders, the token that ends a text: no phrase can hold it.
    """

    def __init__(self, config: CoopConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.randn(config.tokens, config.width) * DEVIATION)

    def lead(self, vlm: FrozenVLM) -> str:
        """The placeholders."""
        return str(vlm.tokenizer.eos_token) * int(self.config.tokens)

    @contextmanager
    def installed(self, vlm: FrozenVLM, frame: Frame | None = None, cells: Tensor | None = None) -> Iterator[None]:
        """Where a text begins with the placeholders, the learned words stand in their place; see Insert."""
        count = self.config.tokens
        words = vlm.language_model.get_input_embeddings()
        with torch.no_grad():
            blank = words(torch.tensor([vlm.tokenizer.eos_token_id], device=vlm.device))

        def fill(x: Tensor) -> Tensor | None:
            """Embedded text float[B, L, D_t]."""
            begins = (x[:, :count] == blank).all(-1).all(-1)
            if x.shape[1] < count or not begins.any():
                return None
            filled = torch.cat([self.tokens.to(x).expand(len(x), -1, -1), x[:, count:]], dim=1)
            return torch.where(begins[:, None, None], filled, x)

        with vlm.seam("prompt_tokens", fill):
            yield


@register
class Coop(Inserted):
    """CoOp on the language model; answers as `Inserted` says."""

    name = "coop"
    baseline = True
    config_class = CoopConfig
    rates = {"default": 1e-3, "paper": 1e-3, "released": 1e-3}

    @classmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> LearnedWords:
        """Random words, near zero. Raises InputError for a model whose questions pass by its embedding of text."""
        seen: list[Tensor] = []
        pixels, _ = vlm.prepare([np.zeros((*vlm.size[::-1], 3), np.uint8)])
        with torch.no_grad():
            prefix = vlm.prefix(vlm.features(pixels))
            with vlm.seam("prompt_tokens", seen.append):
                vlm.continue_text(prefix, [0], [" a"], 1)
        if not seen:
            raise InputError(f"Questions to {vlm.name} go into a decoder with words of its own: it cannot have coop.")
        width = int(vlm.language_model.get_input_embeddings().weight.shape[1])
        return LearnedWords(CoopConfig(width, codec=vlm.codec))

    @classmethod
    def build(cls, vlm: FrozenVLM, config: CoopConfig) -> LearnedWords:
        """See Inserted."""
        if config.width != vlm.language_model.get_input_embeddings().weight.shape[1]:
            raise AdapterError(f"These words are of another width than {vlm.name}'s.")
        return LearnedWords(config)
