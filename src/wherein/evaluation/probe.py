"""The localisation probe: does a VLM that is asked in words return boxes? (PIN, section 3 and figure 2.)

    images, phrases -> prompts -> a model, here or remote -> Transcript -> verdicts and boxes -> figures

Notable choices:
- asking and reading are apart: all answers are there before the first is judged, since only all of them together can
  settle what a model's numbers mean, once for the model
- the constant box is measured before the first question: what is wrong with the data is found before anything is paid
- an answer without a box has IoU 0 and stays in the mean, as in `protocols`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.boxforms import Convention, written
from wherein.data import Complain, Sample, refuse
from wherein.errors import ImageError, InputError
from wherein.evaluation.answers import VERDICTS, Reading, read, settle, verdict
from wherein.evaluation.asking import Asker, question
from wherein.evaluation.protocols import run
from wherein.evaluation.records import Journal, Outcome
from wherein.evaluation.report import BASELINE, summarise
from wherein.evaluation.transcript import Reply, Transcript
from wherein.grounding import Grounding
from wherein.methods.centre import Centre
from wherein.vlm.base import FrozenVLM

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, eq=False)
class Judged:
    """A reply to one prompt about one phrase, and what it is: its verdict, and where it names a box how that was read
    and the box float64[4], xyxy in original pixels."""

    phrase: str
    prompt: str
    reply: Reply
    verdict: str
    reading: Reading | None
    box: NDArray[np.float64] | None

    def to_dict(self) -> dict[str, Any]:
        """As plain Python values."""
        return {
            "phrase": self.phrase,
            "prompt": self.prompt,
            "text": self.reply.text,
            "verdict": self.verdict,
            "form": self.reading and self.reading.form,
            "convention": self.reading and self.reading.convention,
            "box": None if self.box is None else self.box.tolist(),
            "cut": self.reply.cut,
            "seconds": self.reply.seconds,
        }


class Probe:
    """One probe of a model on labelled images: what is still to be asked, the asking, and the figures."""

    def __init__(
        self,
        samples: Sequence[Sample],
        asker: Asker,
        prompts: Sequence[str],
        transcript: Transcript,
        complain: Complain = refuse,
    ) -> None:
        """`prompts` are names out of `asking.PROMPTS`, each once. Left out is an image that cannot be read, that has
        not the size its annotation states, that the model cannot take, or with a phrase for which it cannot be asked.

        Raises:
            InputError: no image remains; or, as `complain` decides, one is left out.
        """
        self._asker, self._prompts, self._transcript = asker, prompts, transcript
        askable = {sample.name: sample for sample in samples if _askable(sample, asker, complain)}
        constant = Centre(cast(FrozenVLM, None))  # it looks at no model
        measured = run(askable.values(), [constant], Journal(None, {}), complain)
        there = [(askable[outcome.image], outcome) for (outcome,) in measured]
        self._images = [one for one in there if _takes(asker, *one, complain)]
        if not self._images:
            raise InputError("No image is left to ask about.")

    def waiting(self) -> list[tuple[int, int, list[str]]]:
        """The questions without a reply so far: (width, height, questions) of each image, original pixels."""
        return [(constant.width, constant.height, self._open(sample)) for sample, constant in self._images]

    def ask(self) -> Iterator[Reply]:
        """Ask what is still to be asked; a reply that comes out here is in the transcript.

        Raises:
            InputError: the model cannot be asked, or the transcript not be written.
        """
        for sample, _ in self._images:
            questions = self._open(sample)
            if questions:
                replies = self._asker.ask(images.load(sample.path), questions)
                for text, reply in zip(questions, replies, strict=True):
                    self._transcript.add(sample.path, text, reply)
                    yield reply

    def results(
        self, stated: Convention | None, *, protocol: str, split: str | None, seed: int, command: str | None
    ) -> dict[str, Any]:
        """The figures and every answer, JSON-ready, when all is asked.

        `stated`: what the caller says that the model's numbers mean. The keys are those of `summarise`, where a prompt
        is a method, and: `prompts`, for each its text and how many questions got which verdict; `coordinates`, the
        convention and who decided it; `asked`, the asker's settings; `answers`, with boxes in original pixels.
        """
        convention, decided = self._convention(stated)
        judged = [self._judge(sample, constant, convention) for sample, constant in self._images]
        outcomes = [
            outcome
            for (sample, constant), answers in zip(self._images, judged, strict=True)
            for outcome in [constant, *self._outcomes(sample, answers)]
        ]
        flat = [answer for answers in judged for answer in answers]
        return {
            **summarise(outcomes, protocol=protocol, model=self._asker.name, seed=seed, command=command, split=split),
            "prompts": {
                name: {
                    "text": question(name, "{phrase}"),
                    "verdicts": _counts([one for one in flat if one.prompt == name]),
                }
                for name in self._prompts
            },
            "coordinates": {"convention": str(convention), "decided": decided},
            "asked": self._asker.settings,
            "answers": [
                {"image": sample.name, **answer.to_dict()}
                for (sample, _), answers in zip(self._images, judged, strict=True)
                for answer in answers
            ],
        }

    def _open(self, sample: Sample) -> list[str]:
        texts = dict.fromkeys(question(prompt, phrase) for prompt in self._prompts for phrase in sample.phrases())
        return [text for text in texts if self._transcript.get(sample.path, text) is None]

    def _reply(self, sample: Sample, prompt: str, phrase: str) -> Reply:
        reply = self._transcript.get(sample.path, question(prompt, phrase))
        assert reply is not None, "not everything has been asked yet"
        return reply

    def _convention(self, stated: Convention | None) -> tuple[Convention, str]:
        """What the model's bare numbers mean, and who says so."""
        if stated is not None:
            return stated, "the caller"
        if self._asker.convention is not None:
            return self._asker.convention, "the model's family"
        answers = []
        for sample, constant in self._images:
            frame = self._asker.frame_of(constant.width, constant.height)
            for prompt in self._prompts:
                found = [written(self._reply(sample, prompt, phrase).text) for phrase in sample.phrases()]
                answers += [(one, frame.model_width, frame.model_height) for one in found if one is not None]
        return settle(answers)

    def _judge(self, sample: Sample, constant: Outcome, convention: Convention) -> list[Judged]:
        """Every answer about an image."""
        frame, judged = self._asker.frame_of(constant.width, constant.height), []
        for prompt in self._prompts:
            for phrase in sample.phrases():
                reply = self._reply(sample, prompt, phrase)
                reading, box = read(reply.text, frame.model_width, frame.model_height, convention), None
                if reading is not None:
                    x0, y0, x1, y1 = box = frame.to_image(reading.box[None])[0]
                    if x1 <= x0 or y1 <= y0:  # all of it in a border that the model's own picture has
                        reading = box = None
                kind = verdict(reply.text, question(prompt, phrase), reading is not None)
                judged.append(Judged(phrase, prompt, reply, kind, reading, box))
        return judged

    def _outcomes(self, sample: Sample, answers: Sequence[Judged]) -> list[Outcome]:
        """The records of each prompt on one image."""
        by_prompt = {name: [one for one in answers if one.prompt == name] for name in self._prompts}
        methods = [_Answers(name, own) for name, own in by_prompt.items()]
        (outcomes,) = run([sample], methods, Journal(None, {}))
        spent = [sum(one.reply.seconds for one in own) for own in by_prompt.values()]
        return [replace(outcome, seconds=seconds) for outcome, seconds in zip(outcomes, spent, strict=True)]


class _Answers:
    """The answers to one prompt on one image, as a method that a protocol can run."""

    def __init__(self, name: str, answers: Sequence[Judged]) -> None:
        self.name, self._answers = name, {answer.phrase: answer for answer in answers}

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """The box of each phrase that got one."""
        found = [(self._answers[phrase], phrase) for phrase in phrases]
        boxes = [np.empty((0, 4)) if one.box is None else one.box[None] for one, _ in found]
        return [
            Grounding(phrase, box, np.ones(len(box)), "none", False, None, answer=one.reply.text)
            for (one, phrase), box in zip(found, boxes, strict=True)
        ]


def to_table(results: dict[str, Any]) -> Table:
    """The results as a table for `rich.print`: verdicts by number of questions, the boxes' figures, what was asked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    prompts, coordinates = results["prompts"], results["coordinates"]
    told = [f"{name}: {prompt['text']}" for name, prompt in prompts.items()]
    told.append(f"Bare numbers mean {coordinates['convention']} ({coordinates['decided']}).")
    count = sum(next(iter(prompts.values()))["verdicts"].values())
    title = f"{results['model']}: {count} questions a prompt, {results['n']} boxes in {results['images']} images"
    columns = ("prompt", *VERDICTS, "mIoU", "95 %", "P@0.5")
    table = Table(*columns, title=Text(title), caption=Text("\n".join(told)), box=box.SIMPLE, padding=0)
    table.title_justify = table.caption_justify = "left"
    for name in (*prompts, BASELINE):
        verdicts = prompts[name]["verdicts"] if name in prompts else {}
        figures = results["methods"][name]
        low, high = figures["ci95"]
        counts = [str(verdicts.get(kind, "-")) for kind in VERDICTS]
        table.add_row(name, *counts, f"{figures['miou']:.3f}", f"{low:.3f}..{high:.3f}", f"{figures['p@0.5']:.3f}")
    return table


def _askable(sample: Sample, asker: Asker, complain: Complain) -> bool:
    """Whether the model can be asked for all phrases of an image; `complain` is told if it cannot."""
    try:
        for phrase in sample.phrases():
            asker.check_phrase(phrase)
    except InputError as error:
        complain(InputError(f"{sample.where or sample.path}: {error}"))
        return False
    return True


def _takes(asker: Asker, sample: Sample, constant: Outcome, complain: Complain) -> bool:
    """Whether the model can be shown an image of this size; `complain` is told if it cannot."""
    try:
        asker.frame_of(constant.width, constant.height)
    except ImageError as error:
        complain(ImageError(f"{sample.where or sample.path}: {error}"))
        return False
    return True


def _counts(answers: Sequence[Judged]) -> dict[str, int]:
    found = Counter(answer.verdict for answer in answers)
    return {kind: found[kind] for kind in VERDICTS}
