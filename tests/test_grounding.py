import json

import numpy as np
import pytest

from wherein.grounding import Grounding, score_text

KEYS = [
    "phrase",
    "boxes",
    "scores",
    "score_kind",
    "absent",
    "absent_probability",
    "degenerate",
    "answer",
    "expected_box",
]


@pytest.mark.parametrize(
    "score, text",
    [
        (0.386, "0.39"),
        (1.0, "1.00"),
        (0.005, "0.01"),
        (0.0049, "0.005"),
        (0.0007, "0.0007"),
        (0.0, "0.00"),
        (-2.5, "-2.50"),
    ],
)
def test_a_small_score_keeps_its_first_digit(score: float, text: str) -> None:
    assert score_text(score) == text


def test_to_dict_is_plain_json() -> None:
    grounding = Grounding(
        "a cat",
        np.array([[1, 2, 3, 4.5]], dtype=np.float32),
        np.array([0.5], dtype=np.float32),
        "probability",
        np.bool_(False),
        np.float32(0.25),
        answer="[1,2,3,4]",
        expected_box=np.array([1.0, 2, 3, 4]),
        heatmap=np.zeros((2, 2), np.float32),
    )
    written = json.loads(json.dumps(grounding.to_dict(), allow_nan=False))
    assert list(written) == KEYS
    assert written["boxes"] == [[1, 2, 3, 4.5]]
    assert written["scores"] == [0.5]
    assert written["absent"] is False
    assert written["absent_probability"] == 0.25
    assert written["expected_box"] == [1, 2, 3, 4]
    assert grounding.boxes.dtype == grounding.scores.dtype == np.float64


@pytest.mark.parametrize(("boxes", "absent", "invalid"), [([], False, True), ([], True, False), ([[0, 0, 1, 1]], 0, 0)])
def test_invalid_means_neither_box_nor_absent(boxes: list, absent: bool, invalid: bool) -> None:
    grounding = Grounding("x", boxes, [1.0] * len(boxes), "none", absent, None)
    assert grounding.boxes.shape == (len(boxes), 4)
    assert grounding.invalid == invalid
    assert grounding.to_dict()["absent_probability"] is None


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [([[0, 0, 1, 1]], []), ([], [0.5]), ([[0, 0, 1, np.nan]], [1]), ([[0, 0, 1, 1]], [np.inf]), ([[0, 1]], [1])],
)
def test_inconsistent_answers_are_refused(boxes: list, scores: list) -> None:
    with pytest.raises(ValueError):
        Grounding("x", boxes, scores, "none", False, None)
