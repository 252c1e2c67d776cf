"""Which heads are read, what they are asked, and how their maps become a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from string import Formatter
from typing import Any

from wherein.errors import AdapterError
from wherein.methods.heads.selection import Head
from wherein.methods.settings import finite, whole

SCALES, RULES = ("none", "sum", "range"), ("mean", "otsu")
FIGURES = 5  # of `doubt`


@dataclass(frozen=True)
class HeadsConfig:
    """Settings of localisation heads; the defaults are the published ones (CVPR'25).

    heads: (layer, head), from 0 · prompt: the text behind the image; `{phrase}` is the phrase without final
    punctuation, `{noun}` the same with an article · references: phrases that are asked as well and stand for nothing in
    particular: where given, a map is what the phrase adds to them (`evidence`) · mirrored: the image's mirror image is
    read as well, and a map is the mean of both: what only depends on where cells lie averages out · steps: words of the
    answer that are written before the row is read, 0 for the phrase's own last token · together: all phrases of a call
    in one sentence, each read at its own last token · sigma, kernel: of the Gaussian, cells · scale: of each head's map
    (`scaled`) · zoom: how many times finer the sum is drawn before the threshold · threshold: the rule (`binarise`) ·
    absent: the weights of `doubt`'s figures and a constant, for the logit of "not in the image"; empty: never absent.
    """

    heads: tuple[Head, ...]
    prompt: str = " {phrase}."
    references: tuple[str, ...] = ()
    mirrored: bool = False
    steps: int = 0
    together: bool = False
    sigma: float = 1.0
    kernel: int = 7
    scale: str = "none"
    zoom: int = 1
    threshold: str | float = "mean"
    absent: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for right, sentence in (
            (self.heads, "An adapter for heads names no head."),
            (
                all(whole(number, 0) for head in self.heads for number in head),
                f"Layers and heads count from 0, in whole numbers; got {list(self.heads)}.",
            ),
            (
                _prompts(self.prompt),
                f"The prompt {self.prompt!r} needs one place for the phrase: {{phrase}} or {{noun}}.",
            ),
            (self.scale in SCALES, f"There is no scale {self.scale!r}: choose {', '.join(SCALES)}."),
            (_rule(self.threshold), f"There is no threshold {self.threshold!r}: choose {', '.join(RULES)} or 0 to 1."),
            (
                whole(self.zoom, 1)
                and whole(self.steps, 0)
                and whole(self.kernel, 1)
                and self.kernel % 2 == 1
                and finite(self.sigma)
                and self.sigma >= 0,
                "zoom is a whole number from 1, steps one from 0, the kernel odd, and sigma a finite number from 0.",
            ),
            (
                not (self.steps and self.together),
                "Words of an answer can be read for one phrase a sentence: not together.",
            ),
            (all(type(text) is str for text in self.references), "The references of heads are a list of texts."),
            (
                type(self.mirrored) is type(self.together) is bool,
                f"mirrored and together are true or false; got {self.mirrored!r} and {self.together!r}.",
            ),
            (
                len(self.absent) in (0, FIGURES + 1) and all(map(finite, self.absent)),
                f"absent holds {FIGURES} weights and a constant, all finite, or nothing.",
            ),
        ):
            if not right:
                raise AdapterError(sentence)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadsConfig:
        """What `to_dict` made. Raises AdapterError for a setting that is unknown or unusable."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown or "heads" not in values:
            raise AdapterError(f"The settings of heads are damaged: {sorted(unknown) or 'no heads'}.")
        try:
            settings = {**values, "heads": tuple((layer, head) for layer, head in values["heads"])}
            for name in ("references", "absent"):
                if not isinstance(settings.get(name, []), list | tuple):
                    raise TypeError(f"{name} is no list")
                settings[name] = tuple(settings.get(name, ()))
            return cls(**settings)
        except (TypeError, ValueError) as error:
            raise AdapterError(f"The settings of heads are damaged: {error}") from error


def _prompts(prompt: str) -> bool:
    """Whether there is one place for a phrase and nothing else to fill in."""
    places = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None] if "{" in prompt else []
    return places in (["phrase"], ["noun"])


def _rule(threshold: str | float) -> bool:
    return threshold in RULES if isinstance(threshold, str) else type(threshold) is float and 0 <= threshold <= 1
