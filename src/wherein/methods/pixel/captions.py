"""What a pixel-aligned model says: captions with a place for each word, and captions of places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wherein.geometry import area
from wherein.synth.narrative import NOBODYS

SCORE, PROPOSAL = "caption_probability", "proposal_score"


class PlacedWord(NamedTuple):
    """A word of a caption: its text, where in the caption it is (from, to), its point float64[2] (x, y) and its box
    float64[4], None for a model of one point a token; pixels of the image, cut to it."""

    text: str
    start: int
    end: int
    point: NDArray[np.float64]
    box: NDArray[np.float64] | None

    @property
    def place(self) -> NDArray[np.float64]:
        """The box, or the point where there is none."""
        return self.point if self.box is None else self.box

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; docs/json.md describes every key."""
        box = None if self.box is None else self.box.tolist()
        return {"word": self.text, "start": self.start, "end": self.end, "point": self.point.tolist(), "box": box}


@dataclass(frozen=True, eq=False)
class Caption:
    """A caption: text, its words with their places, the mean probability of its tokens, and whether it is whole."""

    text: str
    words: list[PlacedWord]
    score: float
    whole: bool

    @property
    def trace(self) -> list[PlacedWord]:
        """The words that speak of something in the image: not "a" or "and", whose places are never taught."""
        return [
            word
            for word in self.words
            if word.text.lower() not in NOBODYS and (word.box is None or area(word.box[None])[0] > 0)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; docs/json.md describes every key."""
        return {
            "caption": self.text,
            "score": self.score,
            "score_kind": SCORE,
            "whole": self.whole,
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True, eq=False)
class Region:
    """A place and its caption: a box float64[4] or a point float64[2], pixels of the image; `proposal_score`, how sure
    it is that there is something, where the model itself chose the box. What stands in the place is not placed again:
    only captions of whole images are taught where their words are."""

    caption: Caption
    box: NDArray[np.float64] | None = None
    point: NDArray[np.float64] | None = None
    proposal_score: float | None = None

    def __post_init__(self) -> None:
        if (self.box is None) == (self.point is None):
            raise ValueError("a region is a box or a point: exactly one of the two")

    @property
    def place(self) -> NDArray[np.float64]:
        """The box or the point."""
        place = self.point if self.box is None else self.box
        assert place is not None
        return place

    @property
    def score(self) -> float:
        """What it is ranked and shown by, of `score_kind`; the JSON has both kinds."""
        return self.caption.score if self.proposal_score is None else self.proposal_score

    @property
    def score_kind(self) -> str:
        """How sure the model is that there is something, where it chose the box; else how likely the caption is."""
        return SCORE if self.proposal_score is None else PROPOSAL

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; docs/json.md describes every key."""
        return {
            "box": None if self.box is None else self.box.tolist(),
            "point": None if self.point is None else self.point.tolist(),
            "proposal_score": self.proposal_score,
            "caption": self.caption.text,
            "score": self.caption.score,
            "score_kind": SCORE,
            "whole": self.caption.whole,
        }
