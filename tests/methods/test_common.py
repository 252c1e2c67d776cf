"""What every method must do, on one model each can work with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein import methods
from wherein.errors import AdapterError, InputError
from wherein.methods import Method, giving
from wherein.methods.base import REGISTRY

PHRASES = ["the dog", "a red mug", "dog"]
LOADED = {name for name in methods.names() if REGISTRY[name].takes_adapter}
OTHER_MODEL = {name for name in methods.names() if REGISTRY[name].built_in_only}


@pytest.fixture(params=methods.names())
def method(
    request: pytest.FixtureRequest,
    tiny_vlm: Any,
    save_insert: Callable[..., Path],
    save_heads: Callable[..., Path],
    save_pixel: Callable[..., Path],
) -> Method:
    if request.param in OTHER_MODEL:
        vlm = request.getfixturevalue("default_vlm")
        return methods.create(request.param, vlm, save_pixel(vlm) if request.param in LOADED else None)
    if request.param not in LOADED:
        return methods.create(request.param, tiny_vlm)
    saved = save_heads(tiny_vlm) if request.param == "heads" else save_insert(request.param, tiny_vlm)
    return methods.create(request.param, tiny_vlm, saved)


@pytest.mark.parametrize("absent", [True, False])
def test_one_grounding_a_phrase_in_pixels_of_the_image(method: Method, image: NDArray[np.uint8], absent: bool) -> None:
    height, width = image.shape[:2]
    groundings = method.ground(image, PHRASES, absent=absent)
    assert [grounding.phrase for grounding in groundings] == PHRASES
    for grounding in groundings:
        assert grounding.score_kind == method.score_kind
        assert len(grounding.boxes) <= 1
        assert not (grounding.absent and len(grounding.boxes))
        for x0, y0, x1, y1 in grounding.boxes:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        for what in ("heatmap", "mask"):
            assert (getattr(grounding, what) is not None) == (what in method.gives)
        assert grounding.absent_probability is None or 0 <= grounding.absent_probability <= 1
        assert grounding.absent == (absent and (grounding.absent_probability or 0) >= 0.5)  # so T-acc is worked out
        assert grounding.to_dict()["phrase"] == grounding.phrase
    if not absent:
        assert not any(grounding.absent for grounding in groundings)


def test_nothing_asked_is_nothing_found(method: Method, image: NDArray[np.uint8]) -> None:
    assert method.ground(image, []) == []


def test_the_same_image_gives_the_same_answer_and_is_left_alone(method: Method, image: NDArray[np.uint8]) -> None:
    kept = image.copy()
    first, second = (method.ground(image, PHRASES) for _ in range(2))
    assert [grounding.to_dict() for grounding in first] == [grounding.to_dict() for grounding in second]
    assert (image == kept).all()


def test_boxes_scale_with_the_image(method: Method, image: NDArray[np.uint8]) -> None:
    """A constant image has no detail that resizing could change: twice the size, twice the box."""
    if method.name == "random":
        pytest.skip("what random draws depends on the image's pixels")
    small, large = np.full((40, 60, 3), 90, np.uint8), np.full((80, 120, 3), 90, np.uint8)
    for a, b in zip(method.ground(small, PHRASES), method.ground(large, PHRASES), strict=True):
        np.testing.assert_allclose(a.boxes * 2, b.boxes)


def test_names_are_known_and_auto_is_the_model_s_best(tiny_vlm: Any) -> None:
    baselines = {"random", "in_context", "coop", "vpt", "vpt_encoder", "lora"}
    assert {"pin", "heads", "pixel", "text", "cam", "centre"} | baselines == set(methods.names())
    assert methods.names() == sorted(methods.names())
    assert methods.create("auto", tiny_vlm).name == tiny_vlm.best_method


def test_an_unknown_name_is_refused(tiny_vlm: Any) -> None:
    with pytest.raises(InputError, match=r"'psychic'.*auto.*centre"):
        methods.create("psychic", tiny_vlm)


@pytest.mark.parametrize("name", sorted(set(methods.names()) - LOADED))
def test_an_adapter_is_refused_by_a_method_that_has_none(tiny_vlm: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leave it out"):
        methods.create(name, tiny_vlm, tmp_path)


def test_an_adapter_that_is_not_there(tiny_vlm: Any, tmp_path: Path) -> None:
    for name in sorted(LOADED):
        with pytest.raises(AdapterError, match="No adapter"):
            methods.create(name, tiny_vlm, tmp_path / "none")


def test_what_can_be_known_without_the_model_is_refused_as_with_it(
    tiny_vlm: Any, tmp_path: Path, save_insert: Callable[..., Path]
) -> None:
    pin = save_insert("pin", tiny_vlm)
    assert methods.check("auto", "default", pin) is methods.check("pin", "default", pin) is REGISTRY["pin"]
    assert methods.check("auto", "default").name == "cam"  # that model's best
    wrong = [("psychic", None), ("text", pin), ("pin", tmp_path / "none"), ("auto", tmp_path), ("coop", pin)]
    for name, adapter in wrong:
        with pytest.raises(InputError) as before:
            methods.check(name, "default", adapter)
        with pytest.raises(InputError) as after:
            methods.create(name, tiny_vlm, adapter)
        assert str(before.value) == str(after.value) and before.type is after.type
    with pytest.raises(InputError, match="built-in model alone, not on 'a/b'"):
        methods.check("cam", "a/b")
    with pytest.raises(AdapterError, match="No pin is built in for a/b"):
        methods.check("pin", "a/b")  # the Hub is not asked


def test_the_best_method_of_a_model_that_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
    assert methods.check("auto", str(tmp_path)).name == "text"
    assert methods.check("auto", "openflamingo/OpenFlamingo-3B-vitl-mpt1b").name == "text"
    with pytest.raises(InputError, match="configuration of 'nobody/nothing'"):
        methods.check("auto", "nobody/nothing")


@pytest.mark.parametrize("name", sorted(OTHER_MODEL))
def test_a_method_refuses_a_model_it_cannot_read(tiny_vlm: Any, name: str) -> None:
    with pytest.raises(InputError, match="default model"):
        methods.create(name, tiny_vlm)


def test_who_gives_heat_maps_on_a_model() -> None:
    assert giving("heatmap", "default") == ["cam", "heads"]
    assert giving("heatmap", "llava-hf/llava-1.5-7b-hf") == giving("mask", "default") == ["heads"]
