"""What an adapter is trained on: composites made on the fly, or a folder of them, and held-out ones to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from wherein.data import read_coco
from wherein.errors import InputError
from wherein.journal import stamp_of
from wherein.synth import (
    AUGMENTED,
    Backgrounds,
    ComposeConfig,
    ObjectBank,
    Scenes,
    Shards,
    is_held_out,
    may_be_held_out,
)
from wherein.synth.scene import Preset
from wherein.synth.shards import SHARD_INDEX
from wherein.training.store import Labelled, Source

ANNOTATIONS = "annotations.json"
HELD_OUT_SEED = 1_000_003  # beside the seed of training, so that no image of one is an image of the other


@dataclass(frozen=True)
class Sources:
    """Labelled images to train on and to validate with.

    train: `images` of them, and the names that may be asked for as absent · held_out: composites of categories of COCO
    and VOC, without end, and their names · about: what both depend on, for caches and the model card · licences: of
    what is trained on, for the card.
    """

    train: Source
    images: int
    names: tuple[str, ...]
    held_out: Source
    held_out_names: tuple[str, ...]
    about: dict[str, Any]
    licences: str


@dataclass(frozen=True)
class Material:
    """What images to train on are made of, looked through before there is a model.

    bank: cut-outs, and `own`, the names of those that were given · grounds: backgrounds · composites: a folder of ready
    ones, if any, and `given`: what `labelled` says of it.
    """

    bank: ObjectBank
    own: tuple[str, ...]
    grounds: Backgrounds
    composites: Path | None
    given: tuple[Source, int, tuple[str, ...]] | None

    @classmethod
    def found(
        cls, composites: Path | None = None, objects: Path | None = None, backgrounds: Path | None = None
    ) -> Material:
        """The package's cut-outs and those in the folder `objects`; the package's backgrounds, or those in a folder.

        Raises InputError for a folder that is not there, or holds nothing of what it should, or a background that
        cannot be used.
        """
        for folder in (composites, objects, backgrounds):
            if folder is not None and not folder.is_dir():
                raise InputError(f"{folder} is not a folder.")
        own = ObjectBank.from_folder(objects) if objects else ObjectBank(())
        grounds = Backgrounds.from_folder(backgrounds) if backgrounds else Backgrounds.load()
        if backgrounds and (bad := grounds.complaints(os.cpu_count() or 1)):
            raise InputError(
                f"{len(bad)} of {grounds.count} backgrounds cannot be used, remove them; the first: {bad[0]}"
            )
        given = labelled(composites) if composites else None
        return cls(ObjectBank.load() + own, own.names, grounds, composites, given)


def sources(
    material: Material, side: int, min_objects: int, images: int, seed: int, keep_held_out: bool = False
) -> Sources:
    """Images of `side` pixels with at least `min_objects` things: composites made on the fly, or those that were given.

    `keep_held_out`: paste the categories of COCO and VOC, too.
    """
    bank, grounds = material.bank, material.grounds
    about: dict[str, Any] = {
        "seed": seed,
        **drawn_from(bank, grounds),
        "composites": material.composites,
        "min_objects": min_objects,
        **({"keep_held_out": True} if keep_held_out else {}),
    }
    other = bank.keep(lambda cutout: is_held_out(cutout.name))
    held_out = composed(other, grounds, side, seed + HELD_OUT_SEED, AUGMENTED)
    if material.composites is not None and material.given is not None:
        source, images, names = material.given
        known = about | _kept_with(material.composites, names)
        return Sources(source, images, names, held_out, other.names, known, "as of the composites that were given")
    kept = bank if keep_held_out else bank.without(may_be_held_out)
    about["names"] = len(kept.names)  # of a bank, others are kept where the table of categories is another
    source = composed(kept, grounds, side, seed, replace(AUGMENTED, min_objects=min_objects))
    return Sources(source, images, kept.names, held_out, other.names, about, kept.licences)


def drawn_from(bank: ObjectBank, grounds: Backgrounds) -> dict[str, str]:
    """What composites are made of, for people and for caches: another picture is another cache."""
    return {
        "objects": f"{len(bank)} cut-outs ({bank.fingerprint})",
        "backgrounds": f"{grounds.count} pictures ({grounds.fingerprint})",
    }


def composed(bank: ObjectBank, grounds: Backgrounds, side: int, seed: int, config: ComposeConfig) -> Source:
    """Composite i, a function of the seed and i only."""
    scenes = Scenes(bank, grounds, side, seed, Preset(config))

    def source(i: int) -> Labelled:
        """Composite `i`: a function of the seed and `i` alone."""
        made, _ = scenes.begin(i)
        return Labelled(made.image, tuple((thing.name, thing.box) for thing in made.objects))

    return source


def labelled(folder: Path) -> tuple[Source, int, tuple[str, ...]]:
    """Composites from a folder that `wherein compose` wrote, or one with annotations.json and images/: (source, how
    many, names)."""
    if (folder / SHARD_INDEX).is_file():
        return stored(folder)
    read = read_coco(folder / ANNOTATIONS, folder / "images")
    every = (replace(one, objects=tuple(thing for thing in one.objects if thing.has_area)) for one in read)
    samples = [sample for sample in every if sample.objects]
    if not samples:
        raise InputError(f"{folder} holds no labelled image: expected annotations.json in COCO format and images/.")

    def source(i: int) -> Labelled:
        """Sample `i` of the folder."""
        image = samples[i].boxed()
        return Labelled(image, tuple((thing.phrase, thing.box) for thing in samples[i].objects))

    return source, len(samples), tuple(sorted({thing.phrase for sample in samples for thing in sample.objects}))


def stored(folder: Path) -> tuple[Source, int, tuple[str, ...]]:
    """Composites that `wherein compose` wrote: each object is asked for by one of the phrases that mean it alone, and
    the name that the composite says is true of none is asked for as absent."""
    shards = Shards(folder)

    def source(i: int) -> Labelled:
        """Composite `i`."""
        scene, rng = shards[i], np.random.default_rng(i)
        things = zip(scene.composite.objects, scene.phrases, strict=True)
        asked = tuple((phrases[rng.integers(len(phrases))], thing.box) for thing, phrases in things if phrases)
        return Labelled(scene.composite.image, asked, scene.absent)

    return source, len(shards), shards.names


def _kept_with(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """What is to be known of composites of the user's: which they are, where that is written, and whether categories of
    COCO and VOC are among them."""
    shards, annotations = folder / SHARD_INDEX, folder / ANNOTATIONS
    digest = sha256((shards if shards.is_file() else annotations).read_bytes())  # an index has its shards' own digests
    if not shards.is_file():
        pictures = sorted(file for file in (folder / "images").rglob("*") if file.is_file())
        digest.update("".join(f"{file.relative_to(folder)} {stamp_of(file)}\n" for file in pictures).encode())
    return {"listed": digest.hexdigest()[:16], **({"keep_held_out": True} if any(map(is_held_out, names)) else {})}
