"""What a PIN adapter is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from wherein.boxtext import CODECS
from wherein.errors import AdapterError

VARIANTS = ("released", "split", "gated")
CODES = ("1d", "2d")
SEAMS = ("features", "connector_tokens")


@dataclass(frozen=True)
class PinConfig:
    """Settings of a positional insert; saved as JSON beside its weights.

    rows, columns: the grid of the patch features · feature_dim: width of the seam, D_v as published · variant: the
    network of SPEC 1.2 and 1.10 · code: sinusoid of the raster index ("1d", as published) or of row and column apart
    ("2d") · codec: how boxes are written · seam: `features`, as published, or `connector_tokens` behind a connector
    that keeps cells apart · beams: of the search for the answer, 1 is greedy (3 and 5 as released) · absent_scale,
    absent_shift: calibration of the absent probability, p = sigmoid(scale * logit + shift).
    """

    rows: int
    columns: int
    feature_dim: int
    variant: str = "released"
    code: str = "1d"
    codec: str = "grid16"
    absent_scale: float = 1.0
    absent_shift: float = 0.0
    seam: str = "features"
    beams: int = 1

    def __post_init__(self) -> None:
        for field, value, allowed in (
            ("variant", self.variant, VARIANTS),
            ("code", self.code, CODES),
            ("codec", self.codec, tuple(CODECS)),
            ("seam", self.seam, SEAMS),
        ):
            if value not in allowed:
                raise AdapterError(f"A PIN's {field} is one of {', '.join(allowed)}; got {value!r}.")
        if not all(isinstance(value, (int, float)) for value in (self.absent_scale, self.absent_shift)):
            raise AdapterError(f"A PIN's absent_scale and absent_shift are numbers; got {self}.")
        if min(self.rows, self.columns, self.feature_dim, self.beams) < 1:
            raise AdapterError(f"A PIN needs a grid, a width and beams of at least 1; got {self}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PinConfig:
        """The settings in a loaded JSON object. Raises AdapterError for a wrong key or value."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise AdapterError(f"This adapter has settings a PIN does not know: {', '.join(sorted(unknown))}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise AdapterError(f"This adapter's settings are incomplete or of a wrong type: {error}.") from error
