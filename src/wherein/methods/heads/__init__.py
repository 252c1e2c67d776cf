"""Localisation heads: training-free boxes, masks and heat maps from a frozen model's attention (CVPR'25)."""

from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.method import Heads

__all__ = ["Heads", "HeadsConfig"]
