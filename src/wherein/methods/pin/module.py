"""The positional insert: a small network on a fixed sinusoid (PIN, CVPR'24, section 4; sizes as released in 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wherein.geometry import Frame
from wherein.methods.insert import Insert
from wherein.methods.pin.config import PinConfig
from wherein.vlm.base import Cells, FrozenVLM

CODE = 64  # width of the sinusoid


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Positions float[N] -> float[N, width]: sin and cos of i / 10000^(2k / width) in turn (PIN, equation 2)."""
    angle = positions[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def table(config: PinConfig, cells: Cells | None = None) -> Tensor:
    """The fixed code float32[N, 64] of each row of x_v; `cells` None: those of one raster of the configuration's grid.

    "1d" counts the rows in raster order, whatever order they come in, as published. "2d" goes by where in the image a
    cell's centre lies, in units of the configuration's grid, so that a finer grid, or a tile, says the same of a place.
    """
    cells = cells or Cells.raster(Frame.identity(config.columns, config.rows), (config.rows, config.columns))
    if config.code == "1d":
        return sinusoid(torch.from_numpy(cells.order).float(), CODE)
    x, y = (cells.boxes[:, :2] + cells.boxes[:, 2:]).T / 2 / cells.boxes[:, 2:].max(0)[:, None]
    rows, columns = (torch.from_numpy(place).float() for place in (y * config.rows - 0.5, x * config.columns - 0.5))
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


class PositionalInsert(Insert):
    """psi of equation 3: from the code of each cell to pi, the same for every image of the same grid.

    The last layer starts at zero, so an untrained insert leaves the VLM as it was.
    """

    code: Tensor

    def __init__(self, config: PinConfig, cells: Cells | None = None) -> None:
        """`cells`: of an image of the model's own size (None: one raster of the configuration's grid)."""
        super().__init__()
        self.config = config
        self.register_buffer("code", table(config, cells), persistent=False)
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

    def forward(self, code: Tensor | None = None) -> Tensor:
        """pi: float32[N, D_v], to be added to x_v; `code` float32[N, 64] is a `table`, None the model's own."""
        return self.layers(self.code if code is None else code)  # type: ignore[no-any-return]

    @contextmanager
    def installed(self, vlm: FrozenVLM, frame: Frame | None = None, cells: Tensor | None = None) -> Iterator[None]:
        """Add pi at its seam; see Insert."""
        pi: Tensor = self(None if frame is None else table(self.config, vlm.cells(frame)).to(self.code))
        pi = pi if cells is None else pi[cells]
        with vlm.seam(self.config.seam, lambda x: x + pi.to(x)):
            yield

    @torch.no_grad()
    def start_from(self, pi: Tensor) -> None:
        """Set the last layer so that `forward` gives float[N, D_v] `pi`, by least squares (exact up to 768 cells)."""
        hidden, last = self.layers[:-1](self.code), self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.copy_(torch.linalg.lstsq(hidden.double(), pi.double(), driver="gelsd").solution.T)
        nn.init.zeros_(last.bias)
