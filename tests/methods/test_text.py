"""Reading what the untouched model writes, whatever it writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.geometry import Frame
from wherein.methods.text import Text, own_answers


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


NATIVE = {  # what a family writes for the left half and the upper quarter of its square, and the box in shares of it
    "qwen2_vl": "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(0,0),(500,250)<|box_end|>",
    "internvl": "<ref>the cat</ref><box>[[0, 0, 500, 250]]</box>",
    "llava": "[0.0, 0.0, 0.5, 0.25]",
    "paligemma": "<loc0000><loc0000><loc0256><loc0512> cat",
    "qwen3_vl": '[{"bbox_2d": [0, 0, 500, 250], "label": "cat"}]',
}


@pytest.mark.parametrize("family", NATIVE)
def test_a_model_that_writes_boxes_is_asked_and_read_as_it_was_trained(
    build: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, asked = build(family), []

    def continued(prefix: Any, rows: list[int], prompts: list[str], most: int, stop: str = "") -> list[str]:
        asked.extend(prompts)
        return [NATIVE[family], "I see no dog."]

    whole, bare = vlm.prefix, []

    def prefix(*given: Any, **named: Any) -> Any:
        bare.append(named.get("bare", False))
        return whole(*given, **named)

    monkeypatch.setattr(vlm, "continue_text", continued)
    monkeypatch.setattr(vlm, "prefix", prefix)
    image = np.zeros((60, 60, 3), np.uint8)
    found, missing = Text(vlm).ground(image, ["The cat.", "a dog"])
    np.testing.assert_allclose(found.boxes, [[0, 0, 30, 15]], atol=0.1)
    assert not len(missing.boxes) and not missing.absent and found.answer == NATIVE[family]
    assert [vlm.native_prompt.format(phrase=name) + vlm.closing for name in ("cat", "dog")] == asked
    assert bare == [True]  # no "In the image is" between the image and the question


def test_families_that_write_boxes_say_how_to_ask_for_them() -> None:
    from wherein.vlm.families import FAMILIES

    for family in FAMILIES:
        assert bool(family.native) == bool(family.native_prompt) == ("{phrase}" in family.native_prompt)


def test_a_box_in_the_padding_is_no_answer() -> None:
    """Of a picture on the left of its square nothing is at the right."""
    frame = Frame.identity(50, 100).pad(0, 0, 50, 0)
    vlm: Any = SimpleNamespace(native="[x0, y0, x1, y1] in 0..1", native_prompt="{phrase}", closing="")
    vlm.continue_text = lambda *_: ["[0.6, 0, 0.9, 1]", "[0, 0, 0.5, 1]"]
    outside, inside = own_answers(vlm, cast(Any, None), frame, ["cat", "dog"])
    assert not len(outside.boxes) and inside.boxes.tolist() == [[0, 0, 50, 100]]
