"""The recipe's composites, encoded once: to train on, of categories held out, and further ones of those trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from wherein.synth import AUGMENTED, Backgrounds, ObjectBank, is_held_out, may_be_held_out
from wherein.training.adapters import HELD_OUT
from wherein.training.sources import composed, drawn_from
from wherein.training.store import FeatureStore
from wherein.vlm.base import FrozenVLM

SEED = 0
"""Of the composites and of the phrases that figures are on: the same whatever seed a model is trained from."""
CONFIG = replace(AUGMENTED, pairs=0.3)  # two things of one name: then the phrase's place word counts


class Stores(NamedTuple):
    """train: to learn from · held_out: of COCO's and VOC's categories, never trained on · known: fresh ones of those
    that are · drawn_from: which cut-outs and backgrounds · licences: of the cut-outs trained on."""

    train: FeatureStore
    held_out: FeatureStore
    known: FeatureStore
    drawn_from: dict[str, str]
    licences: str

    def build(self) -> Stores:
        """Make and encode what is missing of all of them."""
        for store in (self.train, self.held_out, self.known):
            store.build()
        return self


def stores(vlm: FrozenVLM, cache: Path, count: int, objects: Path | None, backgrounds: Path | None) -> Stores:
    """`count` composites to train on and `HELD_OUT` of each other kind, to be built in the folder `cache`.

    Raises InputError for a folder that holds no cut-outs or no pictures.
    """
    bank = ObjectBank.load() + ObjectBank.from_folder(objects) if objects else ObjectBank.load()
    grounds = Backgrounds.from_folder(backgrounds) if backgrounds else Backgrounds.load()
    pictures = drawn_from(bank, grounds)
    trained, held_out = bank.without(may_be_held_out), bank.keep(lambda cutout: is_held_out(cutout.name))

    def store(split: str, own: ObjectBank, images: int, stream: int) -> FeatureStore:
        """Composites of one kind, from a seed of their own."""
        about = {"seed": SEED, **pictures, "config": CONFIG, "split": split, "names": len(own.names)}
        return FeatureStore(cache, vlm, composed(own, grounds, vlm.size[0], stream, CONFIG), images, about)

    return Stores(
        store("train", trained, count, SEED),
        store("held out", held_out, HELD_OUT, SEED + 1_000_003),
        store("known", trained, HELD_OUT, SEED + 2_000_003),
        pictures,
        trained.licences,
    )
