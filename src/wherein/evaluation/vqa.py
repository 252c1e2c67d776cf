"""What an insert costs: VQAv2 questions asked of a model with the insert in it and without (PIN, CVPR'24).

Notable choices:
- a model is asked in the words of OpenFlamingo's evaluation, zero-shot: two demonstrations in text, then the question;
  a prefix begins with the image, so they stand behind it here, and they are ours, for want of a training split
- five new tokens, greedily (there: three beams); what the model goes on with after its answer is cut off as there, so
  of "red, white and blue" the red is left; the accuracy is that of VQA's own evaluator
- that the model is its untouched self with the insert switched off is looked at for every image, bit for bit
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from wherein import images
from wherein.data import Complain, refuse
from wherein.data.vqa import AskedImage, Question
from wherein.errors import ImageError
from wherein.evaluation import bootstrap
from wherein.evaluation.records import Journal
from wherein.evaluation.soft_accuracy import soft_accuracy
from wherein.geometry import Frame
from wherein.methods.insert import Inserted
from wherein.vlm.base import FrozenVLM, Pixels
from wherein.vlm.prefix import Prefix

SCHEMA = 1  # of the JSON; raised when a key is renamed, removed or changes its meaning, not when one is added
QUESTION = "Question:{question} Short answer:"
DEMONSTRATIONS = (("What color is the sky on a clear day?", "blue"), ("How many wheels does a bicycle have?", "2"))
MAX_TOKENS = 5
SHOWN = "".join(QUESTION.format(question=question) + f"{answer}\n" for question, answer in DEMONSTRATIONS)
PROMPT = SHOWN + QUESTION
"""What follows the image; `{question}` stands for the question."""
_END = re.compile(r"\n|, |Question|Answer|Short")  # where an answer ends and another turn begins
SWITCHES = ("off", "on")


@dataclass(frozen=True)
class Answered:
    """The answers to all questions about one image, in their order, with the insert off and on.

    `off_is_base`: the model's state behind the image was, with the insert switched off again, the untouched one's.
    """

    image: str
    off: tuple[str, ...]
    on: tuple[str, ...]
    off_is_base: bool

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made these fields of. Raises TypeError or KeyError for others."""
        return cls(**{**fields, "off": tuple(fields["off"]), "on": tuple(fields["on"])})


class Transcript(Journal):
    """The journal of a run: `answered` holds what is there already, by image."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """As of `Journal`."""
        self.answered: dict[str, Answered] = {}
        super().__init__(path, settings)

    def keep(self, answered: Answered) -> None:
        """Write an image's answers down; once this returns, a killed process does not lose them."""
        self._take_down(answered)
        self.answered[answered.image] = answered

    def _take(self, fields: dict[str, Any]) -> None:
        answered = Answered.from_dict(fields)
        self.answered[answered.image] = answered


def run(
    asked: Sequence[AskedImage],
    vlm: FrozenVLM,
    bind: Callable[[], Inserted],
    transcript: Transcript,
    complain: Complain = refuse,
) -> Iterator[Answered]:
    """Ask every question with the insert off and on; yields image by image. What the transcript holds is not asked.

    `bind` makes the method; it is called when the untouched model has been looked at once. An image that cannot be
    read, or that the model cannot take, is left out.

    Raises:
        InputError: as `complain` decides, an image is left out; also whatever `bind` raises.
    """
    method: Inserted | None = None
    for image in asked:
        if image.name not in transcript.answered:
            try:
                pixels, frames = vlm.prepare([images.load(image.path)])
            except ImageError as error:
                complain(ImageError(f"{image.where}: {error}"))
                continue
            base = _behind(vlm, pixels, frames)
            method = method or bind()
            on = _under(method, pixels, frames, image.questions)
            switched_off = _behind(vlm, pixels, frames)
            off = _answers(vlm, switched_off, image.questions)
            transcript.keep(Answered(image.name, off, on, torch.equal(base.last, switched_off.last)))
        yield transcript.answered[image.name]


def summarise(
    asked: Sequence[AskedImage],
    answered: Sequence[Answered],
    *,
    model: str,
    method: str,
    adapter: str | None = None,
    seed: int = 0,
    command: str | None = None,
) -> dict[str, Any]:
    """The accuracy off and on with intervals over images, by kind of answer, and the paired difference; JSON-ready.

    `answered` belongs to `asked`, image by image.
    """
    questions = [question for image in asked for question in image.questions]
    names = [image.name for image in asked for _ in image.questions]
    kinds = np.array([question.kind for question in questions])
    accuracy = {
        switch: np.array(
            [
                soft_accuracy(answer, question.answers)
                for image, own in zip(asked, answered, strict=True)
                for answer, question in zip(getattr(own, switch), image.questions, strict=True)
            ]
        )
        for switch in SWITCHES
    }
    count, *sums = bootstrap.resampled([np.ones(len(names)), *accuracy.values()], names, seed)
    off, on = (total / count for total in sums)
    difference = bootstrap.comparison(float(np.mean(accuracy["on"] - accuracy["off"])), on - off)
    return {
        "schema": SCHEMA,
        "n": len(questions),
        "images": len(asked),
        "model": model,
        "method": method,
        "adapter": adapter,
        "seed": seed,
        "command": command,
        "prompt": PROMPT,
        "max_new_tokens": MAX_TOKENS,
        "off_is_base": all(own.off_is_base for own in answered),
        "accuracy": {
            switch: {
                "all": float(np.mean(accuracy[switch])),
                "ci95": list(bootstrap.interval(drawn)),
                "by_kind": {str(kind): float(np.mean(accuracy[switch][kinds == kind])) for kind in np.unique(kinds)},
            }
            for switch, drawn in zip(SWITCHES, (off, on), strict=True)
        },
        "on - off": {"difference": difference.difference, "ci95": list(difference.interval), "p": difference.p},
    }


def cut(text: str) -> str:
    """The answer in what a model wrote: up to a line break, a comma, or words that begin another turn.

    >>> cut("2 Question:How many"), cut("yes, it is"), cut("1,000")
    ('2', 'yes', '1,000')
    """
    return _END.split(text, maxsplit=1)[0].strip()


@torch.inference_mode()
def _behind(vlm: FrozenVLM, pixels: Pixels, frames: Sequence[Frame]) -> Prefix:
    """The model as it is, behind an image."""
    return vlm.prefix(vlm.features(pixels), frames, bare=True)


@torch.inference_mode()
def _under(method: Inserted, pixels: Pixels, frames: Sequence[Frame], questions: Sequence[Question]) -> tuple[str, ...]:
    """The answers with the insert in the model."""
    vlm = method.vlm
    x_v = method.insert.encode(vlm, pixels)
    with method.install(frames[0]):
        return _answers(vlm, vlm.prefix(x_v, frames, bare=True), questions, method.insert.lead(vlm))


def _answers(vlm: FrozenVLM, prefix: Prefix, questions: Sequence[Question], lead: str = "") -> tuple[str, ...]:
    prompts = [lead + PROMPT.format(question=question.text) for question in questions]
    return tuple(cut(text) for text in vlm.continue_text(prefix, [0] * len(prompts), prompts, MAX_TOKENS))
