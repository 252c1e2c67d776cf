"""What is served, as a table: made from the families themselves, so that it says what they do."""

from __future__ import annotations

from typing import Any

from wherein.vlm.families import FAMILIES
from wherein.vlm.hf import HFVLM

EVERYWHERE = ["features", "connector_tokens", "encoder_tokens", "prompt_tokens", "hidden"]
IMAGES = {
    "squash": "squashed to a square",
    "centre_crop": "centre crop",
    "any_resolution": "whole, and tiles",
    "dynamic": "any resolution",
    "split": "whole, and tiles",
    "patches": "whole (tiles if set)",
}


def overview() -> list[dict[str, Any]]:
    """One row a family: name, usual checkpoint, what happens to an image, seams, methods, own box format, licence."""
    built_in = {
        "family": "default",
        "checkpoint": "default (in the package)",
        "image": "squashed to a square",
        "seams": ["features", "connector_tokens", "prompt_tokens", "hidden", "attention"],
        "methods": ["pin", "cam", "text", "centre"],
        "native_boxes": "none",
        "licence": "Apache-2.0",
    }
    return [built_in, *(_row(family) for family in FAMILIES)]


def _row(family: type[HFVLM]) -> dict[str, Any]:
    return {
        "family": family.family,
        "checkpoint": family.checkpoint,
        "image": IMAGES[family.views.__name__],
        "seams": [*EVERYWHERE, *(["attention"] if family.reads_attention else [])],
        "methods": ["pin", "text", "centre"],
        "native_boxes": family.native or "none",
        "licence": family.licence,
    }
