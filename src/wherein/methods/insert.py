"""Inserts: small trained modules under which a frozen VLM writes the box itself. PIN is one, its baselines are others.

They differ only in what is put where; all are asked, read, calibrated, trained and saved alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from wherein.boxtext import CODECS
from wherein.errors import AdapterError
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.methods import adapter as store
from wherein.methods.base import Method
from wherein.methods.reading import read, score
from wherein.methods.settings import finite, whole
from wherein.phrases import noun_phrase
from wherein.vlm.base import FrozenVLM, Pixels
from wherein.vlm.decoding import Written
from wherein.vlm.prefix import Prefix

REFUSAL = " not"  # what a model is trained to write, under an insert, for a phrase that is not in the picture


@dataclass(frozen=True, kw_only=True)
class InsertConfig:
    """Settings that every insert has; saved as JSON beside its weights.

    codec: how boxes are written · beams: of the search for the answer, 1 is greedy (3 and 5 as released with PIN) ·
    absent_scale, absent_shift: calibration of the absent probability, p = sigmoid(scale * logit + shift); a scale of 0:
    the insert has never been asked for what is not there, and says nothing of it.
    """

    codec: str = "grid16"
    absent_scale: float = 1.0
    absent_shift: float = 0.0
    beams: int = 1

    def __post_init__(self) -> None:
        self.check("codec", tuple(CODECS))
        if not (finite(self.absent_scale) and finite(self.absent_shift)):
            raise AdapterError(f"An insert's absent_scale and absent_shift are finite numbers; got {self}.")
        self.check_positive("beams")

    def check(self, field: str, allowed: Sequence[str]) -> None:
        """Raises AdapterError for a field whose value is none of those allowed."""
        if getattr(self, field) not in allowed:
            raise AdapterError(f"The {field} is one of {', '.join(allowed)}; got {getattr(self, field)!r}.")

    def check_positive(self, *names: str) -> None:
        """Raises AdapterError for a field that is no whole number, or below 1."""
        for name in names:
            if not whole(getattr(self, name), 1):
                raise AdapterError(f"{name} is a whole number of at least 1; got {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings in a loaded JSON object. Raises AdapterError for a wrong key or value."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise AdapterError(f"This adapter has settings that are not known: {', '.join(sorted(unknown))}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise AdapterError(f"This adapter's settings are incomplete: {error}.") from error


class Insert(nn.Module, ABC):
    """A trained module, and how it goes into a frozen model.

    encodes: it changes the vision encoder, so x_v that were made without it are of no use.
    """

    encodes: ClassVar[bool] = False
    config: Any  # the InsertConfig of the subclass

    def encode(self, vlm: FrozenVLM, pixels: Pixels) -> Tensor:
        """Pixels -> x_v float[B, N, D_v], with gradients to an insert that `encodes`."""
        return vlm.features(pixels)

    @contextmanager
    def installed(self, vlm: FrozenVLM, frame: Frame | None = None, cells: Tensor | None = None) -> Iterator[None]:
        """Inside the block the model runs with the insert in it, for images with this Frame (None: its own size), of
        which it is shown these `cells` int64[B, n] (None: all). On exit, also on error, it is what it was.
        """
        yield

    def lead(self, vlm: FrozenVLM) -> str:
        """What stands before each question for the insert to fill."""
        return ""


class Inserted(Method):
    """A method that has a VLM write the box under an insert. One box a phrase: the one the answer speaks for.

    A `Grounding`'s box is the `agreed` one of its `Reading`, its answer the text as the model wrote it.

    score_kind "token_probability": the geometric mean of the probabilities of the digits chosen, each renormalised
    over the digits its place allows.

    A subclass says what its settings and its insert are, and what training starts from. `rates`: the peak learning rate
    under each preset of `wherein.training.boxes` that it has.
    """

    score_kind = "token_probability"
    takes_adapter = True
    config_class: ClassVar[type[InsertConfig]]
    rates: ClassVar[dict[str, float]]

    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None) -> None:
        super().__init__(vlm)
        if adapter is not None:
            self._bind(vlm, adapter)
            return
        with as_file(self.shipped(vlm.name)) as folder:
            self._bind(vlm, folder)

    @classmethod
    def shipped(cls, model: str) -> Traversable:
        """The adapter that ships for the model of this name. Raises AdapterError where there is none."""
        place = built_in(cls.name, model)
        if place is None:
            raise AdapterError(f"No {cls.name} is built in for {model}: name one with --adapter, or train it.")
        return place

    @classmethod
    def check_fits(cls, vlm: FrozenVLM) -> None:
        """Raise InputError for a model that has no place for the insert."""

    @classmethod
    @abstractmethod
    def begin(cls, vlm: FrozenVLM, preset: str = "default") -> Insert:
        """The insert that training starts from. Raises InputError for a model that it does not go into."""

    @classmethod
    @abstractmethod
    def build(cls, vlm: FrozenVLM, config: Any) -> Insert:
        """The insert with these settings, its weights still to be filled. Raises AdapterError where it does not fit."""

    def _bind(self, vlm: FrozenVLM, adapter: str | Path) -> None:
        settings, weights = store.load(adapter, self.name, vlm)
        config = self.config_class.from_dict(settings)
        self.insert = self.build(vlm, config).eval().requires_grad_(False)
        self.insert.to(vlm.device)
        store.fill(self.insert, weights, adapter)

    @property
    def config(self) -> Any:
        """The settings of the insert."""
        return self.insert.config

    @contextmanager
    def install(self, frame: Frame | None = None) -> Iterator[None]:
        """The model with the insert inside the block; outside it the VLM is bit for bit what it was.

        Inserts of one VLM share it: any of them may be installed at any time, and of two at once both count.
        """
        with self.insert.installed(self.vlm, frame):
            yield

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        """The box the VLM writes for each phrase; all phrases share one run of the encoder and of the prefix."""
        pixels, (frame,) = self.vlm.prepare([image])
        with self.vlm.lock, torch.inference_mode():
            x_v = self.insert.encode(self.vlm, pixels)
            with self.install(frame):
                prefix = self.vlm.prefix(x_v, [frame])
                written = ask(self.vlm, self.insert, prefix, [0] * len(phrases), phrases, frame)
        groundings = []
        for phrase, answer in zip(phrases, written, strict=True):
            reading = read(answer, CODECS[self.config.codec], frame.model_width, frame.model_height)
            missing = self.absent_probability(answer)
            gone = absent and missing is not None and missing >= 0.5
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

    def absent_probability(self, answer: Written) -> float | None:
        """The calibrated probability that the phrase is not in the picture; None: the insert has not learnt it."""
        assert answer.refusal is not None
        if not self.config.absent_scale:
            return None
        p = min(max(answer.refusal, 1e-9), 1 - 1e-9)
        logit = math.log(p / (1 - p))
        return float(expit(self.config.absent_scale * logit + self.config.absent_shift))


def built_in(method: str, model: str) -> Traversable | None:
    """The adapter of a method that ships for the model of this name, which may be any path of the user's."""
    weights = files("wherein.methods").joinpath(method, "weights")
    known = {folder.name: folder for folder in weights.iterdir()} if weights.is_dir() else {}
    return known.get(model)


def ask(
    vlm: FrozenVLM,
    insert: Insert,
    prefix: Prefix,
    rows: Sequence[int],
    phrases: Sequence[str],
    frame: Frame | None = None,
) -> list[Written]:
    """Constrained box answers to `phrases[i]` in image `rows[i]` of a prefix, all run with the insert installed.

    The probability of the refusal stands beside each. `frame`: of the images; None for the model's own size.
    """
    config = insert.config
    size = vlm.size if frame is None else (frame.model_width, frame.model_height)
    grammar = CODECS[config.codec].grammar(*size, lead=" ")
    prompts = [insert.lead(vlm) + vlm.locate_prompt.format(phrase=noun_phrase(phrase)) for phrase in phrases]
    return vlm.answer(prefix, rows, prompts, grammar, REFUSAL, config.beams)
