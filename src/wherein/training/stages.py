"""The stages in which PixelLLM was trained (its release), as settings: data, length, rates, what learns.

The first, captions of WebLI, is private: `captions` stands in its place, COCO's captions for ten thousand steps. What a
stage trains begins with what the one before it left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wherein.methods.pixel.model import PixelLM

_BLOCK = re.compile(r"\.(?:layers?|blocks?)\.(\d+)\.")


@dataclass(frozen=True)
class Stage:
    """One stage.

    data: kinds of lessons (`lessons.KINDS`) and how often each is drawn, in shares · batch: pictures a step · steps,
    warmup, rate, weight_decay: of the trainer; the rate falls to 0 · trains: a stage of `PixelLM.train_stage` · paces:
    how many times the rate parameters take whose names begin so · layer_decay: what each block of the vision encoder
    takes of the rate of the one behind it.
    """

    data: Mapping[str, float]
    batch: int
    steps: int
    warmup: int
    rate: float
    weight_decay: float = 0.0
    trains: str = "words"
    paces: Mapping[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0

    def pace(self, model: PixelLM) -> Callable[[str], float]:
        """What share of the rate a parameter of `model.trained()` takes, by its name there."""
        vision = model.config.vision_config
        blocks = getattr(vision, "num_hidden_layers", 0) if self.layer_decay != 1 else 0
        encoder = f"encoders.{len(model.encoders) - 1}."

        def of(name: str) -> float:
            """The share of one parameter."""
            plain = name.replace("/", ".")
            share = next((pace for start, pace in self.paces.items() if plain.startswith(start)), 1.0)
            if not blocks or not plain.startswith(encoder):
                return share
            block = _BLOCK.search(plain)
            first = "embedding" in plain or "pre_layrnorm" in plain  # CLIP's, by its own name for it
            depth = int(block[1]) + 1 if block else 0 if first else blocks + 1
            return float(share * self.layer_decay ** (blocks + 1 - depth))

        return of


STAGES = {
    "captions": Stage({"captions": 1}, batch=256, steps=10_000, warmup=250, rate=5e-5),
    "trace": Stage({"captions": 1, "narratives": 2}, batch=256, steps=10_000, warmup=250, rate=5e-5),
    "refer": Stage({"phrases": 1}, batch=64, steps=120_000, warmup=1_000, rate=5e-5),
    "segment": Stage(
        {"masks": 1}, batch=64, steps=60_000, warmup=500, rate=5e-5, trains="masks", paces={"mask_adapter.": 10}
    ),
    "dense": Stage({"regions": 1}, batch=64, steps=40_000, warmup=1_000, rate=1e-4, weight_decay=0.05, layer_decay=0.8),
    "joint": Stage(
        {"captions": 3, "narratives": 1, "phrases": 7, "regions": 5},
        batch=128,
        steps=240_000,
        warmup=2_000,
        rate=1e-4,
        weight_decay=0.05,
        layer_decay=0.8,
    ),
}
"""By name, in the order in which they follow each other; `joint` is the release's other way, all at once. Its phrases
are those of Flickr30k, RefCOCO and Visual Genome together; its conversations of LLaVA's are left out."""
