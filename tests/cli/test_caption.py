"""`wherein caption`: one image, a folder, standard input; word by word, of places, of what is found."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import AdapterError, ImageError, InputError
from wherein.methods.pixel.captions import Caption, PlacedWord, Region
from wherein.methods.pixel.method import begin, save

from ..forked import typed

EXAMPLES = Path(str(files("wherein"))) / "examples"


def test_one_caption_is_one_line(loads: list[Any], photos: Path) -> None:
    result = CliRunner().invoke(app, ["caption", str(photos / "a.jpg")])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a cat on a mat\n", "")


def test_json(loads: list[Any], photos: Path) -> None:
    content = (photos / "a.jpg").read_bytes()
    result = CliRunner().invoke(app, ["caption", "-", "--json"], input=content)
    assert json.loads(result.stdout) == {
        "schema": 1,
        "image": "-",
        "width": 80,
        "height": 60,
        "model": "tiny",
        "caption": "a cat\non a mat",
    }


def test_a_folder_names_each_image_and_goes_on(loads: list[Any], photos: Path) -> None:
    result = CliRunner().invoke(app, ["caption", str(photos)])
    assert result.stdout.splitlines() == [f"{photos / name}: a cat on a mat" for name in ("a.jpg", "c.webp", "d.png")]
    assert isinstance(result.exception, ImageError) and "b.jpg" in result.stderr
    result = CliRunner().invoke(app, ["caption", "--json", str(photos)])
    assert ["error" in json.loads(line) for line in result.stdout.splitlines()] == [False, True, False, False]
    assert len(loads) == 2  # once a command


def test_the_default_model_speaks(tmp_path: Path) -> None:
    """As a user types it, with the true model."""
    done = typed(tmp_path, "caption", EXAMPLES / "cat.jpg")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.strip()


class FakePixel:
    """A method that describes without being there: every word is in the middle, what it finds is the left half."""

    name, proposes = "pixel", True

    def caption(self, image: Any) -> Caption:
        middle = np.array([image.shape[1], image.shape[0]]) / 2
        box = np.concatenate([middle - 1, middle + 1])
        return Caption(
            "a [red]cup", [PlacedWord("a", 0, 1, middle, box), PlacedWord("cup", 7, 10, middle, box)], 0.5, True
        )

    def describe(self, image: Any, places: Any) -> list[Region]:
        given = [np.array(place) for place in places]
        return [Region(self.caption(image), **{"box" if len(one) == 4 else "point": one}) for one in given]

    def dense(self, image: Any) -> list[Region]:
        left = np.array([0.0, 0, image.shape[1] / 2, image.shape[0]])
        return [Region(self.caption(image), box=left, proposal_score=0.9)] if image.shape[1] > 50 else []


@pytest.fixture
def pixel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The fake in the place of the method; the list has what it was asked to be made of."""
    made: list[Any] = []

    def create(name: str, vlm: Any, adapter: Any) -> FakePixel:
        made.append((name, adapter))
        return FakePixel()

    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: SimpleNamespace(name="tiny"))
    monkeypatch.setattr("wherein.methods.create", create)
    monkeypatch.setattr("wherein.methods.check_adapter", lambda adapter: "pixel")
    return made


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["caption", *map(str, arguments)])


def test_a_trace(pixel: list[Any], photos: Path, tmp_path: Path) -> None:
    result = run(photos / "a.jpg", "--trace", "--adapter", "mine", "--save", tmp_path / "out.png")
    assert result.exit_code == 0 and pixel == [("pixel", "mine")]
    lines = result.stdout.splitlines()
    assert lines[0] == "a [red]cup" and lines[-2].split() == ["cup", "39,", "29,", "41,", "31"]
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.width == 480 and drawn.height > 360  # the image, and the sentence under it
    answer = json.loads(run(photos / "a.jpg", "--trace", "--json").stdout)
    assert answer == {
        "schema": 1,
        "image": str(photos / "a.jpg"),
        "width": 80,
        "height": 60,
        "model": "tiny",
        "method": "pixel",
        "adapter": None,
        "caption": "a [red]cup",
        "score": 0.5,
        "score_kind": "caption_probability",
        "whole": True,
        "words": [
            {"word": "a", "start": 0, "end": 1, "point": [40, 30], "box": [39, 29, 41, 31]},
            {"word": "cup", "start": 7, "end": 10, "point": [40, 30], "box": [39, 29, 41, 31]},
        ],
    }


def test_places(pixel: list[Any], photos: Path, tmp_path: Path) -> None:
    at = ["--at", "10,20,30.5,40", "--at", "80,60", "--at", "-5,-5,5,5"]
    result = run(photos / "a.jpg", *at, "--save", tmp_path / "out.png")
    assert result.exit_code == 0 and (tmp_path / "out.png").is_file()
    assert "10, 20, 30, 40" in result.stdout and "80, 60 " in result.stdout and "0.50" in result.stdout
    assert "caption_probability" in result.stdout
    regions = json.loads(run(photos / "a.jpg", *at, "--json").stdout)["regions"]
    assert [region["box"] for region in regions] == [[10, 20, 30.5, 40], None, [-5, -5, 5, 5]]
    assert [region["point"] for region in regions] == [None, [80, 60], None]
    assert regions[0]["caption"] == "a [red]cup" and regions[0]["proposal_score"] is None


def test_what_is_found(pixel: list[Any], photos: Path, tmp_path: Path) -> None:
    out = run(photos / "a.jpg", photos / "c.webp", "--dense", "--save", tmp_path / "drawn").stdout
    assert "a.jpg:" in out and "0, 0, 40, 60" in out and "0.90" in out and "proposal_score" in out
    assert "c.webp: nothing was found" in out
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.jpg", "c.webp.png"]
    found, none = (
        json.loads(line) for line in run(photos / "a.jpg", photos / "c.webp", "--dense", "--json").stdout.splitlines()
    )
    assert [region["proposal_score"] for region in found["regions"]] == [0.9] and none["regions"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--at", "10,20,30"], "'10,20,30'"),
        (["--at", "left"], "x0,y0,x1,y1"),
        (["--at", ""], "x0,y0,x1,y1"),
        (["--at", "10,nan"], "'10,nan'"),
        (["--at", "1e999,5"], "'1e999,5'"),
        (["--at", "30,20,10,40"], "empty"),
        (["--at", "10,20,10,40"], "empty"),
        (["--trace", "--at", "1,2"], "choose"),
        (["--trace", "--dense"], "choose"),
        (["--dense", "--at", "1,2"], "choose"),
        (["--save", "out.png"], "--save"),
        (["--adapter", "mine"], "--adapter"),
        (["--trace", "--save", "out.txt"], "must end in"),
    ],
)
def test_what_is_refused_at_once(pixel: list[Any], photos: Path, options: list[str], said: str) -> None:
    result = run(photos / "a.jpg", *options)
    assert isinstance(result.exception, InputError) and said in str(result.exception)
    assert "\n" not in str(result.exception) and result.stdout == "" and pixel == []


@pytest.mark.parametrize("options", [["--trace"], ["--dense"], ["--at", "1,2"]])
def test_another_model_is_refused_before_it_is_loaded(
    pixel: list[Any], photos: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *given: loaded.append(given))
    result = run(photos / "a.jpg", *options, "--model", "org/model")
    assert isinstance(result.exception, InputError) and "alone, not on 'org/model'" in str(result.exception)
    assert loaded == pixel == []


@pytest.mark.parametrize("place", ["81,5", "5,-1", "80,0,90,10", "-9,-9,0,0"])
def test_a_place_outside_the_image(pixel: list[Any], photos: Path, place: str) -> None:
    result = run(photos / "a.jpg", "--at", place)
    assert isinstance(result.exception, ImageError) and "outside the image of 80 x 60 pixels" in str(result.exception)
    assert result.stdout == ""


def test_a_place_outside_one_image_of_several_costs_that_one(pixel: list[Any], photos: Path) -> None:
    result = run(photos / "a.jpg", photos / "c.webp", "--at", "60,10", "--json")
    assert ["error" in json.loads(line) for line in result.stdout.splitlines()] == [False, True]
    assert isinstance(result.exception, ImageError)


def test_an_adapter_that_proposes_nothing(pixel: list[Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakePixel, "proposes", False)
    result = run(photos / "a.jpg", "--dense")
    assert isinstance(result.exception, InputError) and "--at" in str(result.exception)


def test_an_adapter_is_looked_at_before_the_model_is_loaded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    result = run(photos / "a.jpg", "--trace", "--adapter", tmp_path / "none")
    assert isinstance(result.exception, AdapterError) and "No adapter at" in str(result.exception)


def test_a_trace_as_a_user_types_it(default_vlm: Any, tmp_path: Path) -> None:
    """With the true model, an adapter that was never trained, and an answer in one sentence where it is not there."""
    torch.manual_seed(0)
    reader = begin(default_vlm, tokens=4, extractor_dim=32, extractor_out=32, point_dim=16, lora_rank=2)
    save(tmp_path / "adapter", reader.model, default_vlm, "Made by a test.")
    command = ("caption", EXAMPLES / "cat.jpg", "--trace", "--adapter")
    done = typed(tmp_path, *command, tmp_path / "adapter", "--json", "--save", "out.png")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["method"] == "pixel" and 0 < answer["score"] <= 1 and (tmp_path / "out.png").is_file()
    done = typed(tmp_path, *command, tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("wherein: No adapter at")
    assert len(done.stderr.splitlines()) == 1
