"""Labelled images to look for heads in: composites that we make ourselves, or a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wherein.data import Sample
from wherein.errors import InputError
from wherein.phrases import check_phrases
from wherein.synth import AUGMENTED, Backgrounds, ObjectBank
from wherein.training.sources import composed
from wherein.training.store import Labelled, Source
from wherein.vlm.base import FrozenVLM


@dataclass(frozen=True)
class Pairs:
    """Labelled images to look for heads in: `source(i)` for i below `images`, what they are, in a sentence, and names
    of things, of which those that are not in an image are asked for as absent."""

    source: Source
    images: int
    about: str
    names: tuple[str, ...]


def composites(vlm: FrozenVLM, images: int, seed: int) -> Pairs:
    """Composites of the whole object bank in the package, held-out categories too, made as PIN's are otherwise."""
    bank = ObjectBank.load()
    source = composed(bank, Backgrounds.load(), vlm.size[0], seed, AUGMENTED)
    return Pairs(source, images, f"{images} composites, seed {seed}", bank.names)


def labelled(samples: Sequence[Sample], name: str, images: int, seed: int) -> Pairs:
    """At most so many real images, drawn at random; their boxes are used by a search by agreement only.

    Raises InputError where none has a phrase, an image is missing, or a phrase cannot be asked for.
    """
    asked = [sample for sample in samples if sample.objects]
    if not asked:
        raise InputError(f"{name} holds no phrase with a box, so there is nothing to look for heads with.")
    kept = [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))[:images]]
    for sample in kept:
        if not sample.path.is_file():
            raise InputError(f"The image {sample.name!r} of {name} is not at {sample.path}.")
        check_phrases(sample.phrases())

    def source(i: int) -> Labelled:
        """Image `i` and its phrases."""
        objects = {thing.phrase: thing.box for thing in reversed(kept[i].objects)}  # of a phrase, its first box
        return Labelled(kept[i].boxed(), tuple(objects.items()))

    seen = [
        (sample.name, sample.path.stat().st_size, [(o.phrase, o.box.tolist()) for o in sample.objects])
        for sample in kept
    ]
    digest = hashlib.sha256(str(seen).encode()).hexdigest()[:12]
    names = tuple(sorted({phrase for sample in kept for phrase in sample.phrases()}))
    return Pairs(source, len(kept), f"{name} ({digest}), {len(kept)} images", names)
