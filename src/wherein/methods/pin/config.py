"""What a PIN adapter is made of."""

from __future__ import annotations

from dataclasses import dataclass

from wherein.methods.insert import InsertConfig

VARIANTS = ("released", "split", "gated")
CODES = ("1d", "2d")
SEAMS = ("features", "connector_tokens")


@dataclass(frozen=True)
class PinConfig(InsertConfig):
    """Settings of a positional insert.

    rows, columns: the grid of the patch features · feature_dim: width of the seam, D_v as published · variant: the
    network of SPEC 1.2 and 1.10 · code: sinusoid of the raster index ("1d", as published) or of row and column apart
    ("2d") · seam: `features`, as published, or `connector_tokens` behind a connector that keeps cells apart.
    """

    rows: int
    columns: int
    feature_dim: int
    variant: str = "released"
    code: str = "1d"
    seam: str = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("variant", VARIANTS)
        self.check("code", CODES)
        self.check("seam", SEAMS)
        self.check_positive("rows", "columns", "feature_dim")
