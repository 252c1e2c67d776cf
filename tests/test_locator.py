"""`Locator` and `Answer` with a model that is not there: what goes in, what comes out, what is refused and when."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import AdapterError, ImageError, InputError
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.locator import Answer, Locator
from wherein.methods import giving

PIXELS = np.zeros((60, 80, 3), np.uint8)
FOUND = Grounding("a cat", np.array([[1.0, 2, 30, 40], [5, 6, 7, 8]]), np.array([0.9, 0.2]), "token", False, 0.1)
ABSENT = Grounding("a unicorn", np.empty((0, 4)), np.empty(0), "token", True, 0.8)
INVALID = Grounding("a dog", np.empty((0, 4)), np.empty(0), "token", False, None, answer="a dog")


class FakeMethod:
    """Answers every phrase with the upper left quarter of the image."""

    name = "pin"
    score_kind = "token"
    finds_every = False

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        box = np.array([[0, 0, image.shape[1] / 2, image.shape[0] / 2]])
        return [Grounding(phrase, box, np.array([0.5]), self.score_kind, False, 0.0) for phrase in phrases]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A model and its methods in the place of the real ones; the list tells what was loaded."""
    loads: list[tuple[Any, ...]] = []

    def check_phrase(phrase: str) -> None:
        if "<|im_end|>" in phrase:
            raise InputError("special")

    def frame_of(width: int, height: int) -> Frame:
        """Squashed; "crop" shows the middle 40 of 80 columns."""
        frame = Frame.identity(width, height).resize(40, 20)
        return frame.crop(10, 0, 20, 20) if loads[0][0] == "crop" else frame

    def load_vlm(name: str, device: str, dtype: str, *_: int | None) -> SimpleNamespace:
        loads.append((name, device))
        return SimpleNamespace(name=name, check_phrase=check_phrase, frame_of=frame_of)

    def check(name: str, *_: Any) -> type[FakeMethod]:
        if name not in ("auto", "pin"):
            raise InputError(f"no method {name}")
        return FakeMethod

    def create(name: str, vlm: SimpleNamespace, adapter: str | Path | None) -> FakeMethod:
        loads.append((name, vlm.name, adapter))
        return FakeMethod()

    monkeypatch.setitem(sys.modules, "wherein.vlm", SimpleNamespace(load_vlm=load_vlm))
    monkeypatch.setitem(sys.modules, "wherein.methods", SimpleNamespace(create=create, check=check, giving=giving))
    return loads


KEYS = ["truncated", "visible", "model", "method", "adapter", "groundings"]


def answer(*groundings: Grounding) -> Answer:
    return Answer("a.jpg", 80, 60, "tiny", "pin", None, list(groundings), PIXELS)


def test_the_answer_names_what_answered_and_keeps_the_order(loads: list[Any], tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    found = Locator("tiny", adapter=tmp_path, device="cpu").locate(tmp_path / "a.png", [" a cat ", "a dog", "a cat"])
    assert loads == [("tiny", "cpu"), ("auto", "tiny", tmp_path)]
    assert (found.image, found.width, found.height) == (str(tmp_path / "a.png"), 80, 60)
    assert (found.model, found.method, found.adapter) == ("tiny", "pin", str(tmp_path))
    assert [grounding.phrase for grounding in found.groundings] == ["a cat", "a dog", "a cat"]
    assert found.groundings[0].boxes.tolist() == [[0, 0, 40, 30]]


def test_what_a_crop_cut_away_is_told(loads: list[Any]) -> None:
    whole = Locator("tiny").locate(PIXELS, "a cat").to_dict()
    assert (whole["truncated"], whole["visible"]) == (False, [0, 0, 80, 60])
    loads.clear()
    found = Locator("crop").locate(PIXELS, "a cat")
    assert found.truncated and found.visible == (20, 0, 60, 60)
    assert json.loads(json.dumps(found.to_dict()))["visible"] == [20, 0, 60, 60]


def test_a_single_phrase_and_an_image_from_memory(loads: list[Any]) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    for source in (PIXELS, Image.fromarray(PIXELS), stream.getvalue()):
        found = Locator().locate(source, "a cat")
        assert found.image is None and len(found.groundings) == 1
        assert np.array_equal(found.pixels, PIXELS)


def test_many_images_are_located_one_at_a_time(loads: list[Any], tmp_path: Path) -> None:
    answers = Locator().locate_many(iter([PIXELS, tmp_path / "missing.png", PIXELS]), "a cat")
    assert next(answers).width == 80
    with pytest.raises(ImageError, match="missing.png"):
        next(answers)


def test_an_unknown_method_is_refused_before_the_model_loads(loads: list[Any]) -> None:
    with pytest.raises(InputError, match="no method heads"):
        Locator(method="heads")
    assert loads == []


def test_a_model_may_be_a_path(loads: list[Any], tmp_path: Path) -> None:
    Locator(tmp_path)
    assert loads[0] == (str(tmp_path), "auto")


@pytest.mark.parametrize("option", ["model", "method", "adapter", "device", "segmenter"])
@pytest.mark.parametrize("given", [None, 3, b"x"])
def test_an_option_that_is_no_text_is_refused_before_the_model_loads(
    loads: list[Any], monkeypatch: pytest.MonkeyPatch, option: str, given: Any
) -> None:
    if given is None and option in ("adapter", "segmenter"):
        pytest.skip("there may be none")
    with pytest.raises(InputError, match=f"The {option} must be a text or a path, not {type(given).__name__}"):
        Locator(**{option: given})
    assert loads == []


def test_phrases_that_are_no_texts_are_refused(loads: list[Any]) -> None:
    for phrases in (None, [None], ["cup", 3], b"cup"):
        with pytest.raises(InputError, match="A phrase must be a text"):
            Locator().locate(PIXELS, phrases)  # type: ignore[arg-type]


def test_what_is_wrong_without_the_model_is_found_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(InputError, match="'guess': choose auto"):
        Locator(method="guess")
    with pytest.raises(AdapterError, match="No adapter"):
        Locator(adapter=tmp_path / "none")
    with pytest.raises(InputError, match="text has nothing to load"):
        Locator(method="text", adapter=tmp_path)
    with pytest.raises(InputError, match="configuration of 'nobody/nothing'"):
        Locator(segmenter="nobody/nothing")
    with pytest.raises(InputError, match="llava model, no segmenter"):
        Locator(segmenter=str(tmp_path))


def test_the_models_control_tokens_are_refused_before_the_image_is_read(loads: list[Any]) -> None:
    with pytest.raises(InputError, match="special"):
        Locator().locate("missing.png", ["a cat", "<|im_end|>"])


def test_to_dict_survives_json() -> None:
    document = json.loads(json.dumps(answer(FOUND, ABSENT, INVALID).to_dict(), allow_nan=False))
    assert list(document) == ["schema", "image", "width", "height", *KEYS]
    assert document["schema"] == 1
    assert document["groundings"][0]["boxes"] == [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert [grounding["absent"] for grounding in document["groundings"]] == [False, True, False]


def test_to_detections_counts_phrases_not_boxes() -> None:
    detections = answer(ABSENT, FOUND, INVALID, FOUND).to_detections()
    assert detections.xyxy.tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]] * 2
    assert detections.confidence is not None and detections.confidence.tolist() == [0.9, 0.2, 0.9, 0.2]
    assert detections.class_id is not None and detections.class_id.tolist() == [1, 1, 3, 3]
    assert detections["phrase"].tolist() == ["a cat"] * 4


def test_to_detections_of_nothing_can_be_filtered_like_any_other() -> None:
    detections = answer(ABSENT).to_detections()
    assert len(detections) == 0 and detections.xyxy.shape == (0, 4)
    assert len(detections[detections.confidence > 0.5]) == 0
    assert detections["phrase"].tolist() == []


def test_draw_leaves_the_image_as_it_is() -> None:
    drawn = answer(FOUND, ABSENT, INVALID).draw()
    assert drawn.shape == PIXELS.shape and drawn.dtype == np.uint8
    assert drawn.any() and not PIXELS.any()


def test_every_instance_is_asked_of_a_method_that_tells_them_apart(loads: list[tuple[Any, ...]]) -> None:
    locator = Locator("tiny", "pin")
    with pytest.raises(InputError, match=r"pin gives one box a phrase.*heads"):
        locator.locate(np.zeros((9, 9, 3), np.uint8), "a cat", every=True)


def test_a_heat_map_that_is_not_there_is_not_drawn(loads: list[tuple[Any, ...]]) -> None:
    answer = Locator("tiny", "pin").locate(np.zeros((9, 9, 3), np.uint8), "a cat")
    with pytest.raises(InputError, match="gives no heat maps: use heads"):
        answer.draw_heat()
    np.testing.assert_array_equal(answer.draw(masks=True), answer.draw())
