"""vpt, vpt_encoder: learned tokens among the image's (VPT, Jia et al., 2022), PIN's baselines on the visual side."""

from __future__ import annotations

from wherein.methods.vpt.method import Vpt, VptEncoder

__all__ = ["Vpt", "VptEncoder"]
