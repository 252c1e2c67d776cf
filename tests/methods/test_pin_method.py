"""PIN bound to a model: one encoding for all phrases, readings of an answer, and its going away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein.boxtext import CODECS
from wherein.errors import AdapterError
from wherein.methods.pin import Pin
from wherein.methods.pin.method import read, score
from wherein.vlm.decoding import Step, Written

PHRASES = ["the cat", "an old red tractor", "x"]
NEVER, ALWAYS = {"absent_scale": 0.0, "absent_shift": -50.0}, {"absent_scale": 0.0, "absent_shift": 50.0}


@pytest.fixture
def pin(tiny_vlm: Any, save_pin: Callable[..., Path]) -> Pin:
    return Pin(tiny_vlm, save_pin(codec="00-99", **NEVER))


def test_all_phrases_share_one_encoding(pin: Pin, image: NDArray[np.uint8]) -> None:
    already = pin.vlm.encoded  # type: ignore[attr-defined]
    assert len(pin.ground(image, PHRASES)) == len(PHRASES)
    assert pin.vlm.encoded == already + 1  # type: ignore[attr-defined]


def test_a_phrase_is_answered_the_same_in_company(pin: Pin, image: NDArray[np.uint8]) -> None:
    for together in pin.ground(image, PHRASES):
        (alone,) = pin.ground(image, [together.phrase])
        assert alone.answer == together.answer
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_grounding_holds(
    tiny_vlm: Any, save_pin: Callable[..., Path], image: NDArray[np.uint8], codec: str
) -> None:
    height, width = image.shape[:2]
    pin = Pin(tiny_vlm, save_pin(codec=codec, **NEVER))
    for phrase, grounding in zip(PHRASES, pin.ground(image, PHRASES), strict=True):
        assert grounding.phrase == phrase and not grounding.absent and not grounding.invalid
        assert grounding.answer is not None and grounding.expected_box is not None
        written = CODECS[codec].decode(grounding.answer, *tiny_vlm.size)
        assert written is not None
        scale = np.array([width, height] * 2) / np.array([*tiny_vlm.size] * 2)
        np.testing.assert_allclose(grounding.boxes, [written * scale])
        assert (grounding.expected_box >= 0).all() and (grounding.expected_box <= [width, height] * 2).all()
        assert (grounding.expected_box[2:] >= grounding.expected_box[:2]).all()
        assert 0 < grounding.scores[0] <= 1 and grounding.score_kind == "token_probability"


def test_absent_phrases(tiny_vlm: Any, save_pin: Callable[..., Path], image: NDArray[np.uint8]) -> None:
    pin = Pin(tiny_vlm, save_pin(codec="00-99", **ALWAYS))
    for grounding in pin.ground(image, PHRASES):
        assert grounding.absent and len(grounding.boxes) == len(grounding.scores) == 0
        assert grounding.absent_probability == pytest.approx(1) and grounding.answer == "nowhere"
        assert grounding.expected_box is None
    for grounding in pin.ground(image, PHRASES, absent=False):
        assert not grounding.absent and len(grounding.boxes) == 1


@pytest.mark.parametrize(
    ("scale", "refusal", "wanted"),
    [
        (1.0, 0.3, 1 / (1 + 7 / 3)),
        (2.0, 0.3, 1 / (1 + (7 / 3) ** 2)),
        (1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (1e4, 0.3, 0.0),  # what a calibration gives where present and absent phrases never meet
        (1e4, 0.7, 1.0),
    ],
)
def test_the_absent_probability_is_calibrated(
    tiny_vlm: Any, save_pin: Callable[..., Path], scale: float, refusal: float, wanted: float
) -> None:
    pin = Pin(tiny_vlm, save_pin(codec="00-99", absent_scale=scale, absent_shift=0.0))
    assert pin.absent_probability(Written(refusal=refusal)) == pytest.approx(wanted, abs=1e-6)


def test_outside_the_block_the_model_is_the_base(pin: Pin, image: NDArray[np.uint8]) -> None:
    """PIN-2: bit for bit, also after an error inside."""
    x_v = pin.vlm.features(pin.vlm.prepare([image])[0])
    before = pin.vlm.tokens(x_v)
    with pin.install():
        assert not torch.equal(pin.vlm.tokens(x_v), before)
    with pytest.raises(KeyError), pin.install():
        raise KeyError
    pin.ground(image, PHRASES)
    assert torch.equal(pin.vlm.tokens(x_v), before)


def test_another_grid_is_refused(tiny_vlm: Any, save_pin: Callable[..., Path]) -> None:
    folder = save_pin()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"rows": 3', '"rows": 4'))
    with pytest.raises(AdapterError, match="another grid"):
        Pin(tiny_vlm, folder)


def test_weights_of_another_variant_are_refused(tiny_vlm: Any, save_pin: Callable[..., Path]) -> None:
    folder = save_pin()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"released"', '"gated"'))
    with pytest.raises(AdapterError, match="do not fit"):
        Pin(tiny_vlm, folder)


def test_a_model_without_a_built_in_pin_says_so(tiny_vlm: Any) -> None:
    with pytest.raises(AdapterError, match="--adapter"):
        Pin(tiny_vlm)


def answer(text: str, *choices: tuple[int, dict[str, float]]) -> Written:
    """An answer whose choices are (start, probability of each text); the text taken is the one that `text` holds."""
    steps = []
    for start, options in choices:
        texts = tuple(options)
        chosen = next(i for i, option in enumerate(texts) if text.startswith(option, start))
        steps.append(Step(start, texts, np.array([*options.values()]), chosen))
    return Written(text, steps, 0.0)


SURE = answer(" [10,20,60,80]")


def test_a_sure_answer_is_its_own_expectation() -> None:
    box, expected = read(SURE, CODECS["00-99"], 99, 99)
    assert box.tolist() == expected.tolist() == [10, 20, 60, 80]
    assert score(SURE) == 1


def test_the_expectation_is_the_mean_over_what_was_possible() -> None:
    """0.75 for 1_ (then 0.5 each for 10 and 12) and 0.25 for 3_, of which nothing more is known than 30..39."""
    codec = CODECS["00-99"]
    unsure = answer(" [10,20,60,80]", (2, {"1": 0.75, "3": 0.25}), (3, {"0": 0.5, "2": 0.5}))
    box, expected = read(unsure, codec, 99, 198)
    assert box.tolist() == [10, 40, 60, 160]
    assert expected.tolist() == pytest.approx([0.75 * 11 + 0.25 * 34.5, 40, 60, 160])
    assert score(unsure) == pytest.approx((0.75 * 0.5) ** 0.5)


def test_the_expectation_of_a_far_edge_lies_behind_the_near_one() -> None:
    """x0 is 58: of the numbers that begin with 5, only 59 can follow."""
    unsure = answer(" [58,20,60,80]", (8, {"5": 0.5, "6": 0.5}), (9, {"0": 1.0}))
    assert read(unsure, CODECS["00-99"], 99, 99)[1][2] == pytest.approx(0.5 * 59 + 0.5 * 60)


def test_the_expectation_of_numbers_of_different_lengths() -> None:
    """In grid16, "1" begins 14 and 112..210; "14" can end there or go on to 140."""
    codec = CODECS["grid16"]
    unsure = answer(" [14,28,112,182]", (2, {"1": 0.8, "0": 0.2}), (3, {"4": 0.5, "1": 0.5}), (4, {",": 0.9, "0": 0.1}))
    box, expected = read(unsure, codec, 224, 224)
    assert box.tolist() == [14, 28, 112, 182]
    assert expected[0] == pytest.approx(0.2 * 0 + 0.8 * (0.5 * 112 + 0.5 * (0.9 * 14 + 0.1 * 140)))


def test_the_score_is_of_digits_only() -> None:
    sure_digits = answer(" [10,20,60,80]", (0, {" [": 0.1, " ": 0.9}), (2, {"1": 1.0}))
    assert score(sure_digits) == 1
