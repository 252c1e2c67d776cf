"""The answer for one phrase on one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.geometry import as_boxes


def score_text(score: float) -> str:
    """A score for people: two decimals, or where they would say 0.00 its first digit, 0.0007."""
    return f"{score:.2f}" if abs(score) >= 0.005 or score == 0 else f"{score:.1g}"


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where one phrase is on one image, in pixels of the image the caller gave.

    A grounding is one of three things: boxes with one score each, *absent* (the phrase is not on the image), or
    `invalid` (no box although not absent: the model's answer could not be read; evaluation counts it and scores it 0).

    Attributes:
        phrase: what was looked for.
        boxes: float64[K, 4], xyxy, original pixels, best first.
        scores: float64[K], higher is surer; what they mean is in `score_kind`.
        score_kind: the meaning of the scores, e.g. a token probability.
        absent: the method says that the phrase is not on the image.
        absent_probability: how sure that is, 0..1; None where the method has no such estimate.
        answer: the model's raw text, for methods that read text.
        expected_box: float64[4], probability-weighted mean box, original pixels.
        heatmap: float32[H', W'], evidence per feature cell or pixel, laid over the whole image.
        mask: bool[H, W], pixels of the image that belong to the phrase.
        degenerate: the box is a stand-in: the model's evidence says nothing of where, and the whole image is given.

    Raises:
        ValueError: boxes are not [K, 4], the number of scores is not K, or a coordinate or score is not finite.
    """

    phrase: str
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    score_kind: str
    absent: bool
    absent_probability: float | None
    answer: str | None = None
    expected_box: NDArray[np.float64] | None = None
    heatmap: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    degenerate: bool = False

    def __post_init__(self) -> None:
        boxes, scores = as_boxes(self.boxes), np.asarray(self.scores, dtype=np.float64)
        if scores.shape != (len(boxes),):
            raise ValueError(f"{len(boxes)} boxes need scores of shape ({len(boxes)},), not {scores.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"boxes and scores must be finite, got {boxes.tolist()} and {scores.tolist()}")
        object.__setattr__(self, "boxes", boxes)  # the dataclass is frozen; this is its own constructor
        object.__setattr__(self, "scores", scores)

    @property
    def invalid(self) -> bool:
        """True when there is neither a box nor the statement that the phrase is absent."""
        return not self.absent and len(self.boxes) == 0

    def to_dict(self) -> dict[str, Any]:
        """This grounding as plain Python values, ready for `json.dumps`; heat map and mask are left out."""
        return {
            "phrase": self.phrase,
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "score_kind": self.score_kind,
            "absent": bool(self.absent),
            "absent_probability": None if self.absent_probability is None else float(self.absent_probability),
            "degenerate": self.degenerate,
            "answer": self.answer,
            "expected_box": None if self.expected_box is None else np.asarray(self.expected_box).tolist(),
        }
