"""Which heads are read, what they are asked, and how their maps become a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wherein.errors import AdapterError
from wherein.methods.heads.selection import Head

SCALES, RULES = ("none", "sum", "range"), ("mean", "otsu")


@dataclass(frozen=True)
class HeadsConfig:
    """Settings of localisation heads; the defaults are the published ones (CVPR'25).

    heads: (layer, head), from 0 · prompt: the text behind the image; `{phrase}` is the phrase without final
    punctuation, `{noun}` the same with an article · references: phrases that are asked as well and stand for nothing in
    particular: where given, a map is what the phrase adds to them (`evidence`) · steps: words of the answer that are
    written before the row is read, 0 for the phrase's own last token · together: all phrases of a call in one sentence,
    each read at its own last token · sigma, kernel: of the Gaussian, cells · scale: of each head's map (`scaled`) ·
    zoom: how many times finer the sum is drawn before the threshold · threshold: the rule (`binarise`) · absent: the
    weights of `doubt`'s figures and a constant, for the logit of "not in the image"; empty: never absent.
    """

    heads: tuple[Head, ...]
    prompt: str = " {phrase}."
    references: tuple[str, ...] = ()
    steps: int = 0
    together: bool = False
    sigma: float = 1.0
    kernel: int = 7
    scale: str = "none"
    zoom: int = 1
    threshold: str | float = "mean"
    absent: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.heads:
            raise AdapterError("An adapter for heads names no head.")
        if "{phrase}" not in self.prompt and "{noun}" not in self.prompt:
            raise AdapterError(f"The prompt {self.prompt!r} has no place for the phrase: write {{phrase}} or {{noun}}.")
        if self.scale not in SCALES:
            raise AdapterError(f"There is no scale {self.scale!r}: choose {', '.join(SCALES)}.")
        if isinstance(self.threshold, str) and self.threshold not in RULES:
            raise AdapterError(f"There is no threshold {self.threshold!r}: choose {', '.join(RULES)} or a number.")
        if self.zoom < 1 or self.steps < 0 or self.sigma < 0 or self.kernel < 1 or self.kernel % 2 == 0:
            raise AdapterError("zoom must be at least 1, steps and sigma at least 0, and the kernel an odd number.")

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
            pairs = [(int(layer), int(head)) for layer, head in values["heads"]]
            settings = {**values, "heads": tuple(pairs)}
            for name in ("references", "absent"):
                settings[name] = tuple(settings.get(name, ()))
            return cls(**settings)
        except (TypeError, ValueError) as error:
            raise AdapterError(f"The settings of heads are damaged: {error}") from error
