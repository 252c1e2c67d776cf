"""`wherein train` refuses: before a model is loaded where that can be, and nothing of the run is left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import InputError


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model fails."""

    def load_vlm(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("wherein.vlm.load_vlm", load_vlm)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--composites", "missing"), "missing is not a folder"),
        (("--composites", "file"), "file is not a folder"),
        (("--composites", "empty"), "annotations.json"),
        (("--objects", "missing"), "missing is not a folder"),
        (("--objects", "empty"), "empty"),
        (("--backgrounds", "missing"), "missing is not a folder"),
        (("--backgrounds", "empty"), "No backgrounds in empty"),
        (("--composites", "empty", "--keep-held-out"), "--keep-held-out"),
        (("--composites", "empty", "--images", 100), "of --composites all are used"),
        (("--objects", "jpegs"), "lamp holds no .png or .webp file"),
        (("--preset", "best"), "no preset 'best'"),
        (("--batch", 4, "--at-once", 3), "4 images does not come in parts of 3"),
        (("--preset", "paper", "--at-once", 5), "64 images does not come in parts of 5"),
        (("--cache", "file/cache"), "No file can be written in the folder file/cache: Not a directory"),
        (("--out", "file"), "No file can be written in the folder file: File exists"),
        (("--out", "file/out"), "No file can be written in the folder file/out: Not a directory"),
        (("--out", "a" * 300), "File name too long"),
        (("--out", "begun"), "begun holds checkpoint-0000050: add --resume"),
    ],
)
def test_what_is_wrong_without_the_model(
    options: tuple[object, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for folder in ("empty", "begun/checkpoint-0000050", "jpegs/lamp"):
        Path(folder).mkdir(parents=True)
    Path("jpegs/lamp/a.jpg").touch()
    before = sorted(Path().rglob("*"))
    done = run("pin", "--out", "out/deep", *options)
    assert isinstance(done.exception, InputError) and says in str(done.exception), done.output
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("keep", [False, True])
def test_names_of_ones_own_that_are_not_pasted_are_told(
    keep: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("dog", "glass of milk", "hex bolt"):
        (tmp_path / "own" / name).mkdir(parents=True)
        Image.new("RGBA", (8, 8)).save(tmp_path / "own" / name / "1.png")
    done = run("pin", "--out", tmp_path / "out", "--objects", tmp_path / "own", *["--keep-held-out"] * keep)
    assert isinstance(done.exception, AssertionError)  # a model would have been loaded
    told = "Not pasted, since COCO and VOC have them (--keep-held-out pastes them): dog, glass of milk, 2 in all."
    assert (told in done.output + capfd.readouterr().err) is not keep


def test_a_preset_of_another_method_is_told() -> None:
    done = run("coop", "--out", "out", "--preset", "split")
    said = "There is no preset 'split' of coop: choose auto, default, paper, released."
    assert isinstance(done.exception, InputError) and str(done.exception) == said


def test_a_model_that_there_is_not_leaves_nothing(tmp_path: Path) -> None:
    done = run("pin", "--out", tmp_path / "out", "--model", tmp_path / "none")
    assert isinstance(done.exception, InputError) and "none" in str(done.exception)
    assert os.listdir(tmp_path) == []


def test_a_model_that_the_preset_does_not_suit_leaves_nothing(build: Any, tmp_path: Path) -> None:
    vlm, out = build("llava"), tmp_path / "out"
    vlm.model.save_pretrained(tmp_path / "model")
    vlm.processor.save_pretrained(tmp_path / "model")
    done = run("pin", "--out", out, "--model", tmp_path / "model", "--preset", "default")
    assert isinstance(done.exception, InputError) and "use the preset paper" in str(done.exception)
    assert not out.exists()
