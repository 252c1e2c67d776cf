"""text: ask the untouched VLM for a box and read what it writes. What every other method is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wherein.boxtext import CODECS
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.methods.base import Method, register
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.prefix import Prefix

MAX_TOKENS = 24


@register
class Text(Method):
    """One box a phrase, if the model writes one; free decoding, so an answer may be invalid (no box, not absent)."""

    name = "text"
    score_kind = "none"

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """Ask for each phrase in the words an unlocked model is asked in; what the model answers may be a box."""
        pixels, frames = self.vlm.prepare([image])
        with self.vlm.lock, torch.inference_mode():
            prefix = self.vlm.prefix(self.vlm.features(pixels), frames)
            return answers(self.vlm, prefix, frames[0], phrases)


def answers(vlm: FrozenVLM, prefix: Prefix, frame: Frame, phrases: Sequence[str], stop: str = "") -> list[Grounding]:
    """What a model freely writes of each phrase behind the prefix of one image with this Frame, read as boxes.

    `stop`: as of `FrozenVLM.continue_text`.
    """
    prompts = [vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in phrases]
    groundings, codec = [], CODECS[vlm.codec]
    written = vlm.continue_text(prefix, [0] * len(prompts), prompts, MAX_TOKENS, stop)
    for phrase, answer in zip(phrases, written, strict=True):
        box = codec.decode(answer, frame.model_width, frame.model_height)
        boxes = np.empty((0, 4)) if box is None else frame.to_image(box[None])
        groundings.append(Grounding(phrase, boxes, np.ones(len(boxes)), "none", False, None, answer=answer))
    return groundings
