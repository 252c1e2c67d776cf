"""From names, or a folder of pictures, to a bank: whatever happens on the way, each picture is made and cut once."""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import InputError
from wherein.journal import Journal
from wherein.synth import ObjectBank
from wherein.synth.background_filter import filter_backgrounds
from wherein.synth.choosing import Rule, choose
from wherein.synth.clip import Clip
from wherein.synth.contact_sheet import sheet
from wherein.synth.cutting import Cut, Cutter
from wherein.synth.diffusion import Diffusion, seed_of
from wherein.synth.foreground import ClipSeg
from wherein.synth.making import Item, Outcome, cut_pictures, draw_pictures
from wherein.synth.object_report import finish
from wherein.synth.own import find_pictures

SETTINGS = {"diffusion": "tiny", "steps": 2}
NAMES = ("tea pot", "lamp")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny checkpoints; pytest's importlib mode has no packages of tests."""
    made, folder = runpy.run_path(str(Path(__file__).parents[1] / "tiny_objects.py")), tmp_path_factory.mktemp("tiny")
    return {kind: str(made[kind](folder / kind)) for kind in ("diffusion", "clip", "clipseg")}


@pytest.fixture(scope="module")
def diffusion(folders: dict[str, str]) -> Diffusion:
    return Diffusion(folders["diffusion"], "cpu", steps=2)


@pytest.fixture(scope="module")
def cutter(folders: dict[str, str]) -> Cutter:
    return Cutter({"clipseg": ClipSeg(folders["clipseg"], "cpu")}, clip=Clip(folders["clip"], "cpu"))


class Counting:
    """A text-to-image model that notes what it was asked, and dies when it was asked often enough."""

    def __init__(self, model: Diffusion, until: int = 1000) -> None:
        self.model, self.until, self.seeds = model, until, list[int]()

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[NDArray[np.uint8] | None]:
        if len(self.seeds) + len(seeds) > self.until:
            raise KeyboardInterrupt
        self.seeds += seeds
        return self.model.draw(prompts, seeds)


def drawn(out: Path, model: Any, batch: int = 4, per_name: int = 5, seed: int = 0, **more: Any) -> list[Item]:
    settings = {**SETTINGS, **more}
    return draw_pictures(
        NAMES, out, lambda: model, per_name=per_name, seed=seed, batch=batch, settings=settings, licence="MIT"
    )


def pixels(out: Path) -> dict[str, NDArray[np.int64]]:
    return {
        file.relative_to(out).as_posix(): np.asarray(Image.open(file)).astype(int)
        for file in sorted(out.rglob("*.png"))
    }


def assert_same(one: Path, other: Path, levels: int = 0) -> None:
    first, second = pixels(one), pixels(other)
    assert list(first) == list(second)
    for file, content in first.items():
        assert np.abs(content - second[file]).max() <= levels, file


def test_a_killed_run_goes_on_to_what_an_uninterrupted_one_makes(diffusion: Diffusion, tmp_path: Path) -> None:
    """Batches of one and of four differ by at most one grey level of float32's rounding."""
    whole = drawn(tmp_path / "whole", diffusion, batch=1)
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        drawn(killed, Counting(diffusion, until=4))
    journal = killed / "pictures.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # killed in the midst of a line: its picture is there already
    rest = Counting(diffusion)
    items = drawn(killed, rest)
    assert len(rest.seeds) == 10 - 3 and len(set(rest.seeds)) == 7
    assert_same(tmp_path / "whole", killed, levels=1)
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert len(rows) == 10 == len({(row["name"], row["index"]) for row in rows})
    assert [(item.name, item.key, item.seed) for item in items] == [(i.name, i.key, i.seed) for i in whole]
    assert items[3].seed == seed_of(0, "tea pot", 3) and items[3].key == "tea_pot/0003.png"
    nothing = Counting(diffusion, until=0)
    assert drawn(killed, nothing) == items


def test_more_pictures_may_be_asked_for_and_a_lost_one_comes_back(diffusion: Diffusion, tmp_path: Path) -> None:
    drawn(tmp_path, diffusion, per_name=2)
    before = pixels(tmp_path)
    (tmp_path / "pictures/lamp/0001.png").unlink()
    model = Counting(diffusion)
    assert len(drawn(tmp_path, model, per_name=3)) == 6 and len(model.seeds) == 3
    after = pixels(tmp_path)
    assert len(after) == 6
    for file, content in before.items():
        assert np.abs(after[file] - content).max() <= 1


def test_other_settings_do_not_mix(diffusion: Diffusion, tmp_path: Path) -> None:
    drawn(tmp_path, diffusion, per_name=1)
    before = pixels(tmp_path)
    with pytest.raises(InputError, match="seed 0, not 1"):
        drawn(tmp_path, diffusion, per_name=1, seed=1)
    with pytest.raises(InputError, match="steps 2, not 3"):
        drawn(tmp_path, diffusion, per_name=1, steps=3)
    assert pixels(tmp_path).keys() == before.keys()


def test_the_whole_way_gives_a_bank(diffusion: Diffusion, cutter: Cutter, tmp_path: Path) -> None:
    outcomes = cut_pictures(drawn(tmp_path, diffusion), tmp_path, lambda: cutter, settings={"by": "clipseg"})
    report = finish(outcomes, tmp_path, Rule(at_least=1), SETTINGS, [("cat", "held out")])
    bank = ObjectBank.from_folder(tmp_path)
    assert bank.names == ("lamp", "tea pot") and len(bank) == report["cutouts"] > 2
    for cutout in bank:
        alpha = cutout.rgba[..., 3]
        assert set(np.unique(alpha)) <= {0, 255} and alpha[0].any() and alpha[:, -1].any()
        assert cutout.licence == "MIT"
    rows = json.loads((tmp_path / "index.json").read_text())
    seeds = {seed_of(0, name, index) for name in NAMES for index in range(5)}
    assert {row["seed"] for row in rows} <= seeds and all(str(row["seed"]) in row["source"] for row in rows)
    for name in report["names"]:
        assert name["pictures"] == 5 == name["kept"] + sum(name["refused"].values())
        scores = [row["clip"] for row in rows if row["name"] == name["name"]]
        assert max(scores) == name["best"] and min(scores) >= name["bar"] == min(21, name["best"] - 1)
    text = (tmp_path / "report.md").read_text()
    assert "| tea pot | 5 |" in text and "- cat: held out" in text
    assert Image.open(tmp_path / "sheets/tea_pot.png").width > 500


def test_cutting_goes_on_where_it_was_killed(diffusion: Diffusion, cutter: Cutter, tmp_path: Path) -> None:
    items = drawn(tmp_path, diffusion)
    cut = Counted(cutter, until=3)
    with pytest.raises(KeyboardInterrupt):
        cut_pictures(items, tmp_path, cut, settings={})
    rest = Counted(cutter)
    outcomes = cut_pictures(items, tmp_path, rest, settings={})
    assert rest.count == 7
    again = Counted(cutter)
    assert cut_pictures(items, tmp_path, again, settings={}) == outcomes and again.count == 0
    whole = cut_pictures(items, tmp_path / "whole", lambda: cutter, settings={})
    assert whole == outcomes  # to the last bit of the scores
    assert_same(tmp_path / "cutouts", tmp_path / "whole/cutouts")
    cut_pictures(items, tmp_path, again, settings={"segmenters": ["another"]})
    assert again.count == 10


def test_a_cutout_that_other_settings_wrote_over_is_cut_again(tmp_path: Path) -> None:
    save(tmp_path / "own/lamp/a.png", 255)
    items, _ = find_pictures(tmp_path / "own", "")

    def cut(side: int) -> Outcome:
        made = Cut(np.full((side, side, 4), 255, np.uint8), f"by {side}", side / 100, None)
        cutter: Any = SimpleNamespace(cut=lambda picture, name: made)
        (outcome,) = cut_pictures(items, tmp_path, lambda: cutter, settings={"side": side})
        return outcome

    for side in (5, 9, 5):
        outcome = cut(side)
        assert outcome.segmenter == f"by {side}" and Image.open(tmp_path / str(outcome.file)).width == side


class Counted:
    """Loads a cutter that counts its pictures, and is killed after some."""

    def __init__(self, cutter: Cutter, until: int = 1000) -> None:
        self.cutter, self.until, self.count = cutter, until, 0

    def __call__(self) -> Any:
        return self

    def cut(self, picture: NDArray[np.uint8], name: str) -> Any:
        if self.count == self.until:
            raise KeyboardInterrupt
        self.count += 1
        return self.cutter.cut(picture, name)


def save(path: Path, alpha: NDArray[np.uint8] | int, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    noise[..., 3] = alpha
    Image.fromarray(noise).save(path)
    return path


def half(rows: slice = slice(10, 20)) -> NDArray[np.uint8]:
    alpha = np.zeros((30, 40), np.uint8)
    alpha[rows, 5:25] = 200
    return alpha


def test_a_folder_of_ones_own(cutter: Cutter, tmp_path: Path) -> None:
    """Transparent pictures are taken as they are, photographs cut out; what is unusable is said and ends nothing."""
    own, out = tmp_path / "own", tmp_path / "out"
    first = save(own / "tea_pot/a.png", half())
    save(own / "tea_pot/ghost.png", 0)
    photo = save(own / "lamp/photo.png", 255)
    Image.open(photo).convert("RGB").save(own / "lamp/photo.jpg")
    (own / "lamp/broken.png").write_bytes(first.read_bytes()[:60])
    (own / "Empty").mkdir()
    save(own / "_/a.png", half())
    items, complaints = find_pictures(own, "CC0")
    assert len(complaints) == 2 and "Empty" in complaints[0] and "'_'" in complaints[1]
    outcomes = cut_pictures(items, out, lambda: cutter, settings={})
    of = {outcome.item.key: outcome for outcome in outcomes}
    assert of["tea_pot/a.png"].segmenter == "alpha" and of["tea_pot/a.png"].area == 200 / 1200
    assert of["tea_pot/a.png"].score is None
    assert "is transparent everywhere" in str(of["tea_pot/ghost.png"].complaint)
    assert "damaged or cut short" in str(of["lamp/broken.png"].complaint)
    assert {of["lamp/photo.jpg"].file, of["lamp/photo.png"].file} == {
        "cutouts/lamp/photo.jpg.png",
        "cutouts/lamp/photo.png",
    }
    report = finish(outcomes, out, Rule(at_least=1), {}, complaints=complaints)
    assert len(report["unusable"]) == 4
    bank = ObjectBank.from_folder(out)
    (pot,) = (bank[index] for index in bank.indices("tea pot"))
    np.testing.assert_array_equal(pot.rgba, np.asarray(Image.open(first))[10:20, 5:25])
    assert pot.source == "tea_pot/a.png" and pot.licence == "CC0" and len(bank.indices("lamp")) == 2


def test_a_mended_picture_is_looked_at_again(tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    save(own / "lamp/a.png", 0)
    save(own / "lamp/b.png", half())
    (bad, good) = cut_pictures(find_pictures(own, "CC0")[0], out, lambda: None, settings={})
    assert bad.complaint and good.area == 200 / 1200
    save(own / "lamp/a.png", half())
    save(own / "lamp/b.png", half(slice(5, 25)))
    (bad, good) = cut_pictures(find_pictures(own, "CC0")[0], out, lambda: None, settings={})
    assert bad.complaint is None and bad.area == 200 / 1200 and good.area == 400 / 1200


def test_a_photograph_without_a_segmenter_says_what_to_give(tmp_path: Path) -> None:
    save(tmp_path / "own/lamp/a.png", 255)
    (outcome,) = cut_pictures(find_pictures(tmp_path / "own", "")[0], tmp_path, lambda: None, settings={})
    assert "--segmenter clipseg=MODEL" in str(outcome.complaint)


def test_a_folder_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No sub-folder"):
        find_pictures(tmp_path, "")
    with pytest.raises(InputError, match="not a folder"):
        find_pictures(tmp_path / "none", "")
    for name in ("Tea_Pot", "tea pot"):
        save(tmp_path / name / "a.png", half())
    items, complaints = find_pictures(tmp_path, "")
    assert len(items) == 1 and "make them one" in complaints[0]


def test_two_pictures_do_not_share_a_cutout(tmp_path: Path) -> None:
    save(tmp_path / "lamp/a.jpg.png", half())
    Image.new("RGB", (40, 30)).save(tmp_path / "lamp/a.jpg")
    save(tmp_path / "lamp/b.png", half())
    items, (complaint,) = find_pictures(tmp_path, "")
    assert [item.key for item in items] == ["lamp/a.jpg", "lamp/b.png"]
    assert "a.jpg and" in complaint and "rename one" in complaint


def test_what_is_passed_over_in_a_folder_of_ones_own_is_told(tmp_path: Path) -> None:
    save(tmp_path / "lamp/b.png", half())
    (tmp_path / "lamp/a.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "lamp/c.heic").touch()
    items, complaints = find_pictures(tmp_path, "")
    assert [item.key for item in items] == ["lamp/b.png"]
    assert "c.heic is in a format" in complaints[0] and "a.png is a link" in complaints[1]


def test_names_of_files_that_are_not_utf8_go_through(tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    save(own / "lamp/a.png", half())
    try:
        (own / "lamp/a.png").rename(own / "lamp" / os.fsdecode(b"\xff.png"))
        (own / os.fsdecode(b"b\xff")).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    save(own / os.fsdecode(b"b\xff") / "a.png", half())
    items, complaints = find_pictures(own, "CC0")
    outcomes = cut_pictures(items, out, lambda: None, settings={})
    assert cut_pictures(items, out, lambda: None, settings={}) == outcomes
    report = finish(outcomes, out, Rule(at_least=1), {}, complaints=complaints)
    assert report["cutouts"] == 1 == len(report["unusable"])
    (cutout,) = ObjectBank.from_folder(out)
    assert cutout.rgba.shape == (10, 20, 4) and cutout.source == os.fsdecode(b"lamp/\xff.png")


def outcome(name: str, score: float | None, why: str | None = None) -> Outcome:
    item = Item(name, f"{name}/{score}.png", None, "", "", "")
    return Outcome(item, None if why else f"{score}.png", why, "clipseg", 0.5, score)


@given(st.lists(st.floats(0, 40), max_size=30), st.floats(0, 40), st.floats(0, 5), st.integers(1, 21))
def test_the_bar_adapts_to_the_class(scores: list[float], min_clip: float, tolerance: float, at_least: int) -> None:
    outcomes = [outcome("lamp", score) for score in scores] + [outcome("lamp", None, "no foreground")]
    (chosen,) = choose(outcomes, Rule(min_clip, tolerance, at_least))
    wanted = sorted((s for s in scores if s >= min_clip or s >= max(scores) - tolerance), reverse=True)
    assert [o.score for o in chosen.kept] == wanted
    assert len(chosen.refused) == len(outcomes) - len(wanted)
    assert chosen.dropped == (len(wanted) < at_least)


def test_a_class_with_twenty_is_dropped_and_one_with_twenty_one_stays(tmp_path: Path) -> None:
    """PIN-7: classes with <= 20 cut-outs are gone."""
    outcomes = [outcome(name, 30.0 + i) for name, count in (("few", 20), ("enough", 21)) for i in range(count)]
    report = finish(outcomes, tmp_path, Rule(), {})
    assert report["cutouts"] == 21 and [name["dropped"] for name in report["names"]] == [True, False]
    assert {row["name"] for row in json.loads((tmp_path / "index.json").read_text())} == {"enough"}


def test_a_sheet_shows_the_kept_and_the_refused(tmp_path: Path) -> None:
    red, blue = (np.array([*colour, 255], np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    for name, colour in (("30.0.png", red), ("10.0.png", blue)):
        Image.fromarray(np.broadcast_to(colour, (20, 20, 4)).copy()).save(tmp_path / name)
    (chosen,) = choose([outcome("lamp", 30.0), outcome("lamp", 10.0), outcome("lamp", None, "area")], Rule())
    page = sheet(chosen, tmp_path)
    left, right = (np.flatnonzero((page == colour[:3]).all(axis=2).any(axis=0)) for colour in (red, blue))
    assert len(left) >= 20 and len(right) >= 20 and left.max() < right.min()


def test_backgrounds_that_show_an_object_go(tmp_path: Path) -> None:
    grounds, out = tmp_path / "grounds", tmp_path / "out"
    for place, colour in (("a.png", "red"), ("deep/b.jpg", "blue")):
        (grounds / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(grounds / place)
    (grounds / "c.png").write_bytes(b"nothing")

    def scores(pictures: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float64]:
        assert texts == ["a photo of anvil", "a photo of lamp"]
        return np.array([[10.0, 30.0 if pictures[0][0, 0, 0] > 128 else 20.0]])

    clip: Any = SimpleNamespace(scores=scores, name="fake")
    report = filter_backgrounds(grounds, ["anvil", "lamp"], clip, out, 25)
    files = ["deep/b.jpg", "report.json", "scores.jsonl"]
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*.*"))] == files
    assert (out / "deep/b.jpg").read_bytes() == (grounds / "deep/b.jpg").read_bytes()
    gone, unreadable, kept = report["pictures"]
    assert gone == {"file": "a.png", "kept": False, "most_like": "lamp", "clip": 30.0}
    assert "c.png" in unreadable["unusable"] and kept["kept"]
    with pytest.raises(InputError, match="No backgrounds"):
        filter_backgrounds(tmp_path / "none", ["lamp"], clip, out, 25)


def test_backgrounds_go_on_and_another_bar_or_list_removes_what_it_refuses(tmp_path: Path) -> None:
    grounds, out = tmp_path / "grounds", tmp_path / "out"
    grounds.mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (30, 20), (10 * number, 0, 0)).save(grounds / f"{name}.png")
    looked: list[int] = []

    def scores(pictures: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float64]:
        if len(looked) == 2:
            looked.append(-1)
            raise KeyboardInterrupt
        looked.append(int(pictures[0][0, 0, 0]))
        return np.array([[looked[-1] + len(texts)] * len(texts)], float)

    clip: Any = SimpleNamespace(scores=scores, name="fake")

    def kept(bar: float, *names: str) -> list[str]:
        filter_backgrounds(grounds, names, clip, out, bar)
        return sorted(path.name for path in out.glob("*.png"))

    with pytest.raises(KeyboardInterrupt):
        kept(30, "lamp")
    assert kept(30, "lamp") == ["a.png", "b.png", "c.png"] and looked == [0, 10, -1, 20]
    assert kept(15, "lamp") == ["a.png", "b.png"] and kept(30, "lamp") == ["a.png", "b.png", "c.png"]
    assert len(looked) == 4
    assert kept(12, "lamp", "bolt") == ["a.png"] and len(looked) == 7  # other names: looked at again
    (grounds / "a.png").write_bytes(b"broken since")
    assert kept(30, "lamp") == ["b.png", "c.png"]
    (grounds / "b.png").unlink()
    assert kept(30, "lamp") == ["c.png"]


def test_backgrounds_do_not_go_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "grounds").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "grounds/a.png")
    clip: Any = SimpleNamespace(scores=None, name="fake")
    with pytest.raises(InputError, match="holds other files"):
        filter_backgrounds(tmp_path / "grounds", ["lamp"], clip, tmp_path, 25)


@pytest.mark.parametrize("out", ["grounds", "grounds/kept", "link"])
def test_backgrounds_are_not_copied_among_themselves(out: str, tmp_path: Path) -> None:
    (tmp_path / "grounds").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "grounds", target_is_directory=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "grounds/a.png")
    clip: Any = SimpleNamespace(scores=lambda *_: np.array([[10.0]]), name="fake")
    with pytest.raises(InputError, match=f"{out} lies in .*grounds, so .*: give a folder outside it"):
        filter_backgrounds(tmp_path / "grounds", ["lamp"], clip, tmp_path / out, 25)
    assert [path.name for path in (tmp_path / "grounds").iterdir()] == ["a.png"]


@pytest.mark.parametrize("row", [{}, {"name": [], "index": 0, "file": None}, {"key": "lamp/a.png", "outcome": 5}])
def test_a_row_of_another_job_is_one_sentence(row: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / "own/lamp/a.png", half())
    items, _ = find_pictures(tmp_path / "own", "")
    Journal(tmp_path / "cutouts.jsonl", {"schema": 1}).add(row)
    with pytest.raises(InputError, match="cutouts.jsonl is damaged"):
        cut_pictures(items, tmp_path, lambda: None, settings={})
    Journal(tmp_path / "pictures.jsonl", {**SETTINGS, "seed": 0}).add(row)
    with pytest.raises(InputError, match="pictures.jsonl is damaged"):
        drawn(tmp_path, None)
