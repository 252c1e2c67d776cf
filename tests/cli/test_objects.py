"""`wherein objects`: names or pictures in, a folder of cut-outs out."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wherein.cli.objects import app
from wherein.errors import InputError
from wherein.journal import locked
from wherein.synth import Backgrounds, ObjectBank


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny checkpoints; pytest's importlib mode has no packages of tests."""
    made, folder = runpy.run_path(str(Path(__file__).parents[1] / "tiny_objects.py")), tmp_path_factory.mktemp("tiny")
    files = {"diffusion": "diffusion", "clip": "clip", "clipseg": "clipseg", "u2net": "u2net.pth"}
    return {kind: str(made[kind](folder / file)) for kind, file in files.items()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def cutout(path: Path, alpha: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rgba = np.full((20, 30, 4), (200, 20, 20, 0), np.uint8)
    rgba[5:15, 5:25, 3] = alpha
    Image.fromarray(rgba).save(path)


def test_make_leaves_a_bank_and_goes_on(tiny: dict[str, str], here: Path) -> None:
    (here / "names.txt").write_text("tea_pot\ncat\nlamp\n")
    arguments = ["make", "--names", "names.txt", "--out", "mine", "--steps", "2", "--at-least", "1", "--device", "cpu"]
    arguments += ["--diffusion", tiny["diffusion"], "--clip", tiny["clip"], "--segmenter", f"clipseg={tiny['clipseg']}"]
    done = run(*arguments, "--per-name", "2")
    assert done.exit_code == 0, done.exception
    assert "names left out: 1, such as cat (held out" in done.stderr and "names: 2 of 2" in done.stdout
    assert set(ObjectBank.from_folder("mine").names) == {"tea pot", "lamp"}
    before = {file: file.stat().st_mtime_ns for file in (here / "mine/pictures").rglob("*.png")}
    assert run(*arguments, "--per-name", "3").exit_code == 0
    after = {file: file.stat().st_mtime_ns for file in (here / "mine/pictures").rglob("*.png")}
    assert len(after) == 6 and before.items() < after.items()
    report = json.loads((here / "mine/report.json").read_text())
    assert report["settings"]["keep_held_out"] is False and report["left_out"][0]["name"] == "cat"
    assert {one["segmenter"] for one in json.loads((here / "mine/index.json").read_text())} == {
        f"clipseg={tiny['clipseg']}"
    }
    assert run(*arguments, "--per-name", "3", "--segmenter", f"u2net={tiny['u2net']}").exit_code == 0
    again = {file: file.stat().st_mtime_ns for file in (here / "mine/pictures").rglob("*.png")}
    assert again == after  # other segmenters, the same pictures: CLIP chooses anew, picture by picture
    assert f"u2net={tiny['u2net']}" in {one["segmenter"] for one in json.loads((here / "mine/index.json").read_text())}
    refused = run(*arguments, "--seed", "1")
    assert isinstance(refused.exception, InputError) and "seed 0, not 1" in str(refused.exception)


def test_cut_takes_what_is_usable_and_ends_with_an_error(here: Path) -> None:
    cutout(here / "own/bottle/a.png")
    cutout(here / "own/lamp/b.png")
    assert run("cut", "own", "--out", "fine", "--licence", "CC0").exit_code == 0
    bank = ObjectBank.from_folder("fine")
    assert bank[0].rgba.shape == (10, 20, 4) and {one.licence for one in bank} == {"CC0"}
    assert "held out of PIN's training (bottle)" in (here / "fine/report.md").read_text()
    (here / "own/lamp/broken.png").write_bytes(b"nothing")
    (here / "own/none").mkdir()
    cutout(here / "own/lamp/ghost.png", alpha=0)
    done = run("cut", "own", "--out", "fine")
    assert isinstance(done.exception, InputError) and str(done.exception).startswith("3 pictures or folders")
    for word in ("own/lamp/broken.png", "own/none", "own/lamp/ghost.png"):
        assert word in done.stderr
    assert len(ObjectBank.from_folder("fine")) == 2


def test_cut_leaves_the_originals_alone(here: Path) -> None:
    cutout(here / "mine/cutouts/bolt/a.png")
    before = (here / "mine/cutouts/bolt/a.png").read_bytes()
    for folder in ("mine/cutouts", "mine/cutouts/../cutouts"):
        done = run("cut", folder, "--out", "mine")
        assert isinstance(done.exception, InputError) and "written over" in str(done.exception)
    assert (here / "mine/cutouts/bolt/a.png").read_bytes() == before


def test_two_jobs_do_not_write_to_one_folder(here: Path) -> None:
    cutout(here / "own/lamp/a.png")
    (here / "names.txt").write_text("lamp")
    with locked(here / "x"):
        for arguments in (["cut", "own"], ["make", "--names", "names.txt"]):
            done = run(*arguments, "--out", "x")
            assert isinstance(done.exception, InputError) and "Another process" in str(done.exception)


def test_backgrounds_are_copied_where_clip_sees_no_object(tiny: dict[str, str], here: Path) -> None:
    (here / "names.txt").write_text("tea_pot\n")
    (here / "grounds").mkdir()
    Image.new("RGB", (30, 20), "green").save(here / "grounds/a.png")
    arguments = ["backgrounds", "grounds", "--names", "names.txt", "--clip", tiny["clip"], "--device", "cpu"]
    done = run(*arguments, "--out", "all", "--max-clip", "100")
    assert done.exit_code == 0 and "1 of 1 backgrounds" in done.stdout, done.exception
    assert Backgrounds.from_folder("all").count == 1
    assert "0 of 1" in run(*arguments, "--out", "no", "--max-clip", "-100").stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["make", "--names", "none.txt", "--out", "x"], "none.txt"),
        (["make", "--names", "cats.txt", "--out", "x"], "--keep-held-out"),
        (["make", "--names", "names.txt", "--out", "x", "--segmenter", "u2net"], "KIND=MODEL"),
        (["make", "--names", "names.txt", "--out", "x", "--min-area", "0.9", "--max-area", "0.1"], "--min-area"),
        (["make", "--names", "names.txt", "--out", "names.txt"], "names.txt"),
        (["make", "--names", "names.txt", "--out", "x", "--clip", "nobody/x", "--segmenter", "clipseg=a/b"], "a/b"),
        (["cut", "none", "--out", "x"], "none is not a folder"),
        (["cut", "own", "--out", "own/x"], "another folder"),
        (["cut", "own", "--out", "x", "--segmenter", "clipseg=a", "--segmenter", "sam=b"], "--clip"),
        (["cut", "own", "--out", "x", "--segmenter", "sam=b"], "clipseg"),
        (["cut", "photos", "--out", "x", "--segmenter", "u2net=names.txt"], "names.txt holds no U2-Net"),
        (["cut", "own", "--out", "x", "--at-least", "2"], "--at-least"),
        (["cut", "own", "--out", "x", "--min-clip", "nan"], "--min-clip is nan"),
        (["cut", "own", "--out", "x", "--tolerance", "inf"], "--tolerance is inf"),
        (["make", "--names", "names.txt", "--out", "x", "--guidance", "inf"], "--guidance is inf"),
        (["backgrounds", "own", "--names", "names.txt", "--out", "x", "--max-clip", "nan"], "--max-clip is nan"),
        (["backgrounds", "none", "--names", "names.txt", "--out", "x"], "none is not a folder"),
        (["backgrounds", "own", "--names", "names.txt", "--out", "own/x"], "another folder"),
        (["backgrounds", "own", "--names", "names.txt", "--out", "x", "--clip", "nobody/x"], "nobody/x"),
    ],
)
def test_wrong_calls_are_one_sentence(arguments: list[str], word: str, here: Path) -> None:
    (here / "names.txt").write_text("lamp")
    (here / "cats.txt").write_text("cat")
    cutout(here / "own/lamp/a.png")
    (here / "photos/lamp").mkdir(parents=True)
    Image.new("RGB", (30, 20), "green").save(here / "photos/lamp/a.png")
    done = run(*arguments)
    assert isinstance(done.exception, InputError) and word in str(done.exception)
