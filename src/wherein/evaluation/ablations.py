"""Localisation heads under other choices: how many, chosen how, smoothed and cut off how. One table a question.

All variants that ask the model the same thing share one run of it: every head's maps of an image are worked out once,
and each variant reads its own heads off them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.grounding import Grounding
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.criteria import attention_sum, spatial_entropy
from wherein.methods.heads.maps import Maps
from wherein.methods.heads.method import Heads
from wherein.methods.heads.selection import FIRST, Head
from wherein.vlm.base import FrozenVLM

Choose = Callable[[Maps, Maps], Sequence[Head]]  # (attention, what is read of it) float[L, H, R, C] of one phrase
MOST = 5  # heads of the table "k"
SIGMAS, KERNELS = (0.0, 0.4, 0.8, 1.0, 1.4, 1.8), (1, 3, 5, 7, 9, 11)


@dataclass(frozen=True)
class Asked:
    """Every head's maps for the phrases of one image: attention and what is read of it, float[P, L, H, R, C]."""

    canvas: Canvas
    maps: Maps
    seen: Maps


class Shared:
    """A model asked in one way, for all heads; an image that was just asked about is not run again."""

    def __init__(self, vlm: FrozenVLM, config: HeadsConfig) -> None:
        self.method = Heads(vlm, config=config)
        self._last: tuple[NDArray[np.uint8], tuple[str, ...], Asked] | None = None

    def ask(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> Asked:
        """What all heads see in image uint8[H, W, 3] for each phrase."""
        key = tuple(phrases)
        if self._last is None or self._last[0] is not image or self._last[1] != key:
            self._last = image, key, Asked(*self.method.look(image, phrases, every_head=True))
        return self._last[2]


class Variant:
    """One row of a table, what `evaluation.protocols.run` asks: heads fixed or chosen for each phrase, read in one way.

    choose: None for the heads of the settings · facts: what the choice depends on besides them.
    """

    def __init__(
        self, name: str, shared: Shared, config: HeadsConfig, choose: Choose | None = None, facts: str = ""
    ) -> None:
        self.name, self.shared, self.choose, self.facts = name, shared, choose, facts
        self.method = Heads(shared.method.vlm, config=config)

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """The box of each phrase, by this variant's heads."""
        asked = self.shared.ask(image, phrases)
        found = []
        for phrase, maps, seen in zip(phrases, asked.maps, asked.seen, strict=True):
            heads = self.method.config.heads if self.choose is None else self.choose(maps, seen)
            layers, numbers = zip(*heads, strict=True)
            found.append(self.method.answer(phrase, asked.canvas, maps[layers, numbers], seen[layers, numbers], absent))
        return found


def table(name: str, vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """The rows of a table for settings with their heads, and the `facts` of how these were found.

    Raises InputError for a table that there is not, or that needs facts which are not known.
    """
    if name not in TABLES:
        raise InputError(f"There is no table {name!r}: choose {', '.join(TABLES)}.")
    return TABLES[name](vlm, config, facts)


def _k(vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """One to five heads."""
    order = [(int(each["layer"]), int(each["head"])) for each in facts.get("heads", [])] or list(config.heads)
    shared = Shared(vlm, config)
    return [
        Variant(f"k={k}", shared, replace(config, heads=tuple(order[:k]))) for k in range(1, min(MOST, len(order)) + 1)
    ]


def _criteria(vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """Each criterion and both, heads fixed by frequency or chosen for each phrase."""
    if "tau" not in facts or "sum only" not in facts:
        raise InputError("The table of criteria needs heads found by `wherein heads find`: name their file.")
    if facts.get("by") != "criteria":
        raise InputError("The table of criteria needs heads found by the criteria; those of this file know the boxes.")
    shared, k, tau = Shared(vlm, config), len(config.heads), float(facts["tau"])

    def fixed(which: str) -> HeadsConfig:
        """The settings with heads that one criterion alone chose."""
        if len(facts[which]) < k:
            raise InputError(f"The file lists {len(facts[which])} heads of {which!r}, and it has {k}: find them anew.")
        return replace(config, heads=tuple((int(layer), int(head)) for layer, head in facts[which][:k]))

    return [
        Variant("sum only, greedy", shared, config, lambda maps, _: _best(-attention_sum(maps), k)),
        Variant("sum only, fixed", shared, fixed("sum only")),
        Variant("entropy only, greedy", shared, config, lambda _, seen: _best(spatial_entropy(seen), k)),
        Variant("entropy only, fixed", shared, fixed("entropy only")),
        Variant("both, greedy", shared, config, lambda maps, seen: _best_kept(maps, seen, tau, k), str(tau)),
        Variant("both, fixed", shared, config),
    ]


def _sigma(vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """Widths of the smoothing."""
    shared = Shared(vlm, config)
    return [Variant(f"sigma={sigma}", shared, replace(config, sigma=sigma)) for sigma in SIGMAS]


def _kernel(vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """Sizes of the kernel, at the published width."""
    shared = Shared(vlm, config)
    return [Variant(f"kernel={kernel}", shared, replace(config, sigma=1.0, kernel=kernel)) for kernel in KERNELS]


def _reading(vlm: FrozenVLM, config: HeadsConfig, facts: dict[str, Any]) -> list[Variant]:
    """The published way to read a map, each option that it leaves open, and the settings as they are."""
    published = HeadsConfig(config.heads, prompt=config.prompt)
    neutral = config.references or ("thing", "object", "picture")
    changes: dict[str, dict[str, Any]] = {
        "published": {},
        "scale sum": {"scale": "sum"},
        "scale range": {"scale": "range"},
        "zoom 4": {"zoom": 4},
        "otsu": {"threshold": "otsu"},
        "threshold 0.4": {"threshold": 0.4},
        "against neutral phrases": {"references": neutral},
        "with the mirror image": {"mirrored": True},
        "all phrases in one sentence": {"together": True},
        "first word of the answer": {"steps": 1},
    }
    rows = [(name, replace(published, **change)) for name, change in changes.items()]
    rows.append(("as saved", config))
    asking: dict[tuple[Any, ...], Shared] = {}
    made = []
    for name, settings in rows:
        way = settings.references, settings.together, settings.steps, settings.mirrored
        made.append(Variant(name, asking.setdefault(way, Shared(vlm, settings)), settings))
    return made


TABLES = {"k": _k, "criteria": _criteria, "sigma": _sigma, "kernel": _kernel, "reading": _reading}


def _best(figures: NDArray[Any], k: int) -> list[Head]:
    """The `k` heads of the lowest float[L, H], the first layers out."""
    counted = np.asarray(figures, np.float64).copy()
    counted[:FIRST] = np.inf
    order = np.argsort(counted, axis=None, kind="stable")[:k]
    return [(int(i) // figures.shape[1], int(i) % figures.shape[1]) for i in order]


def _best_kept(maps: Maps, seen: Maps, tau: float, k: int) -> list[Head]:
    """The `k` heads of the lowest entropy among those that look at the image enough; then those that look at it most.

    A head that does not reach tau never wins by its entropy (bug L-5: there, in any order).
    """
    sums = attention_sum(maps)
    kept = [head for head in _best(spatial_entropy(seen), sums.size) if head[0] >= FIRST and sums[head] >= tau]
    return [*kept, *(head for head in _best(-sums, sums.size) if head not in kept)][:k]
