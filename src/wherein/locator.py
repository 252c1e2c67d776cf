"""The locator: one image and some phrases in, one answer out.

Notable choices:
- phrases are checked before the image is read, and method, adapter and segmenter before the model is loaded, so that a
  wrong call fails at once
- an answer keeps the pixels it is about, so that it can be drawn without reading the image again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein import images
from wherein.errors import InputError
from wherein.grounding import Grounding
from wherein.phrases import check_phrases

if TYPE_CHECKING:
    import supervision

    from wherein.methods import Method
    from wherein.segment import Refined

Source = str | Path | bytes | Image.Image | NDArray[Any]  # whatever `wherein.images.load` reads
SCHEMA = 1  # of Answer.to_dict(); raised when a key is renamed, removed or changes its meaning, not when one is added


@dataclass(frozen=True, eq=False)
class Answer:
    """Where some phrases are on one image; boxes are xyxy in pixels of that image after its EXIF rotation.

    Attributes:
        image: the path as given; None for an image from memory.
        width, height: of the image, pixels.
        model, method: the names of what answered; never "auto".
        adapter: the adapter as given; None where the method needs none or uses its built-in one.
        groundings: one for each phrase, in the order of the phrases.
        pixels: uint8[H, W, 3], the image.
        visible: x0, y0, x1, y1 of the part of the image that the model was shown, where its preprocessing crops; None
            where it saw all of it.
    """

    image: str | None
    width: int
    height: int
    model: str
    method: str
    adapter: str | None
    groundings: list[Grounding]
    pixels: NDArray[np.uint8] = field(repr=False)
    visible: tuple[float, float, float, float] | None = None

    @property
    def truncated(self) -> bool:
        """Whether a part of the image was cut away before the model saw it: what is there cannot be found."""
        return self.visible is not None

    def to_dict(self) -> dict[str, Any]:
        """This answer as plain Python values, ready for `json.dumps`; docs/json.md describes every key."""
        return {
            "schema": SCHEMA,
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "truncated": self.truncated,
            "visible": list(self.visible or (0.0, 0.0, float(self.width), float(self.height))),
            "model": self.model,
            "method": self.method,
            "adapter": self.adapter,
            "groundings": [grounding.to_dict() for grounding in self.groundings],
        }

    def to_detections(self) -> supervision.Detections:
        """The boxes of all phrases as N detections of `supervision`; an absent phrase contributes none.

        `xyxy` float64[N, 4] in pixels of the image, `confidence` float64[N], `class_id` int64[N] the index of the
        phrase in the call, `data["phrase"]` str[N].
        """
        from supervision import Detections

        owners = [index for index, grounding in enumerate(self.groundings) for _ in grounding.boxes]
        return Detections(
            xyxy=np.concatenate([np.empty((0, 4)), *(grounding.boxes for grounding in self.groundings)]),
            confidence=np.concatenate([np.empty(0), *(grounding.scores for grounding in self.groundings)]),
            class_id=np.array(owners, dtype=np.int64),
            data={"phrase": np.array([self.groundings[owner].phrase for owner in owners], dtype=np.str_)},
        )

    def draw(self, masks: bool = False) -> NDArray[np.uint8]:
        """uint8[H, W, 3], the image with the boxes, phrases and scores drawn on it; with the masks, where there are any
        and they are wanted.
        """
        from wherein import drawing

        return drawing.draw(self.pixels, self.groundings, masks=masks)

    def draw_heat(self) -> NDArray[np.uint8]:
        """uint8[H', W', 3], a panel a phrase: the image with what speaks for the phrase, as a heat map over it.

        Raises:
            InputError: there is no heat map.
        """
        from wherein import overlay
        from wherein.methods import giving

        if all(grounding.heatmap is None for grounding in self.groundings):
            others = " or ".join(giving("heatmap", self.model))
            raise InputError(f"The method {self.method} gives no heat maps: use {others}.")
        return overlay.heat_sheet(self.pixels, self.groundings)


class Locator:
    """A loaded model and method that answer where phrases are on images."""

    def __init__(
        self,
        model: str | Path = "default",
        method: str = "auto",
        adapter: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        bits: int | None = None,
        size: int | None = None,
        segmenter: str | Path | None = None,
    ) -> None:
        """Load `model` and `method`.

        Args:
            model: "default", the built-in model, or the Hub id or folder of another one.
            method: "auto", the best measured for the model, or one of `wherein.methods.names()`.
            adapter: a saved adapter for this model and method; None for the built-in one where there is one.
            device, dtype, bits, size: where and how to hold the model, see `wherein.vlm.load_vlm`.
            segmenter: Hub id or folder of a SAM or SAM 2 that tightens the boxes and gives masks; None for none.

        Raises:
            InputError: an option is neither a text nor a path, there is no such method, model or device, or the method
                works on the built-in model alone.
            AdapterError: the adapter is missing, corrupted, or was made for another model or method.
            PartsError: a part of the default model is neither cached nor can be fetched.
        """
        from wherein.methods import check, create
        from wherein.segment import Refined, Segmenter
        from wherein.vlm import load_vlm

        model, method, device = _text("model", model), _text("method", method), _text("device", device)
        self.adapter = None if adapter is None else _text("adapter", adapter)
        check(method, model, adapter)
        sam = None if segmenter is None else Segmenter(_text("segmenter", segmenter), device)
        self.vlm = load_vlm(model, device, dtype, bits, size)
        bound = create(method, self.vlm, adapter)
        self.method: Method | Refined = bound if sam is None else Refined(bound, sam)

    def locate(self, image: Source, phrases: str | Sequence[str], every: bool = False) -> Answer:
        """Locate one phrase or several on one image.

        Args:
            image: a path, encoded bytes, a PIL image, or uint8[H, W, 3] (`wherein.images.load`).
            phrases: what to look for; white space around a phrase is dropped.
            every: give a box for each instance of a phrase, not only the best.

        Raises:
            InputError: a phrase is unusable (`check_phrases`), or holds a special token of the model; every instance
                is asked for, and the method tells no instances apart.
            ImageError: the image is unusable (`wherein.images.load`), or of a shape that the model cannot take.
        """
        if every:
            check_every(self.method)
        checked = check_phrases(phrases)
        for phrase in checked:
            self.vlm.check_phrase(phrase)
        pixels = images.load(image)
        groundings = self.method.ground(pixels, checked, every=every)
        height, width = pixels.shape[:2]
        frame = self.vlm.frame_of(width, height)
        return Answer(
            image=str(image) if isinstance(image, str | Path) else None,
            width=width,
            height=height,
            model=self.vlm.name,
            method=self.method.name,
            adapter=self.adapter,
            groundings=groundings,
            pixels=pixels,
            visible=frame.visible if frame.truncated([[0, 0, width, height]])[0] else None,
        )

    def locate_many(
        self, sources: Iterable[Source], phrases: str | Sequence[str], every: bool = False
    ) -> Iterator[Answer]:
        """Locate the same phrases on many images, one at a time as the answers are asked for.

        Each answer holds its image: keep `to_dict()`, not the answers, when there are many. An unreadable image raises
        ImageError and ends the iteration; to go on after one, call `locate` for each image.
        """
        return (self.locate(source, phrases, every) for source in sources)


def check_every(method: Method | Refined | type[Method]) -> None:
    """Raise InputError for a method that does not tell several instances of a phrase apart."""
    if not method.finds_every:
        raise InputError(f"The method {method.name} gives one box a phrase: for every instance, use heads.")


def _text(option: str, given: object) -> str:
    """A name or a path as a text. Raises InputError where it is neither."""
    if not isinstance(given, str | Path):
        raise InputError(f"The {option} must be a text or a path, not {type(given).__name__}.")
    return str(given)
