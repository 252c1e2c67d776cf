"""heads: where a few attention heads of the frozen model look when they read the phrase (CVPR'25).

Nothing is trained. A file names the heads; the row of the phrase's last token becomes a map, a mask and a box.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from wherein.errors import AdapterError
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method, register
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.maps import Maps, Pieces, attention_maps, separate, together
from wherein.methods.heads.reading import Region, binarise, doubt, enlarge, evidence, regions, scaled, smooth
from wherein.phrases import mirrored
from wherein.vlm.base import FrozenVLM

SMALLEST = 0.25  # of the largest hull: what is smaller is no instance of its own
PUBLISHED = "published.json"


@register
class Heads(Method):
    """Localisation heads bound to a VLM. One box a phrase, the largest region's; with `every`, one for each region, the
    one with the largest share first.

    score_kind "attention_share": the share of the heads' combined map that lies in the region.
    """

    name = "heads"
    score_kind = "attention_share"
    takes_adapter = True
    finds_every = True
    gives = frozenset({"heatmap", "mask"})

    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None, config: HeadsConfig | None = None) -> None:
        """`config`: settings made by hand, instead of those in a file."""
        super().__init__(vlm)
        self.config = config or known(vlm, adapter)[0]
        self._canvas = lru_cache(maxsize=16)(lambda width, height: Canvas(vlm, vlm.frame_of(width, height)))

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """The region that the heads look at for each phrase; all phrases share one run of the encoder and the image."""
        if not phrases:
            return []
        canvas, maps, seen = self.look(image, phrases)
        each = zip(phrases, maps, seen, strict=True)
        return [self.answer(phrase, canvas, own, heat, absent, every) for phrase, own, heat in each]

    def look(
        self, image: NDArray[np.uint8], phrases: Sequence[str], every_head: bool = False
    ) -> tuple[Canvas, Maps, Maps]:
        """Where maps of image uint8[H, W, 3] lie, the heads' attention for P phrases, and what is read of it.

        Maps are float32[P, K, R, C]; of `every_head` of the model float32[P, L, H, R, C].
        """
        config = self.config
        heads = None if every_head else config.heads
        height, width = image.shape[:2]
        maps = []
        with self.vlm.lock:  # the model's attention is switched while it is read
            canvas = self._canvas(width, height)
            for view, spoken in _views(image, phrases, config.mirrored):
                x_v = self.vlm.features(self.vlm.prepare([view])[0])
                maps.append(attention_maps(self.vlm, x_v, canvas, self._texts(spoken), heads, config.steps))
        maps[1:] = [canvas.mirror(view) for view in maps[1:]]
        asked = np.mean([view[: len(phrases)] for view in maps], 0)
        if not config.references:
            return canvas, asked, asked
        seen = np.mean([evidence(view[: len(phrases)], view[len(phrases) :]) for view in maps], 0)
        return canvas, asked, np.asarray(seen, np.float32)

    def _texts(self, phrases: Sequence[str]) -> list[Pieces]:
        """What is read behind the image: the phrases as the settings say, and the reference phrases."""
        arrange = together if self.config.together else separate
        return [*arrange(self.config.prompt, phrases), *separate(self.config.prompt, self.config.references)]

    def heat(self, seen: Maps) -> Maps:
        """Maps float32[K, R, C] of one phrase, smoothed, scaled, added up and enlarged: float32[R', C']."""
        config = self.config
        smoothed = scaled(smooth(seen, config.sigma, config.kernel), config.scale)
        return np.asarray(enlarge(smoothed.sum(0), config.zoom), np.float32)

    def answer(
        self, phrase: str, canvas: Canvas, maps: Maps, seen: Maps, absent: bool = True, every: bool = False
    ) -> Grounding:
        """What maps float32[K, R, C] of the heads, as attention and as they are read, say of one phrase."""
        heat = self.heat(seen)
        missing = self.absent_probability(maps, seen)
        gone = absent and missing is not None and missing >= 0.5
        shown = canvas.shown(heat.shape)
        found = [] if gone else instances(heat, self.config.threshold, shown)
        found = sorted(found, key=lambda region: -region.share) if every else found[:1]
        boxes = canvas.to_image(np.array([region.box for region in found]).reshape(-1, 4), heat.shape)
        mask = np.any([region.cells for region in found], axis=0) if found else np.zeros(heat.shape, bool)
        return Grounding(
            phrase,
            boxes,
            np.array([region.share for region in found]),
            self.score_kind,
            gone,
            missing,
            heatmap=canvas.over_image(heat),
            mask=canvas.mask(mask),
            degenerate=any(region.share == 0 for region in found),
        )

    def absent_probability(self, maps: Maps, seen: Maps) -> float | None:
        """The calibrated probability that a phrase is not in the image; None where nothing was calibrated."""
        if not self.config.absent:
            return None
        *weights, constant = self.config.absent
        return float(expit(np.dot(weights, doubt(maps, seen)) + constant))


def instances(heat: Maps, rule: str | float, shown: NDArray[np.bool_]) -> list[Region]:
    """The regions of a map float[R, C] that are instances of their own, the largest hull first; `shown` bool[R, C] are
    the cells of the image, without its border.

    A map without relief there says nothing: its one region is everything, with a share of 0 (LH-9).
    """
    found = regions(heat, binarise(heat, rule) & shown)
    if not found:
        rows, columns = heat.shape
        return [Region(np.array([0.0, 0, columns, rows]), float(heat.size), 0.0, shown)]
    return [region for region in found if region.hull >= SMALLEST * found[0].hull]


def _views(
    image: NDArray[np.uint8], phrases: Sequence[str], both: bool
) -> Iterator[tuple[NDArray[np.uint8], list[str]]]:
    """The image uint8[H, W, 3] with its phrases and, where `both` are read, its mirror image with theirs."""
    yield image, list(phrases)
    if both:
        yield np.ascontiguousarray(image[:, ::-1]), [mirrored(phrase) for phrase in phrases]


def known(vlm: FrozenVLM, adapter: str | Path | None = None) -> tuple[HeadsConfig, dict[str, Any]]:
    """Settings with heads, and the facts of how they were found: of a file, of what ships for the model, or of the list
    that the paper prints for it (which comes without facts).

    Raises AdapterError where there is none, or the file is for another model.
    """
    if adapter is not None:
        settings, _ = store.load(adapter, Heads.name, vlm)
        return HeadsConfig.from_dict(settings), store.found(adapter)
    folder = files("wherein.methods.heads").joinpath("found")
    name = f"{vlm.name}.json"
    if name in {file.name for file in folder.iterdir()}:  # the name may be any path of the user's
        with as_file(folder.joinpath(name)) as path:
            return known(vlm, path)
    for entry in published():
        if _is(vlm, entry["base"]):
            return HeadsConfig.from_dict({"heads": entry["heads"]}), {}
    raise AdapterError(
        f"No heads are known for {vlm.name}: find them with `wherein heads find --model {vlm.name} --out heads.json` "
        "(no labels needed), and name the file with --adapter."
    )


def _is(vlm: FrozenVLM, base: dict[str, Any]) -> bool:
    """Whether a model has the architecture that a published list is for; another language model has other heads."""
    if type(vlm).__name__ != base["class"]:
        return False
    text = vlm.language_model.config.get_text_config()
    shape = text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads, text.hidden_size
    wanted = base["layers"], base["heads"], base["key_value_heads"], base["width"]
    return shape == wanted and text.vocab_size in base["vocabulary"] and list(vlm.grid) == base["grid"]


def published() -> list[dict[str, Any]]:
    """The head lists that the paper prints, not recomputed here: the model's name and architecture, and its heads."""
    entries: list[dict[str, Any]] = json.loads(
        files("wherein.methods.heads").joinpath(PUBLISHED).read_text(encoding="utf-8")
    )["models"]
    return entries
