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

from wherein.boxtext import CODECS, Codec
from wherein.errors import AdapterError
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method, register
from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.module import PositionalInsert
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM
from wherein.vlm.decoding import Prefix, Written

REFUSAL = " nowhere"  # what an insert is trained to write for a phrase that is not in the picture


@register
class Pin(Method):
    """A positional insert bound to a VLM (CVPR'24). One box a phrase, written by the model itself.

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
            boxes, expected = self.read(answer)
            missing = self.absent_probability(answer)
            gone = absent and missing >= 0.5
            groundings.append(
                Grounding(
                    phrase,
                    np.empty((0, 4)) if gone else frame.to_image(boxes[None]),
                    np.empty(0) if gone else np.array([score(answer)]),
                    self.score_kind,
                    gone,
                    missing,
                    answer=REFUSAL.strip() if gone else answer.text.strip(),
                    expected_box=None if gone else frame.to_image(expected[None])[0],
                )
            )
        return groundings

    def write(self, prefix: Prefix, rows: Sequence[int], phrases: Sequence[str]) -> list[Written]:
        """Ask for `phrases[i]` in image `rows[i]` of a prefix that was run with this insert installed."""
        return ask(self.vlm, self.config, prefix, rows, phrases)

    def read(self, answer: Written) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The written box and the expected one, float64[4] each, in model pixels."""
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


def score(answer: Written) -> float:
    """Geometric mean of the probabilities of the digits chosen, in 0..1."""
    chosen = [step.probability for step in answer.steps if step.texts[step.chosen].strip().isdigit()]
    return math.exp(sum(math.log(max(p, 1e-12)) for p in chosen) / max(len(chosen), 1))


def read(answer: Written, codec: Codec, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(written box, expected box), float64[4] each, in model pixels.

    The expected far edges are those behind the written near ones; where the model is so unsure that an expected near
    edge lies behind its far one, the two change places.
    """
    box = codec.decode(answer.text, width, height)
    assert box is not None, f"the grammar let {answer.text!r} through"
    expected, spans = box.copy(), codec.spans(answer.text)
    for side, span in enumerate(spans):
        size = (width, height)[side % 2]
        numbers, near = codec.numbers(size), answer.text[slice(*spans[side % 2])]
        possible = numbers[:-1] if side < 2 else numbers[numbers.index(near) + 1 :]  # far edges lie behind near ones
        expected[side] = _expected(answer, span, possible) * size / (codec.unit or size)
    return box, np.sort(expected.reshape(2, 2), axis=0).ravel()


def _expected(answer: Written, span: tuple[int, int], possible: Sequence[str]) -> float:
    """The expected number at text[start:end]: each choice not taken counts with the mean of the numbers it begins."""
    start, end = span
    value, reach = 0.0, 1.0
    for step in answer.steps:
        if not start <= step.start <= end:  # a choice at `end` was whether the number ends there
            continue
        for i, (text, p) in enumerate(zip(step.texts, step.probabilities, strict=True)):
            if i != step.chosen:
                begun = answer.text[start : step.start] + text
                digits = begun[: len(begun) - len(begun.lstrip("0123456789"))]
                found = [float(n) for n in possible if (n.startswith(digits) if digits == begun else n == digits)]
                value += reach * float(p) * sum(found) / len(found)
        reach *= step.probability
    return value + reach * float(answer.text[start:end])
