"""Heads as a method: what is read of a file, what an answer holds, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein import images, methods
from wherein.errors import AdapterError
from wherein.geometry import iou
from wherein.methods.heads import Heads, HeadsConfig
from wherein.methods.heads.method import known, published
from wherein.vlm.prefix import Continuation

PHRASES = ["the dog", "a red mug"]
HEADS = ((0, 1), (1, 2))


def planted(method: Heads, *boxes: tuple[int, int, int, int], hot: float = 1) -> None:
    """Let every head of the method see these boxes of cells, the last one `hot` times as hot, and nothing else."""
    grid = method.vlm.grid
    heat = np.full((1, 2, *grid), 0.001, np.float32)
    for x0, y0, x1, y1 in boxes:
        heat[..., y0:y1, x0:x1] = 0.2
    heat[..., y0:y1, x0:x1] *= hot
    real = method.look
    method.look = lambda image, phrases: (real(image, phrases)[0], heat, heat)  # type: ignore[method-assign,misc,assignment]


def test_a_grounding_is_the_region_in_pixels_of_the_image(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    """The tiny model's 3 x 4 cells over an image of 70 x 90 pixels."""
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS, sigma=0.0))
    planted(method, (1, 0, 3, 2))
    (found,) = method.ground(image, ["it"])
    np.testing.assert_allclose(found.boxes, [[17.5, 0, 52.5, 60]])
    assert found.scores[0] == pytest.approx(0.8 / (0.8 + 0.001 * 8), rel=1e-3)
    assert found.heatmap is not None and found.heatmap.shape == (3, 4)
    assert found.mask is not None and found.mask.shape == (90, 70)
    inside = found.mask[2:50, 20:50]
    assert inside.all() and found.mask.sum() == pytest.approx(35 * 60, rel=0.1)
    assert found.absent_probability is None and not found.absent


def test_every_region_is_an_instance_when_all_are_asked_for(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS, sigma=0.0))
    planted(method, (0, 0, 1, 2), (3, 1, 4, 3))
    (one,), (all_of_them,) = method.ground(image, ["it"]), method.ground(image, ["it"], every=True)
    assert len(one.boxes) == 1 and len(all_of_them.boxes) == 2
    np.testing.assert_allclose(all_of_them.boxes[0], one.boxes[0])
    assert all_of_them.mask is not None and one.mask is not None and all_of_them.mask.sum() > one.mask.sum()


def test_of_all_regions_the_best_comes_first(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    """A large region that is looked at little, and a small one that is looked at hard: alone, the larger is given."""
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS, sigma=0.0))
    planted(method, (0, 0, 1, 3), (3, 0, 4, 1), hot=4)
    (one,), (all_of_them,) = method.ground(image, ["it"]), method.ground(image, ["it"], every=True)
    np.testing.assert_allclose(one.boxes, [[0, 0, 17.5, 90]])
    np.testing.assert_allclose(all_of_them.boxes, [[52.5, 0, 70, 30], [0, 0, 17.5, 90]])
    assert all_of_them.scores[0] > all_of_them.scores[1] == one.scores[0]


def test_a_calibrated_absence_is_told_unless_a_box_is_wanted(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    for constant, gone in ((9.0, True), (-9.0, False)):
        method = Heads(tiny_vlm, config=HeadsConfig(HEADS, absent=(0.0, 0.0, 0.0, 0.0, 0.0, constant)))
        found = method.ground(image, PHRASES)
        assert [grounding.absent for grounding in found] == [gone, gone]
        assert all(len(grounding.boxes) == (0 if gone else 1) for grounding in found)
        assert found[0].heatmap is not None
        assert not any(grounding.absent for grounding in method.ground(image, PHRASES, absent=False))


def test_settings_change_what_is_read(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    """Every option reaches the map, and phrases of one call do not, unless they stand in one sentence."""
    plain = Heads(tiny_vlm, config=HeadsConfig(HEADS)).ground(image, PHRASES)
    for changed in (
        {"sigma": 0.0},
        {"prompt": " In the image is {noun}"},
        {"references": ("thing", "object")},
        {"mirrored": True},
        {"scale": "range"},
        {"zoom": 2},
        {"steps": 1},
        {"heads": ((0, 0),)},
    ):
        other = Heads(tiny_vlm, config=HeadsConfig(**{"heads": HEADS, **changed})).ground(image, PHRASES)
        assert plain[1].heatmap is not None and other[1].heatmap is not None
        same = plain[1].heatmap.shape == other[1].heatmap.shape
        assert not same or not np.allclose(plain[1].heatmap, other[1].heatmap), changed
    alone = Heads(tiny_vlm, config=HeadsConfig(HEADS)).ground(image, PHRASES[1:])
    np.testing.assert_allclose(alone[0].heatmap, plain[1].heatmap, atol=1e-6)
    joint = Heads(tiny_vlm, config=HeadsConfig(HEADS, together=True)).ground(image, PHRASES)
    assert joint[1].heatmap is not None and not np.allclose(joint[1].heatmap, plain[1].heatmap)


@pytest.mark.parametrize("references", [(), ("thing",)])
def test_a_mirrored_image_has_the_mirrored_answer(
    tiny_vlm: Any, image: NDArray[np.uint8], references: tuple[str, ...]
) -> None:
    """Of both views, nothing depends on which is the first; in the other one a left thing is a right one."""
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS, mirrored=True, references=references))
    (found,) = method.ground(image, ["the left mug"])
    (turned,) = method.ground(np.ascontiguousarray(image[:, ::-1]), ["the right mug"])
    assert found.heatmap is not None and turned.heatmap is not None
    np.testing.assert_allclose(turned.heatmap[:, ::-1], found.heatmap, atol=1e-6)
    (alone,) = Heads(tiny_vlm, config=HeadsConfig(HEADS, references=references)).ground(image, ["the left mug"])
    assert not np.allclose(alone.heatmap, found.heatmap)


def test_a_file_is_an_adapter(tiny_vlm: Any, save_heads: Callable[..., Path], image: NDArray[np.uint8]) -> None:
    path = save_heads(tiny_vlm, zoom=2, threshold=0.3, references=("thing",))
    method = methods.create("auto", tiny_vlm, path)
    assert isinstance(method, Heads)
    assert method.config == HeadsConfig(HEADS, zoom=2, threshold=0.3, references=("thing",))
    direct = Heads(tiny_vlm, config=method.config).ground(image, PHRASES)
    assert [g.to_dict() for g in method.ground(image, PHRASES)] == [g.to_dict() for g in direct]


def test_a_file_for_another_model_or_method_is_refused(tiny_vlm: Any, save_heads: Callable[..., Path]) -> None:
    path = save_heads(tiny_vlm)
    other = type(tiny_vlm)(grid=(2, 2), size=(32, 32))
    with pytest.raises(AdapterError, match=r"another model.*grid"):
        methods.create("heads", other, path)
    with pytest.raises(AdapterError, match="made for the method 'heads'"):
        methods.create("pin", tiny_vlm, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": []}, "names no head"),
        ({"heads": [[1]]}, "damaged"),
        ({"heads": [[0, 1]], "prompt": "no place"}, "one place for the phrase"),
        ({"heads": [[0, 1]], "scale": "loud"}, "no scale 'loud'"),
        ({"heads": [[0, 1]], "threshold": "most"}, "no threshold 'most'"),
        ({"heads": [[0, 1]], "kernel": 4}, "the kernel odd"),
        ({"heads": [[0, 1]], "steps": 1.5}, "whole number"),
        ({"heads": [[0, 1]], "zoom": 1.5}, "whole number"),
        ({"heads": [[-1, 1]]}, "count from 0"),
        ({"heads": [[0, 1]], "prompt": " {phrase} {colour}"}, "one place for the phrase"),
        ({"heads": [[0, 1]], "prompt": " {phrase} {"}, "damaged"),
        ({"heads": [[0, 1]], "prompt": " {phrase} {noun}"}, "one place for the phrase"),
        ({"heads": [[0, 1]], "references": "thing"}, "references is no list"),
        ({"heads": [[0, 1]], "references": [3]}, "list of texts"),
        ({"heads": [[0, 1]], "absent": [1.0, 2.0]}, "5 weights and a constant"),
        ({"heads": [[0, 1]], "absent": ["a"] * 6}, "5 weights and a constant, all finite"),
        ({"heads": [[0, 1]], "absent": [math.nan] * 6}, "all finite"),
        ({"heads": [[0, 1.5]]}, "in whole numbers"),
        ({"heads": [[0, math.inf]]}, "in whole numbers"),
        ({"heads": [[0, 1]], "zoom": True}, "whole number"),
        ({"heads": [[0, 1]], "sigma": math.inf}, "sigma a finite number"),
        ({"heads": [[0, 1]], "together": "no"}, "true or false"),
        ({"heads": [[0, 1]], "threshold": True}, "no threshold True"),
        ({"heads": [[0, 1]], "steps": 1, "together": True}, "not together"),
        ({"heads": [[0, 1]], "colour": 3}, "colour"),
        ({}, "no heads"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(
    tiny_vlm: Any, save_heads: Callable[..., Path], change: dict[str, Any], sentence: str
) -> None:
    path = save_heads(tiny_vlm)
    about = json.loads(path.read_text())
    about["config"] = change
    path.write_text(json.dumps(about))
    with pytest.raises(AdapterError, match=sentence):
        methods.create("heads", tiny_vlm, path)
    path.write_text("{")
    with pytest.raises(AdapterError, match="not an adapter's configuration"):
        methods.create("heads", tiny_vlm, path)


def test_evidence_of_nothing_is_said_to_be_a_stand_in(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    """LH-9: a phrase that says no more than the reference phrase."""
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS, prompt=" {noun}", references=("thing",)))
    same, other = method.ground(image, ["the thing", "a dog"])
    assert same.degenerate and same.to_dict()["degenerate"] and same.scores.tolist() == [0.0]
    np.testing.assert_allclose(same.boxes, [[0, 0, 70, 90]])
    assert not other.degenerate


def test_images_in_a_row_are_each_asked_anew(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    """LH-2, L-2: through one method; L-10: the grid is no square, and the images have other shapes."""
    method, others = Heads(tiny_vlm, config=HeadsConfig(HEADS)), [255 - image, image[:50], image]
    first = method.ground(image, PHRASES)[0].heatmap
    heats = [method.ground(other, PHRASES)[0].heatmap for other in others]
    assert first is not None and first.shape == (3, 4)
    assert heats[0] is not None and not np.allclose(heats[0], first)
    assert heats[1] is not None and not np.allclose(heats[1], first)
    np.testing.assert_array_equal(heats[2], first)


def test_threads_share_a_model(tiny_vlm: Any, image: NDArray[np.uint8]) -> None:
    method = Heads(tiny_vlm, config=HeadsConfig(HEADS))
    wanted = [grounding.to_dict() for grounding in method.ground(image, PHRASES)]
    before = tiny_vlm.language_model.config._attn_implementation
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: method.ground(image, PHRASES), range(40)))
    assert all([grounding.to_dict() for grounding in answer] == wanted for answer in answers)
    assert tiny_vlm.language_model.config._attn_implementation == before


def test_an_error_on_the_way_leaves_the_model_as_it_was(
    tiny_vlm: Any, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Heads(tiny_vlm, config=HeadsConfig(((0, 0),)))
    before = tiny_vlm.language_model.config._attn_implementation
    for place in ("feed_into_nothing", "hidden"):
        with monkeypatch.context() as patch:
            if place == "hidden":
                patch.setattr(Continuation, "hidden", lambda *_: 1 / 0)
            else:
                patch.setattr(type(tiny_vlm), "prefix", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                method.ground(image, PHRASES)
        assert tiny_vlm.language_model.config._attn_implementation == before
        for module in tiny_vlm.language_model.modules():
            assert "forward" not in module.__dict__ and not module._forward_hooks and not module._forward_pre_hooks


def test_published_heads_are_for_the_published_architecture(tiny_vlm: Any) -> None:
    """LLaVA of another language model, or of another encoder, has other heads."""
    base = published()[0]["base"]
    text = {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_size": 4096,
        "vocab_size": 32064,
    }

    def model(kind: str = "Llava", grid: tuple[int, int] = (24, 24), **other: int) -> Any:
        settings = SimpleNamespace(**{**text, **other})
        config = SimpleNamespace(get_text_config=lambda: settings)
        made = type(kind, (), {"name": "x", "grid": grid, "language_model": SimpleNamespace(config=config)})()
        return made

    assert base["layers"] == 32
    assert known(model())[0].heads == ((14, 24), (14, 13), (14, 26))
    for other in (
        model(num_key_value_heads=8),
        model(vocab_size=128320),
        model(grid=(16, 16)),
        model("LlavaNext"),
        model(hidden_size=5120),
    ):
        with pytest.raises(AdapterError, match="No heads are known"):
            known(other)


def test_a_model_without_known_heads_says_how_to_find_them(tiny_vlm: Any) -> None:
    with pytest.raises(AdapterError, match="wherein heads find --model tiny"):
        methods.create("heads", tiny_vlm)


def test_the_published_heads_are_those_of_the_paper() -> None:
    by_name = {entry["name"]: entry for entry in published()}
    assert by_name["LLaVA-1.5-7B"]["heads"] == [[14, 24], [14, 13], [14, 26]]
    assert by_name["LLaVA-1.5-13B"]["heads"] == [[15, 39], [16, 30], [7, 2]]


def test_the_built_in_model_has_heads_that_find_the_cat(default_vlm: Any) -> None:
    folder = Path(methods.__file__).parents[1] / "examples"
    truth = json.loads((folder / "truth.json").read_text())["cat.jpg"]
    (found,) = methods.create("heads", default_vlm).ground(images.load(folder / "cat.jpg"), [truth["phrase"]])
    assert iou(found.boxes, np.array([truth["box"]]))[0, 0] > 0.3
    assert found.absent_probability is not None
