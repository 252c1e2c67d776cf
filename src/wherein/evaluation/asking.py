"""Asking in words: the fixed prompts of the localisation probe, and a local VLM that answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wherein.boxforms import Convention, native
from wherein.evaluation.transcript import Reply
from wherein.geometry import Frame
from wherein.phrases import head
from wherein.vlm.base import FrozenVLM

PROMPTS = {
    "box": "Provide a bounding box around the {phrase}.",
    "localise": "Localise the {phrase} in the image.",
    "box-list": "Provide a bounding box around the {phrase} as [x_min, y_min, x_max, y_max].",
    "localise-list": "Localise the {phrase} in the image as [x_min, y_min, x_max, y_max].",
    "box-fractions": "Provide a bounding box around the {phrase} as [x_min, y_min, x_max, y_max], "
    "in fractions of the image's width and height.",
    "box-json": 'Provide a bounding box around the {phrase} as JSON: {{"bbox": [x_min, y_min, x_max, y_max]}}.',
}
"""What is asked, by name: with the word box and without, with a stated format and without. The first two are PIN's."""
BARE = " Question: {} Answer:"  # for a model without a chat template, as BLIP-2, Kosmos-2 and Flamingo are asked
BATCH = 8  # questions that a local model answers at once


def question(prompt: str, phrase: str) -> str:
    """A prompt of `PROMPTS` about a phrase, which loses its own article: "Localise the cat in the image."."""
    return PROMPTS[prompt].format(phrase=head(phrase))


class Asker(Protocol):
    """A model that can be asked about an image in words: `Local`, or an `endpoint.Endpoint`.

    name: of the model · settings: what must be the same for a reply to hold, JSON-ready · convention: that of the boxes
    it was trained to write, where that is known.
    """

    name: str
    settings: dict[str, Any]
    convention: Convention | None

    def check_phrase(self, phrase: str) -> None:
        """Raise InputError if the phrase cannot be asked for."""

    def frame_of(self, width: int, height: int) -> Frame:
        """The Frame of an image of this size, pixels, as the model is shown it."""

    def ask(self, image: NDArray[np.uint8], questions: Sequence[str]) -> Iterator[Reply]:
        """The replies to questions about an image uint8[H, W, 3], one by one."""


class Local:
    """Asks a frozen VLM, in its own chat template where it has one, and takes the likeliest words.

    A model without a template that is asked as it is mostly stops at the question's full stop: it is asked in `BARE`.
    """

    def __init__(self, vlm: FrozenVLM, tokens: int) -> None:
        """`tokens`: of an answer at most."""
        self._vlm, self._tokens, self.name = vlm, tokens, vlm.name
        self.convention = native(vlm.native) if vlm.native else None
        self.settings: dict[str, Any] = {
            "model": vlm.name,
            "fingerprint": vlm.fingerprint,
            "dtype": str(vlm.dtype),
            "template": vlm.closing or BARE,
            "tokens": tokens,
            "cut": "told",  # replies from before that say nothing of it are no longer used
            "wherein": version("wherein"),
        }

    def check_phrase(self, phrase: str) -> None:
        """See `FrozenVLM.check_phrase`."""
        self._vlm.check_phrase(phrase)

    def frame_of(self, width: int, height: int) -> Frame:
        """See `FrozenVLM.frame_of`."""
        return self._vlm.frame_of(width, height)

    def ask(self, image: NDArray[np.uint8], questions: Sequence[str]) -> Iterator[Reply]:
        """The replies to questions about an image uint8[H, W, 3], which is encoded once."""
        start = perf_counter()
        pixels, frames = self._vlm.prepare([image])
        with self._vlm.lock, torch.inference_mode():
            prefix = self._vlm.prefix(self._vlm.features(pixels), frames, bare=True)
        for first in range(0, len(questions), BATCH):
            chosen = questions[first : first + BATCH]
            closing = self._vlm.closing
            prompts = [text + closing if closing else BARE.format(text) for text in chosen]
            with self._vlm.lock:
                replies = self._vlm.say(prefix, [0] * len(prompts), prompts, self._tokens)
            seconds, start = (perf_counter() - start) / len(chosen), perf_counter()
            for reply in replies:
                yield Reply(reply.text, seconds, cut=not reply.ended)
