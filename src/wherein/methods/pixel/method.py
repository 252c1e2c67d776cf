"""A trained pixel-aligned model on the default VLM's parts, as a method: the box behind a phrase's last word.

Notable choices:
- the adapter holds what was trained, and the VLM's weights, which it shares, stay as they are: outside this method
  nothing of it is to be seen
- what the VLM's encoder says of an image is all it needs, so it shares that, too
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from wherein.errors import AdapterError, InputError
from wherein.geometry import clip
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method, register
from wherein.methods.insert import built_in
from wherein.vlm.base import FrozenVLM
from wherein.vlm.default import DefaultVLM

if TYPE_CHECKING:
    from wherein.methods.pixel.captions import Caption, Region
    from wherein.methods.pixel.model import PixelLM
    from wherein.methods.pixel.reader import PixelReader, Seen

SETTINGS = (
    "tokens",
    "extractor_depth",
    "extractor_dim",
    "extractor_out",
    "lora_rank",
    "lora_scale",
    "lora_targets",
    "points_per_token",
    "point_dim",
    "proposal_dim",
    "carries",
)
"""What an adapter says of its model; the rest follows from the VLM."""


@register
class Pixel(Method):
    """One box a phrase, never absent; the score is the mean probability of the phrase's words for this image.

    It describes, too: the image with a place for every word, places in it, and what it proposes by itself.
    """

    name = "pixel"
    score_kind = "phrase_probability"
    takes_adapter = True
    built_in_only = True

    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None) -> None:
        super().__init__(vlm)
        if adapter is not None:
            self._bind(adapter)
            return
        place = built_in(self.name, _default(vlm).name)
        if place is None:
            raise AdapterError(f"No {self.name} is built in for {vlm.name}: name one with --adapter, or train it.")
        with as_file(place) as folder:
            self._bind(folder)

    def _bind(self, adapter: str | Path) -> None:
        settings, weights = store.load(adapter, self.name, self.vlm)
        if unknown := sorted(set(settings) - set(SETTINGS)):
            raise AdapterError(f"The adapter {adapter} has settings that this version does not know: {unknown[0]}.")
        self.reader = begin(self.vlm, **settings)
        store.fill(self.reader.model.kept(), weights, adapter)
        self.reader.model.requires_grad_(False)

    @property
    def proposes(self) -> bool:
        """Whether it proposes boxes by itself, which `dense` needs."""
        return bool(self.reader.model.config.proposal_dim)

    def see(self, image: NDArray[np.uint8]) -> Seen:
        """Run the VLM's encoder on uint8[H, W, 3], once for all that is asked about it."""
        from wherein.methods.pixel.reader import Seen

        pixels, (frame,) = self.vlm.prepare([image])
        with self.vlm.lock, torch.inference_mode():
            return Seen(frame, [self.vlm.features(pixels)])

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """See Method; all phrases share one run of the encoder and are read together."""
        with self.vlm.lock:
            return self.reader.refer(self.see(image), phrases)

    def caption(self, image: NDArray[np.uint8]) -> Caption:
        """A caption of the image, with a place for each of its words."""
        with self.vlm.lock:
            return self.reader.caption(self.see(image))

    def describe(self, image: NDArray[np.uint8], places: Sequence[ArrayLike]) -> list[Region]:
        """A caption of each place: boxes float64[4], xyxy, and points float64[2], in pixels of the image.

        Raises InputError for a place outside the image, and for what is no place.
        """
        from wherein.methods.pixel.captions import Region

        given = _places(places)
        boxes = clip([place for place in given if place.shape == (4,)], image.shape[1], image.shape[0])
        points = [place for place in given if place.shape == (2,)]
        with self.vlm.lock:
            seen = self.see(image)
            boxed = iter(zip(boxes, self.reader.captions_of(seen, boxes), strict=True))
            pointed = iter(zip(points, self.reader.captions_at(seen, points), strict=True))
        regions = []
        for place in given:  # in the order given
            if len(place) == 4:
                box, caption = next(boxed)
                regions.append(Region(caption, box=box))
            else:
                point, caption = next(pointed)
                regions.append(Region(caption, point=point))
        return regions

    def dense(self, image: NDArray[np.uint8]) -> list[Region]:
        """Captions of the boxes that the model proposes, the surest first.

        Raises InputError where the adapter has nothing that proposes.
        """
        with self.vlm.lock:
            return self.reader.dense(self.see(image))


def begin(vlm: FrozenVLM, **settings: Any) -> PixelReader:
    """The untrained model on the default VLM, with its tokenizer: what training starts from; see `parts.of_default`.

    Raises InputError for another VLM.
    """
    from wherein.methods.pixel.parts import of_default
    from wherein.methods.pixel.reader import PixelReader

    own = _default(vlm)
    return PixelReader(of_default(own, **settings), own.tokenizer)


def save(folder: str | Path, model: PixelLM, vlm: FrozenVLM, card: str) -> Path:
    """Write what was trained of a model as an adapter, in half precision, which is half the size."""
    settings = {name: getattr(model.config, name) for name in SETTINGS}
    trained = {name: p.detach().half() for name, p in model.kept().items()}
    return store.save(folder, Pixel.name, vlm, settings, trained, card)


def _places(places: Any) -> list[NDArray[np.float64]]:
    """Boxes float64[4] and points float64[2]. Raises InputError where one is neither."""
    try:
        given = [np.asarray(place, np.float64) for place in places]
    except (TypeError, ValueError):  # no list, no numbers, or numbers in lists of unequal length
        given = [np.empty(0)]
    if any(place.shape not in ((2,), (4,)) for place in given):
        said = " ".join(str(places).split())
        raise InputError(f"Places are a list of boxes [x0, y0, x1, y1] and points [x, y], not {said[:80]}.")
    return given


def _default(vlm: FrozenVLM) -> DefaultVLM:
    if not isinstance(vlm, DefaultVLM):
        raise InputError(f"The method pixel is for the default model's parts here; {vlm.name} is another.")
    return vlm
