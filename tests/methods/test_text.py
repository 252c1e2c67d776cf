"""Reading what the untouched model writes, whatever it writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.methods.text import Text


def says(monkeypatch: pytest.MonkeyPatch, vlm: Any, answer: str) -> list[str]:
    """Make the model continue every prompt with `answer`; the list holds the prompts."""
    prompts: list[str] = []

    def continue_text(prefix: Any, rows: list[int], asked: list[str], most: int, stop: str) -> list[str]:
        prompts.extend(asked)
        return [answer] * len(asked)

    monkeypatch.setattr(vlm, "continue_text", continue_text)
    return prompts


def test_a_written_box_in_pixels_of_the_image(
    tiny_vlm: Any, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = says(monkeypatch, tiny_vlm, "it is at [11,33,66,99], I think")
    (grounding,) = Text(tiny_vlm).ground(image, ["The cat!"])
    height, width = image.shape[:2]
    np.testing.assert_allclose(grounding.boxes, [[width / 9, height / 3, width * 2 / 3, height]])
    assert grounding.scores.tolist() == [1] and grounding.answer == "it is at [11,33,66,99], I think"
    assert prompts == [" a cat located at"]


@pytest.mark.parametrize("answer", ["", "on the sofa", "[1,2,3]", "[50,50,10,10]", "[1,2,3,4", "[nan,1,2,3]"])
def test_an_answer_without_a_box_is_invalid_and_kept(
    tiny_vlm: Any, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    says(monkeypatch, tiny_vlm, answer)
    (grounding,) = Text(tiny_vlm).ground(image, ["cat"])
    assert grounding.invalid and not grounding.absent and grounding.answer == answer


def test_the_image_is_encoded_once(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    already = tiny_vlm.encoded
    Text(tiny_vlm).ground(image, ["a cat", "a dog"])
    assert tiny_vlm.encoded == already + 1
