"""PIN on a frozen VLM: add the insert at its seam, let the model write the box, read text and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from wherein.boxtext import CODECS
from wherein.errors import AdapterError
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method, register
from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.module import PositionalInsert, table
from wherein.methods.pin.reading import read, score
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.decoding import Written
from wherein.vlm.prefix import Prefix

REFUSAL = " not"  # what an insert is trained to write for a phrase that is not in the picture


@register
class Pin(Method):
    """A positional insert bound to a VLM (CVPR'24). One box a phrase: the one that the model's answer speaks for.

    A `Grounding`'s box is the `agreed` one of its `Reading`, its answer the text as the model wrote it.

    score_kind "token_probability": the geometric mean of the probabilities of the digits chosen, each renormalised
    over the digits its place allows.
    """

    name = "pin"
    score_kind = "token_probability"
    takes_adapter = True

    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None) -> None:
        super().__init__(vlm)
        if adapter is not None:
            self._bind(vlm, adapter)
            return
        weights = files("wherein.methods.pin").joinpath("weights")
        if vlm.name not in {folder.name for folder in weights.iterdir()}:  # the name may be any path of the user's
            raise AdapterError(f"No PIN is built in for {vlm.name}: name one with --adapter, or train it.")
        with as_file(weights.joinpath(vlm.name)) as built_in:
            self._bind(vlm, built_in)

    def _bind(self, vlm: FrozenVLM, adapter: str | Path) -> None:
        settings, weights = store.load(adapter, self.name, vlm)
        self.config = PinConfig.from_dict(settings)
        shape = (self.config.rows, self.config.columns, self.config.feature_dim)
        if shape != (*vlm.grid, vlm.width(self.config.seam)):
            raise AdapterError(f"The PIN in {adapter} is for another grid or width than {vlm.name}'s.")
        self._module = PositionalInsert(self.config).eval()
        store.fill(self._module, weights, adapter)
        self._pi = lru_cache(maxsize=64)(self._made)

    def pi(self, frame: Frame | None = None) -> Tensor:
        """The insert float[N, D_v] for an image with this Frame; None: for one of the model's own size."""
        return self._pi(None if frame is None else (frame.width, frame.height))

    @torch.inference_mode()
    def _made(self, size: tuple[int, int] | None) -> Tensor:
        code = table(self.config, self.vlm.cells(None if size is None else self.vlm.frame_of(*size)))
        return self._module(code).to(self.vlm.device, self.vlm.dtype)  # type: ignore[no-any-return]

    @contextmanager
    def install(self, frame: Frame | None = None) -> Iterator[None]:
        """Insert pi inside the block; outside it the VLM is bit for bit what it was.

        Pins of one VLM share it: any of them may be installed at any time, and of two at once both are added.
        """
        pi = self.pi(frame)
        with self.vlm.seam(self.config.seam, lambda x: x + pi.to(x)):
            yield

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """The box the VLM writes for each phrase; all phrases share one run of the encoder and of the prefix."""
        pixels, (frame,) = self.vlm.prepare([image])
        x_v = self.vlm.features(pixels)
        with torch.inference_mode(), self.install(frame):
            written = ask(self.vlm, self.config, self.vlm.prefix(x_v, [frame]), [0] * len(phrases), phrases, frame)
        groundings = []
        for phrase, answer in zip(phrases, written, strict=True):
            reading = read(answer, CODECS[self.config.codec], frame.model_width, frame.model_height)
            missing = self.absent_probability(answer)
            gone = absent and missing >= 0.5
            groundings.append(
                Grounding(
                    phrase,
                    np.empty((0, 4)) if gone else frame.to_image(reading.agreed[None]),
                    np.empty(0) if gone else np.array([score(answer)]),
                    self.score_kind,
                    gone,
                    missing,
                    answer=REFUSAL.strip() if gone else answer.text.strip(),
                    expected_box=None if gone else frame.to_image(reading.expected[None])[0],
                )
            )
        return groundings

    def absent_probability(self, answer: Written) -> float:
        """The calibrated probability that the phrase is not in the picture."""
        assert answer.refusal is not None
        p = min(max(answer.refusal, 1e-9), 1 - 1e-9)
        logit = math.log(p / (1 - p))
        return float(expit(self.config.absent_scale * logit + self.config.absent_shift))


def ask(
    vlm: FrozenVLM,
    config: PinConfig,
    prefix: Prefix,
    rows: Sequence[int],
    phrases: Sequence[str],
    frame: Frame | None = None,
) -> list[Written]:
    """Constrained box answers to `phrases[i]` in image `rows[i]` of a prefix that was run with an insert installed.

    The probability of the refusal stands beside each. `frame`: of the images; None for the model's own size.
    """
    size = vlm.size if frame is None else (frame.model_width, frame.model_height)
    grammar = CODECS[config.codec].grammar(*size, lead=" ")
    prompts = [vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in phrases]
    return vlm.answer(prefix, rows, prompts, grammar, REFUSAL, config.beams)
