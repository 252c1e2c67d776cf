"""Scenes: a composite and what may be asked about it, each a function of the seed and its index alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, GRID, PAPER, REFERRAL, ComposeConfig, Composite, compose
from wherein.synth.negatives import Negatives
from wherein.synth.objects import ObjectBank
from wherein.synth.referral import referrals


@dataclass(frozen=True)
class Preset:
    """How scenes are made: how objects are pasted, and whether phrases speak of positions."""

    config: ComposeConfig
    positions: bool = False


PRESETS = {
    "paper": Preset(PAPER),
    "grid": Preset(GRID),
    "augmented": Preset(AUGMENTED),
    "referral": Preset(REFERRAL, positions=True),
}


@dataclass(frozen=True)
class Scene:
    """A composite; for each of its objects the phrases that are true of it alone; and a name that is true of none."""

    composite: Composite
    phrases: tuple[tuple[str, ...], ...]
    absent: str | None


class Scenes:
    """Scene `i` of a seed, `side` pixels wide: the same whoever asks for it, and in whatever order."""

    def __init__(self, bank: ObjectBank, grounds: Backgrounds, side: int, seed: int, preset: Preset) -> None:
        self.bank, self.grounds, self.side, self.seed, self.preset = bank, grounds, side, seed, preset
        self._negatives = Negatives(bank.names)

    def begin(self, index: int) -> tuple[Composite, np.random.Generator]:
        """The composite alone, and the generator from which whatever may be asked about it is drawn.

        Raises InputError: a cut-out or a background cannot be used.
        """
        rng = np.random.default_rng([self.seed, index])
        return compose(self.grounds.sample(rng, self.side), self.bank, rng, self.preset.config), rng

    def __getitem__(self, index: int) -> Scene:
        """Raises InputError: a cut-out or a background cannot be used."""
        made, rng = self.begin(index)
        phrases = referrals(made.objects, self.side, self.preset.positions)
        return Scene(made, tuple(phrases), self._negatives.draw(made.objects, rng))
