"""PIN: a learned, input-agnostic positional insert (CVPR'24)."""

from __future__ import annotations

from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.method import Pin
from wherein.methods.pin.module import PositionalInsert

__all__ = ["Pin", "PinConfig", "PositionalInsert"]
