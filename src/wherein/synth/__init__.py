"""Composites: object cut-outs pasted on backgrounds, with exact boxes and names."""

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, GRID, PAPER, REFERRAL, ComposeConfig, Composite, Placed, compose
from wherein.synth.holdout import category_of, is_held_out, may_be_held_out
from wherein.synth.objects import Cutout, ObjectBank
from wherein.synth.plan import Plan
from wherein.synth.scene import Scene, Scenes
from wherein.synth.shard_reader import Shards

__all__ = [
    "AUGMENTED",
    "GRID",
    "PAPER",
    "REFERRAL",
    "Backgrounds",
    "ComposeConfig",
    "Composite",
    "Cutout",
    "ObjectBank",
    "Placed",
    "Plan",
    "Scene",
    "Scenes",
    "Shards",
    "category_of",
    "compose",
    "is_held_out",
    "may_be_held_out",
]
