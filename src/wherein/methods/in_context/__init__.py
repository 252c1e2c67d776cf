"""in_context, random: what worked examples in front of the question give without training (PIN's baselines)."""

from __future__ import annotations

from wherein.methods.in_context.examples import Example, composites
from wherein.methods.in_context.method import DRAWN, InContext, Random

__all__ = ["DRAWN", "Example", "InContext", "Random", "composites"]
