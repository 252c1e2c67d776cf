"""Learned tokens, the same for every image: among what the connector receives, or among what the encoder does."""

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
from wherein.vlm.base import FrozenVLM, Pixels

DEVIATION = 0.02
RELEASED_TOKENS = 20


@dataclass(frozen=True)
class VptConfig(InsertConfig):
    """Settings of learned image tokens. width: of one · tokens: how many, 100 in the paper (20 as released)."""

    width: int
    tokens: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("tokens", "width")


class FurtherRows(Insert):
    """`tokens` float32[T, D_v] behind the rows of x_v, on their way into the connector, where the published PIN is."""

    def __init__(self, config: VptConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.randn(config.tokens, config.width) * DEVIATION)

    def _behind(self, x: Tensor) -> Tensor:
        """float[B, N, D] -> float[B, N + T, D]."""
        return torch.cat([x, self.tokens.to(x).expand(len(x), -1, -1)], dim=1)

    @contextmanager
    def installed(self, vlm: FrozenVLM, frame: Frame | None = None, cells: Tensor | None = None) -> Iterator[None]:
        """See Insert."""
        with vlm.seam("features", self._behind):
            yield


class FurtherPatches(FurtherRows):
    """`tokens` float32[T, D] behind the encoder's embedded patches; what they become is dropped before the connector.

    "Shallow" prompts: nothing is replaced in later blocks.
    """

    encodes = True

    @contextmanager
    def installed(self, vlm: FrozenVLM, frame: Frame | None = None, cells: Tensor | None = None) -> Iterator[None]:
        """Behind the encoder nothing differs."""
        yield

    def encode(self, vlm: FrozenVLM, pixels: Pixels) -> Tensor:
        """See Insert."""
        with vlm.seam("encoder_tokens", self._behind):
            return vlm.features(pixels)[:, : -self.config.tokens]


@register
class Vpt(Inserted):
    """VPT on the connector's input; answers as `Inserted` says.

    For a connector that makes as many tokens of any number of rows (a Q-Former, a perceiver), as published, and for the
    built-in model, whose language model then sees the further tokens behind the image.
    """

    name = "vpt"
    baseline = True
    config_class = VptConfig
    rates = {"default": 1e-3, "paper": 1e-3, "released": 1e-3}

    @classmethod
    def check_fits(cls, vlm: FrozenVLM) -> None:
        """See Inserted."""
        if not vlm.takes_rows:
            raise InputError(f"The connector of {vlm.name} takes as many rows as an image has: it cannot have vpt.")

    @classmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> FurtherRows:
        """Random tokens, near zero. Raises InputError for a connector that takes no further rows."""
        cls.check_fits(vlm)
        return FurtherRows(VptConfig(vlm.feature_dim, tokens=_count(preset), codec=vlm.codec))

    @classmethod
    def build(cls, vlm: FrozenVLM, config: VptConfig) -> FurtherRows:
        """See Inserted."""
        if config.width != vlm.feature_dim or not vlm.takes_rows:
            raise AdapterError(f"These image tokens do not fit the connector of {vlm.name}.")
        return FurtherRows(config)


@register
class VptEncoder(Inserted):
    """VPT on the vision encoder, for vision transformers that take further patches; answers as `Inserted` says."""

    name = "vpt_encoder"
    baseline = True
    config_class = VptConfig
    rates = {"default": 1e-3, "paper": 1e-3, "released": 1e-3}

    @classmethod
    def check_fits(cls, vlm: FrozenVLM) -> None:
        """See Inserted."""
        if "encoder_tokens" not in vlm.seams.names:
            raise InputError(f"The vision encoder of {vlm.name} is no transformer: it cannot have vpt_encoder.")

    @classmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> FurtherPatches:
        """Random tokens, near zero. Raises InputError for an encoder that does not take them."""
        cls.check_fits(vlm)
        seen: list[Tensor] = []
        pixels, _ = vlm.prepare([np.zeros((*vlm.size[::-1], 3), np.uint8)])
        with torch.no_grad(), vlm.seam("encoder_tokens", seen.append):
            rows = vlm.features(pixels).shape[1]
        settings = VptConfig(seen[0].shape[-1], tokens=_count(preset), codec=vlm.codec)
        insert = FurtherPatches(settings).to(vlm.device)
        try:
            with torch.no_grad():
                fits = insert.encode(vlm, pixels).shape[1] == rows
        except (RuntimeError, ValueError, IndexError):  # whatever its blocks make of rows that are no patches
            fits = False
        if not fits:
            raise InputError(f"The vision encoder of {vlm.name} takes no further patches: it cannot have vpt_encoder.")
        return insert

    @classmethod
    def build(cls, vlm: FrozenVLM, config: VptConfig) -> FurtherPatches:
        """See Inserted."""
        return FurtherPatches(config)


def _count(preset: str) -> int:
    return RELEASED_TOKENS if preset == "released" else VptConfig.tokens
