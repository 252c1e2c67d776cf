"""Methods without a model, and a small data set on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein.grounding import Grounding
from wherein.methods import adapter
from wherein.methods.heads import HeadsConfig

Answer = Callable[[NDArray[np.uint8], str], list[list[float]]]
Masking = Callable[[NDArray[np.uint8], str], "NDArray[np.bool_] | None"]


class FakeMethod:
    """Answers what functions of image and phrase say, and remembers how it was asked.

    gone: phrases that it answers absent where it may.
    """

    def __init__(
        self, name: str, answer: Answer, mask: Masking = lambda image, phrase: None, gone: Collection[str] = ()
    ) -> None:
        self.name, self.gone = name, gone
        self.asked: list[tuple[tuple[int, ...], list[str], bool]] = []
        self._answer, self._mask = answer, mask

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        self.asked.append((image.shape, list(phrases), absent))
        return [self._grounding(image, phrase, absent) for phrase in phrases]

    def _grounding(self, image: NDArray[np.uint8], phrase: str, absent: bool) -> Grounding:
        if absent and phrase in self.gone:
            return Grounding(phrase, np.empty((0, 4)), np.empty(0), "fake", True, absent_probability=0.75)
        boxes, mask = np.array(self._answer(image, phrase)), self._mask(image, phrase)
        scores = np.linspace(0.9, 0.5, len(boxes))
        return Grounding(
            phrase, boxes.reshape(-1, 4), scores, "fake", False, 0.75 if phrase in self.gone else 0.25, mask=mask
        )


def whole(image: NDArray[np.uint8], phrase: str) -> list[list[float]]:
    """The whole image, and a second box that must not count."""
    return [[0, 0, image.shape[1], image.shape[0]], [0, 0, 1, 1]]


def no_dogs(image: NDArray[np.uint8], phrase: str) -> list[list[float]]:
    """The left half, or an invalid answer for a dog."""
    return [] if phrase == "dog" else [[0, 0, image.shape[1] / 2, image.shape[0]]]


def runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask bool[H, W] as COCO's run lengths."""
    ends = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False, append=not mask[-1, -1]))
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """A folder with images/ of 10 x 4 pixels, refs.json and instances.json: three masks in two images, a fourth object.

    The masks are the left 4 columns (16 pixels, `left`), row 0 (10 pixels, `top`) and one pixel (`dot`); `unmasked`
    has a box only.
    """
    masks = {name: np.zeros((4, 10), dtype=bool) for name in ("left", "top", "dot")}
    masks["left"][:, :4] = masks["top"][0] = masks["dot"][2, 7] = True
    boxes = {"left": [0, 0, 4, 4], "top": [0, 0, 10, 1], "dot": [7, 2, 1, 1], "unmasked": [0, 0, 5, 4]}
    places = {"left": 1, "top": 1, "dot": 2, "unmasked": 2}
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (10, 4), "grey").save(tmp_path / "images" / f"{number}.png")
    images = [{"id": number, "file_name": f"{number}.png", "width": 10, "height": 4} for number in (1, 2)]
    annotations = [
        {"id": name, "image_id": places[name], "bbox": box}
        | ({"segmentation": runs(masks[name])} if name in masks else {})
        for name, box in boxes.items()
    ]
    refs = [
        {"ann_id": name, "image_id": place, "split": "val", "sentences": [{"sent": name}]}
        for name, place in places.items()
    ]
    refs.append({**refs[0], "split": "testA"})
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    return tmp_path


@pytest.fixture
def doubtful(masked: Path) -> Path:
    """The folder `masked` with phrases that mean nothing: "zebra" and twice "yak" of one image, "zebra" of a third."""
    content = json.loads((masked / "instances.json").read_text())
    content["images"].append({"id": 3, "file_name": "3.png", "width": 10, "height": 4})
    (masked / "instances.json").write_text(json.dumps(content))
    Image.new("RGB", (10, 4), "grey").save(masked / "images" / "3.png")
    phrases = {1: ["zebra", "yak", "yak"], 3: ["zebra"]}
    refs = [
        {"ann_id": [-1], "image_id": place, "split": "val", "sentences": [{"sent": phrase}]}
        for place, some in phrases.items()
        for phrase in some
    ]
    (masked / "refs.json").write_text(json.dumps(json.loads((masked / "refs.json").read_text()) + refs))
    return masked


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder with annotations.json, pairs.json and images/: 100 x 50 pixels, the last with too many objects."""
    boxes = {
        "0.png": [("Cat", [0, 0, 100, 50], 0), ("dog", [0, 0, 50, 50], 0), ("Cat", [0, 0, 50, 50], 0)],
        "1.png": [("dog", [50, 0, 50, 50], 0)] + [("cat", [0, 0, 9, 9], 1)] * 5,
        "2.png": [],
        "3.png": [("cat", [0, 0, 10, 10], 0)] * 4,
    }
    (tmp_path / "images").mkdir()
    for name in boxes:
        Image.new("RGB", (100, 50), "grey").save(tmp_path / "images" / name)
    categories = {"Cat": 1, "dog": 2, "cat": 3}
    coco: dict[str, Any] = {
        "images": [{"id": name, "file_name": name, "width": 100, "height": 50} for name in boxes],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [
            {"id": n, "image_id": name, "category_id": categories[category], "bbox": box, "iscrowd": crowd}
            for n, (name, category, box, crowd) in enumerate((key, *one) for key, ones in boxes.items() for one in ones)
        ],
    }
    pairs = [{"file_name": "1.png", "phrase": "the dog", "bbox": [50, 0, 50, 50]}]
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


@pytest.fixture
def save_heads_for(tmp_path: Path) -> Callable[..., Path]:
    def save(vlm: Any) -> Path:
        config = HeadsConfig(heads=((0, 1), (1, 2)))
        return adapter.save_file_only(tmp_path / "heads.json", "heads", vlm, config.to_dict(), {})

    return save
