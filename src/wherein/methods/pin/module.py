"""The positional insert: a small network on a fixed sinusoid (PIN, CVPR'24, section 4; sizes as released in 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wherein.methods.pin.config import PinConfig

CODE = 64  # width of the sinusoid


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Positions float[N] -> float[N, width]: sin and cos of i / 10000^(2k / width) in turn (PIN, equation 2)."""
    angle = positions[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def table(config: PinConfig) -> Tensor:
    """The fixed code float[N, 64] of each cell in raster order."""
    index = torch.arange(config.rows * config.columns, dtype=torch.float32)
    if config.code == "1d":
        return sinusoid(index, CODE)
    rows, columns = index // config.columns, index % config.columns
    return torch.cat([sinusoid(rows, CODE // 2), sinusoid(columns, CODE // 2)], dim=1)


class _SplitGate(nn.Module):
    """LayerNorm(2h) -> halves a, b -> SiLU(a) * b (SPEC 1.2, reading A)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, 2h] -> float[N, h]."""
        normed: Tensor = self.norm(x)
        a, b = normed.chunk(2, dim=-1)
        return nn.functional.silu(a) * b


class _OwnGate(nn.Module):
    """LayerNorm(h) -> SiLU(x W) * (x V), W and V without bias (SPEC 1.2, reading B)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.w, self.v = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, h] -> float[N, h]."""
        x = self.norm(x)
        return nn.functional.silu(self.w(x)) * self.v(x)  # type: ignore[no-any-return]


class PositionalInsert(nn.Module):
    """psi of equation 3. `forward()` takes nothing and returns pi float32[N, D_v], the same for every image.

    The last layer starts at zero, so an untrained insert leaves the VLM as it was.
    """

    code: Tensor

    def __init__(self, config: PinConfig) -> None:
        super().__init__()
        self.register_buffer("code", table(config), persistent=False)
        layers: list[nn.Module]
        if config.variant == "released":
            layers = [
                nn.Linear(CODE, 512),
                nn.SiLU(),
                nn.LayerNorm(512),
                nn.Linear(512, 768),
                nn.SiLU(),
                nn.LayerNorm(768),
            ]
            width = 768
        elif config.variant == "split":
            width = 536
            layers = [nn.Linear(CODE, 2 * width), _SplitGate(width), nn.Linear(width, 2 * width), _SplitGate(width)]
        else:
            width = 384
            layers = [nn.Linear(CODE, width), _OwnGate(width), nn.Linear(width, width), _OwnGate(width)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, config.feature_dim))
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self) -> Tensor:
        """pi: float32[N, D_v], to be added to x_v."""
        return self.layers(self.code)  # type: ignore[no-any-return]

    @torch.no_grad()
    def start_from(self, pi: Tensor) -> None:
        """Set the last layer so that `forward` gives float[N, D_v] `pi`, by least squares (exact up to 768 cells)."""
        hidden, last = self.layers[:-1](self.code), self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.copy_(torch.linalg.lstsq(hidden.double(), pi.double(), driver="gelsd").solution.T)
        nn.init.zeros_(last.bias)
