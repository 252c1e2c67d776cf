"""text: ask the untouched VLM for a box and read what it writes. What every other method is measured against.

A model that was trained to write boxes is asked as it was in training, and read in that format: asked in any other way
it would be a strawman.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wherein.boxforms import PIXELS, native, written
from wherein.boxtext import CODECS
from wherein.geometry import Frame, area
from wherein.grounding import Grounding
from wherein.methods.base import Method, register
from wherein.phrases import head, noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.prefix import Prefix

MAX_TOKENS, MAX_NATIVE = 24, 96  # of an answer; a box in JSON takes some fifty


@register
class Text(Method):
    """One box a phrase, if the model writes one; free decoding, so an answer may be invalid (no box, not absent)."""

    name = "text"
    score_kind = "none"

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """Ask for each phrase as the model was trained to be asked, else in the words an unlocked one is asked in."""
        vlm = self.vlm
        pixels, frames = vlm.prepare([image])
        with vlm.lock, torch.inference_mode():
            prefix = vlm.prefix(vlm.features(pixels), frames, bare=bool(vlm.native_prompt))
            return (own_answers if vlm.native_prompt else answers)(vlm, prefix, frames[0], phrases)


def answers(vlm: FrozenVLM, prefix: Prefix, frame: Frame, phrases: Sequence[str], stop: str = "") -> list[Grounding]:
    """What a model freely writes of each phrase behind the prefix of one image with this Frame, read as boxes.

    `stop`: as of `FrozenVLM.continue_text`.
    """
    prompts = [vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in phrases]
    answered = vlm.continue_text(prefix, [0] * len(prompts), prompts, MAX_TOKENS, stop)
    codec, sides = CODECS[vlm.codec], (frame.model_width, frame.model_height)
    each = zip(phrases, answered, strict=True)
    return [_grounding(phrase, answer, codec.decode(answer, *sides), frame) for phrase, answer in each]


def own_answers(vlm: FrozenVLM, prefix: Prefix, frame: Frame, phrases: Sequence[str]) -> list[Grounding]:
    """The same of a model that was trained to write boxes, behind the image alone; see `FrozenVLM.native`."""
    prompts = [vlm.native_prompt.format(phrase=head(phrase)) + vlm.closing for phrase in phrases]
    answered = vlm.continue_text(prefix, [0] * len(prompts), prompts, MAX_NATIVE)
    convention, sides = native(vlm.native) or PIXELS, (frame.model_width, frame.model_height)
    groundings = []
    for phrase, answer in zip(phrases, answered, strict=True):
        found = written(answer)
        box = None if found is None else found.meaning(convention).box(found.numbers, *sides)
        groundings.append(_grounding(phrase, answer, box, frame))
    return groundings


def _grounding(phrase: str, answer: str, box: NDArray[np.float64] | None, frame: Frame) -> Grounding:
    """An answer with its box float64[4], model pixels; invalid without one, or where all of it is in the padding."""
    boxes = np.empty((0, 4)) if box is None else frame.to_image(box[None])
    boxes = boxes[area(boxes) > 0]
    return Grounding(phrase, boxes, np.ones(len(boxes)), "none", False, None, answer=answer)
