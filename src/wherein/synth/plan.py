"""What a set of composites is made of: everything that decides its bytes, and nothing that does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from wherein.errors import InputError
from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import compose
from wherein.synth.holdout import may_be_held_out
from wherein.synth.objects import Cutout, ObjectBank
from wherein.synth.scene import PRESETS, Preset, Scenes

IMAGES = ("jpg", "webp")
"""Formats of the images in a shard: JPEG at quality 95, WebP at quality 90 (half the bytes, nine times the work)."""


@dataclass(frozen=True)
class Plan:
    """`count` composites of a preset, `side` pixels wide.

    objects, backgrounds: folders that take the place of the bank and the pictures in the package; keep_held_out: also
    objects of COCO's and VOC's categories; per_shard: composites in a shard; image: one of `IMAGES`; soft, jitter:
    those of `ComposeConfig` instead of the preset's.
    """

    count: int
    preset: str = "paper"
    side: int = 224
    seed: int = 0
    objects: Path | None = None
    backgrounds: Path | None = None
    keep_held_out: bool = False
    per_shard: int = 1000
    image: str = "jpg"
    soft: float | None = None
    jitter: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"There is no preset {self.preset!r} of composites: choose {', '.join(PRESETS)}.")
        if self.image not in IMAGES:
            raise InputError(f"There is no image format {self.image!r} for shards: choose {' or '.join(IMAGES)}.")
        if min(self.count, self.side, self.per_shard) < 1 or self.seed < 0:
            raise InputError(
                "A plan needs a count, a side and a size of shards of 1 or more, and a seed of 0 or more; "
                f"got {self.count}, {self.side}, {self.per_shard} and {self.seed}."
            )
        for folder in (self.objects, self.backgrounds):
            if folder is not None and not folder.is_dir():
                raise InputError(f"{folder} is not a folder.")
        _ = self.made  # complains of soft or jitter

    @property
    def made(self) -> Preset:
        """How the scenes are made: the preset, but for what is asked for instead."""
        preset = PRESETS[self.preset]
        soft = preset.config.soft if self.soft is None else self.soft
        jitter = preset.config.jitter if self.jitter is None else self.jitter
        return replace(preset, config=replace(preset.config, soft=soft, jitter=jitter))

    @property
    def shards(self) -> int:
        """How many shards hold the composites."""
        return -(-self.count // self.per_shard)

    def indices(self, shard: int) -> range:
        """The composites of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def open(self) -> Scenes:
        """The scenes of this plan; of folders, only the names of files are read.

        Raises:
            InputError: a folder holds nothing to use.
        """
        bank = ObjectBank.from_folder(self.objects) if self.objects else ObjectBank.load()
        kept = bank if self.keep_held_out else bank.without(may_be_held_out)
        if not len(kept):
            raise InputError(
                "Every cut-out belongs to a category of COCO or VOC, held out for tests: see --keep-held-out."
            )
        grounds = Backgrounds.from_folder(self.backgrounds) if self.backgrounds else Backgrounds.load()
        return Scenes(kept, grounds, self.side, self.seed, self.made)

    def settings(self, scenes: Scenes) -> dict[str, Any]:
        """What a shard's bytes follow from; of folders, what is in them and not where they are.

        Raises:
            ImageError: a picture cannot be read.
        """
        made_of = {"objects": scenes.bank.fingerprint, "backgrounds": scenes.grounds.fingerprint}
        made_by = {"pillow": PIL.__version__, "numpy": np.__version__}
        return {**asdict(self), **made_of, **made_by, "names": scenes.bank.names}

    def check(self, scenes: Scenes, threads: int) -> None:
        """Use every picture of the user's own once, rather than fail on one of them days later.

        Raises:
            InputError: some cannot be used; it counts them and names the first.
        """
        cutouts = list(scenes.bank) if self.objects else []
        with ThreadPoolExecutor(threads) as pool:
            complaints = [complaint for complaint in pool.map(self._complaint, cutouts) if complaint]
        looked = len(cutouts)
        if self.backgrounds:
            complaints += scenes.grounds.complaints(threads)
            looked += scenes.grounds.count
        if complaints:
            raise InputError(
                f"{len(complaints)} of {looked} pictures cannot be used, remove them; the first: {complaints[0]}"
            )

    def _complaint(self, cutout: Cutout) -> str | None:
        """What is wrong with a cut-out, by using it."""
        try:
            self._compose_alone(cutout)
        except InputError as error:
            return str(error)
        return None

    def _compose_alone(self, cutout: Cutout) -> None:
        """One object on black, at fewer sizes than a composite may try: what fits barely would not fit some day."""
        alone = replace(self.made.config, min_objects=1, max_objects=1, pairs=0.0, tries=5)
        compose(np.zeros((self.side, self.side, 3), np.uint8), ObjectBank([cutout]), np.random.default_rng(0), alone)
