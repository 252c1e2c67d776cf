"""A method whose boxes a segmenter tightens. What is evaluated and drawn as a row of its own, beside the raw boxes.

The paper of the localisation heads gets its masks this way, and perhaps its boxes too: its published numbers are out of
reach of the raw ones, so both belong in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wherein.grounding import Grounding
from wherein.segment.segmenter import Encoded, Segmenter, check_prompt

if TYPE_CHECKING:
    from wherein.methods.base import Method  # a room of the same floor: named, never imported


class Refined:
    """A method whose boxes a segmenter tightens: what `evaluation.protocols.Grounder` asks for.

    Attributes:
        name: of the method and the kind of segmenter, "heads+sam"; with the prompt where it is not the box alone,
            "heads+sam[box+points]" · finds_every, gives, score_kind: as the method's; it always gives
            masks.
        method, segmenter, prompt: as given.
    """

    def __init__(self, method: Method, segmenter: Segmenter, prompt: str = "box") -> None:
        """`prompt` is one of `wherein.segment.PROMPTS`. Raises InputError where it is not."""
        check_prompt(prompt)
        self.method, self.segmenter, self.prompt = method, segmenter, prompt
        self.name = f"{method.name}+{segmenter.kind}" + ("" if prompt == "box" else f"[{prompt}]")
        self.finds_every, self.gives = method.finds_every, method.gives | {"mask"}
        self.score_kind = method.score_kind

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """The method's groundings on image uint8[H, W, 3], each with a mask and with boxes tight around it.

        A grounding's `mask` bool[H, W] is the union of the masks of its boxes, and each box the tight box of its own
        mask; a box whose mask is empty stays as it is. All else is the method's own. An absent or invalid grounding
        passes as it is, and where there is no other, the segmenter does not run.

        Raises:
            InputError: the prompt needs a heat map and the method gives none.
            ImageError: the image is too long and thin for the segmenter, or for the method's model.
        """
        groundings = self.method.ground(image, phrases, absent, every)
        if not any(_has_boxes(grounding) for grounding in groundings):
            return groundings
        encoded = self.segmenter.encode(image)
        return [self._tightened(g, encoded) if _has_boxes(g) else g for g in groundings]

    def _tightened(self, grounding: Grounding, encoded: Encoded) -> Grounding:
        masks, _ = self.segmenter.decode(encoded, grounding.boxes, grounding.heatmap, self.prompt)
        boxes = [tight_box(mask) if mask.any() else box for mask, box in zip(masks, grounding.boxes, strict=True)]
        return replace(grounding, boxes=np.stack(boxes), mask=np.asarray(masks.any(axis=0)))


def tight_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The box float64[4], xyxy, around all pixels of a mask bool[H, W] that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _has_boxes(grounding: Grounding) -> bool:
    return not grounding.absent and not grounding.invalid
