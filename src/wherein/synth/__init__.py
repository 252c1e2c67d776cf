"""Composites: object cut-outs pasted on backgrounds, with exact boxes and names."""

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, PAPER, ComposeConfig, Composite, Placed, compose
from wherein.synth.holdout import category_of, is_held_out
from wherein.synth.objects import Cutout, ObjectBank

__all__ = [
    "AUGMENTED",
    "PAPER",
    "Backgrounds",
    "ComposeConfig",
    "Composite",
    "Cutout",
    "ObjectBank",
    "Placed",
    "category_of",
    "compose",
    "is_held_out",
]
