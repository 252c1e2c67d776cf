"""PIN on a frozen VLM: add the insert at its seam, let the model write the box, read text and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from wherein.boxtext import CODECS
from wherein.errors import AdapterError
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method, register
from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.module import PositionalInsert
from wherein.methods.pin.reading import Reading, read, score
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.decoding import Prefix, Written

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
        if adapter is None:
            with as_file(files("wherein.methods.pin").joinpath("weights", vlm.name)) as built_in:
                if not built_in.is_dir():
                    raise AdapterError(f"No PIN is built in for {vlm.name}: name one with --adapter, or train it.")
                self._bind(vlm, built_in)
        else:
            self._bind(vlm, Path(adapter))

    def _bind(self, vlm: FrozenVLM, folder: Path) -> None:
        settings, weights = store.load(folder, self.name, vlm)
        self.config = PinConfig.from_dict(settings)
        shape = (self.config.rows, self.config.columns, self.config.feature_dim)
        if shape != (*vlm.grid, vlm.width(self.config.seam)):
            raise AdapterError(f"The PIN in {folder} is for another grid or width than {vlm.name}'s.")
        module = PositionalInsert(self.config)
        store.fill(module, weights, folder)
        with torch.inference_mode():
            self.pi = module.eval()().to(vlm.device, vlm.dtype)

    @contextmanager
    def install(self) -> Iterator[None]:
        """Insert pi inside the block; outside it the VLM is bit for bit what it was."""
        with self.vlm.seam(self.config.seam, lambda x: x + self.pi.to(x.dtype)):
            yield

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """The box the VLM writes for each phrase; all phrases share one run of the encoder and of the prefix."""
        pixels, (frame,) = self.vlm.prepare([image])
        with self.install():
            prefix = self.vlm.prefix(self.vlm.features(pixels))
            written = self.write(prefix, [0] * len(phrases), phrases)
        groundings = []
        for phrase, answer in zip(phrases, written, strict=True):
            reading = self.read(answer)
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

    def write(self, prefix: Prefix, rows: Sequence[int], phrases: Sequence[str]) -> list[Written]:
        """Ask for `phrases[i]` in image `rows[i]` of a prefix that was run with this insert installed."""
        return ask(self.vlm, self.config, prefix, rows, phrases)

    def read(self, answer: Written) -> Reading:
        """The boxes of an answer, in model pixels."""
        return read(answer, CODECS[self.config.codec], *self.vlm.size)

    def absent_probability(self, answer: Written) -> float:
        """The calibrated probability that the phrase is not in the picture."""
        assert answer.refusal is not None
        p = min(max(answer.refusal, 1e-9), 1 - 1e-9)
        logit = math.log(p / (1 - p))
        return float(expit(self.config.absent_scale * logit + self.config.absent_shift))


def ask(
    vlm: FrozenVLM, config: PinConfig, prefix: Prefix, rows: Sequence[int], phrases: Sequence[str]
) -> list[Written]:
    """Constrained box answers to each phrase, the probability of the refusal beside each."""
    grammar = CODECS[config.codec].grammar(*vlm.size, lead=" ")
    prompts = [vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in phrases]
    return vlm.answer(prefix, rows, prompts, grammar, refusal=REFUSAL)
