"""A frozen model shown worked examples, and a box drawn from them without any model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray

from wherein.boxtext import CODECS
from wherein.grounding import Grounding
from wherein.methods.base import Method, register
from wherein.methods.in_context.examples import Example, composites
from wherein.methods.text import answers
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.prefix import Prefix

SHOTS, DRAWN = 5, 10  # examples that a model is shown, and that a random box is drawn from


@register
class InContext(Method):
    """One box a phrase, if the model writes one behind `examples` of it; free decoding, so it may be invalid.

    For models that take several images with text between them. The examples are run once.
    """

    name = "in_context"
    baseline = True
    score_kind = "none"

    def __init__(self, vlm: FrozenVLM, examples: Sequence[Example] | None = None) -> None:
        """`examples`: None for five composites. Raises InputError for a model that takes one image only."""
        super().__init__(vlm)
        vlm.check_interleaves()
        self.examples = composites(SHOTS, vlm.size[0], seed=0) if examples is None else examples

    @cached_property
    def _shown(self) -> Prefix:
        vlm, codec, shown = self.vlm, CODECS[self.vlm.codec], []
        for example in self.examples:
            pixels, (frame,) = vlm.prepare([example.image])
            box = frame.to_model(example.box[None])[0]
            answer = codec.encode(box, frame.model_width, frame.model_height)
            question = vlm.locate_prompt.format(phrase=noun_phrase(example.phrase))
            shown.append((vlm.features(pixels), f"{question} {answer}{vlm.example_end}"))
        return vlm.examples(shown)

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """Ask for each phrase in the words of the examples."""
        pixels, frames = self.vlm.prepare([image])
        with self.vlm.lock, torch.inference_mode():
            prefix = self.vlm.prefix(self.vlm.features(pixels), frames, before=self._shown)
            return answers(self.vlm, prefix, frames[0], phrases, stop=self.vlm.example_end)


@register
class Random(Method):
    """Answers a phrase with the box of one of `examples`, drawn at random; never absent, its score says nothing.

    The draw depends on the phrase, the image and the seed alone, not on what was asked before.
    """

    name = "random"
    baseline = True
    score_kind = "constant"

    def __init__(self, vlm: FrozenVLM, examples: Sequence[Example] | None = None, seed: int = 0) -> None:
        """`examples`: None for ten composites."""
        super().__init__(vlm)
        chosen = composites(DRAWN, vlm.size[0], seed) if examples is None else examples
        sides = np.array([[*example.image.shape[1::-1]] * 2 for example in chosen])
        self.boxes, self.seed = np.stack([example.box for example in chosen]) / sides, seed

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """A box, in fractions of its own image, on this image."""
        height, width = image.shape[:2]
        drawn = []
        for phrase in phrases:
            digest = sha256(image.tobytes() + phrase.encode()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
            box = self.boxes[rng.integers(len(self.boxes))][None] * ([width, height] * 2)
            drawn.append(Grounding(phrase, box, np.array([0.5]), self.score_kind, False, None))
        return drawn
