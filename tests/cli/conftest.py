"""A model that answers without being there, for what the command line does around it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import ImageError, InputError
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.methods import giving


class FakeModel:
    """Model and method in one: "a unicorn" is absent, "a mumble" gets no box, 13 pixels of width are refused.

    It sees the upper half of an image that is higher than wide.
    """

    name = "tiny"
    score_kind = "token probability"
    finds_every = False
    gives: frozenset[str] = frozenset()
    text = "a cat\non a mat"

    def __init__(self) -> None:
        self.images: list[NDArray[np.uint8]] = []

    def check_phrase(self, phrase: str) -> None:
        if "<|im_end|>" in phrase:
            raise InputError("The phrase holds <|im_end|>.")

    def frame_of(self, width: int, height: int) -> Frame:
        frame = Frame.identity(width, height)
        return frame.crop(0, 0, width, height // 2) if height > width else frame

    def caption(self, images: Sequence[NDArray[np.uint8]]) -> list[str]:
        self.images += images
        return [self.text for _ in images]

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        if image.shape[1] == 13:
            raise ImageError("13 pixels bring bad luck")
        self.images.append(image)
        return [self._answer(phrase, image) for phrase in phrases]

    def _answer(self, phrase: str, image: NDArray[np.uint8]) -> Grounding:
        if phrase in ("a unicorn", "a mumble"):
            absent = phrase == "a unicorn"
            return Grounding(phrase, np.empty((0, 4)), np.empty(0), self.score_kind, absent, 0.93, answer="\x1b[31mer")
        box = np.array([[0, 0, image.shape[1] / 2, image.shape[0] / 2]])
        return Grounding(phrase, box, np.array([0.5]), self.score_kind, False, 0.1)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """The fake model in the place of the real one; the list holds it once it is loaded."""
    loads: list[FakeModel] = []

    def load_vlm(name: str = "default", device: str = "auto", *_: Any) -> FakeModel:
        loads.append(FakeModel())
        return loads[-1]

    def create(name: str, vlm: FakeModel, adapter: Any = None) -> FakeModel:
        return vlm

    monkeypatch.setitem(sys.modules, "wherein.vlm", SimpleNamespace(load_vlm=load_vlm))
    methods = SimpleNamespace(create=create, check=lambda *_: FakeModel, giving=giving)
    monkeypatch.setitem(sys.modules, "wherein.methods", methods)
    return loads


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two images, a damaged one between them, one that the model refuses, and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, width in [("a.jpg", 80), ("c.webp", 40), ("d.png", 13)]:
        Image.new("RGB", (width, 60), "grey").save(folder / name)
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    return folder
