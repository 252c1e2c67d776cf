"""Masks for boxes: a frozen promptable segmenter (SAM, SAM 2) behind any method."""

from wherein.segment.refined import Refined
from wherein.segment.segmenter import PROMPTS, Segmenter

__all__ = ["PROMPTS", "Refined", "Segmenter"]
