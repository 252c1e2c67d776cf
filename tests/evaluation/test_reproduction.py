"""A paper's table: rows in several runs, paired tests, published values beside, what is there is not run again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein.data import Dataset, open_dataset, refuse
from wherein.errors import AdapterError, InputError
from wherein.evaluation import page, select
from wherein.evaluation.papers import HEADS, PIN_1
from wherein.evaluation.parts import Part, Table, heads_table, identity, pin_table
from wherein.evaluation.reproduction import Chosen, reproduce
from wherein.grounding import Grounding
from wherein.methods import adapter
from wherein.methods.heads import HeadsConfig
from wherein.methods.in_context import InContext, Random, composites

BOXES = [[10, 10, 40, 40], [0, 0, 50, 20], [20, 5, 30, 25], [5, 5, 45, 45]]


class Answers:
    """The box of each image moved to the right by `shift` pixels, or nothing at all."""

    name = "answers"

    def __init__(self, shift: float | None, config: str = "") -> None:
        self.shift, self.config, self.asked = shift, config, 0

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        self.asked += 1
        box = np.array(BOXES[int(image[0, 0, 0])], float)[None]
        box = np.empty((0, 4)) if self.shift is None else box + [self.shift, 0, self.shift, 0]
        return [Grounding(phrase, box, np.ones(len(box)), "none", False, None) for phrase in phrases]


@pytest.fixture
def coco(tmp_path: Path) -> Chosen:
    folder = tmp_path / "coco_small"
    (folder / "images").mkdir(parents=True)
    for i in range(len(BOXES)):
        Image.fromarray(np.full((60, 60, 3), i, np.uint8)).save(folder / "images" / f"{i}.png")
    boxes = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in BOXES]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 60} for i in range(len(BOXES))],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": list(box), "iscrowd": 0} for i, box in enumerate(boxes)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    dataset = open_dataset(folder)
    return Chosen(dataset, "pin", select("pin", dataset))


@pytest.fixture
def save_heads_for(tmp_path: Path) -> Callable[..., Path]:
    def save(vlm: Any) -> Path:
        config = HeadsConfig(heads=((0, 1), (1, 2)))
        return adapter.save_file_only(tmp_path / "heads.json", "heads", vlm, config.to_dict(), {})

    return save


def table(rows: dict[str, list[Answers]], published: Any = None, made: list[str] | None = None) -> Table:
    def part(name: str) -> Part:
        def make() -> Sequence[Sequence[Answers]]:
            if made is not None:
                made.append(name)
            if not rows[name]:
                raise AdapterError(f"No adapter for {name}.")
            return [rows[name]]

        return Part((name,), make)

    return Table("A table", tuple(map(part, rows)), published or {}, ("miou", "p@0.5"))


def call(made: Table, chosen: Chosen, folder: Path, **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return reproduce(
        made,
        chosen,
        folder,
        settings,
        baseline="right",
        seed=0,
        complain=refuse,
        track=lambda items, *_: items,
    )


def test_figures_of_rows_with_one_run_and_with_several(coco: Chosen, tmp_path: Path) -> None:
    rows = {"right": [Answers(0)], "left": [Answers(-3), Answers(-30), Answers(None)], "missing": []}
    found = call(table(rows), coco, tmp_path / "out")
    right, left = found["rows"]["right"], found["rows"]["left"]
    assert (found["n"], found["images"]) == (4, 4)
    assert right["miou"] == right["p@0.5"] == 1 and right["invalid"] == 0 and right["deviation"] == {}
    one = [np.mean([max(0, w - s) / (w + min(s, w)) for w in (30, 50, 10, 40)]) for s in (3, 30)] + [0]
    assert left["miou"] == pytest.approx(np.mean(one)) and left["runs"] == 3
    assert left["deviation"]["miou"] == pytest.approx(np.std(one, ddof=1))
    assert left["invalid"] == pytest.approx(1 / 3)
    low, high = left["ci95"]
    assert low < left["miou"] < high
    compared = left["minus right"]
    assert compared["difference"] == pytest.approx(left["miou"] - 1)
    assert compared["ci95"][0] < compared["difference"] < compared["ci95"][1] < 0 and 0 < compared["p"] < 0.01
    assert "minus right" not in right
    assert found["not run"] == {"missing": "No adapter for missing."}


def test_sizes_are_those_of_the_model_s_scale(coco: Chosen, tmp_path: Path) -> None:
    """Of 60-pixel images, a side of 30 is one of 112 at 224 pixels: large; the third and second box are medium."""
    found = call(table({"right": [Answers(-5)]}), coco, tmp_path / "out")["rows"]["right"]
    iou = [(w - 5) / (w + 5) for w in (30, 50, 10, 40)]
    assert found["miou_l"] == pytest.approx(np.mean([iou[0], iou[1], iou[3]]))
    assert found["miou_m"] == pytest.approx(iou[2])
    assert found["ciou"] is None


def test_the_same_call_again_asks_nothing(coco: Chosen, tmp_path: Path) -> None:
    def rows() -> dict[str, list[Answers]]:
        return {"right": [Answers(0)], "left": [Answers(-3), Answers(-4)]}

    first = call(table(rows()), coco, tmp_path / "out", model="a")
    again = rows()
    second = call(table(again), coco, tmp_path / "out", model="a")
    assert all(one.asked == 0 for some in again.values() for one in some)
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("settings", [{"model": "b"}, {"model": "a", "config": "other"}])
def test_another_model_or_answerer_is_asked_anew(coco: Chosen, tmp_path: Path, settings: dict[str, str]) -> None:
    call(table({"right": [Answers(0)]}), coco, tmp_path / "out", model="a")
    config = settings.pop("config", "")
    answers = Answers(0, config)
    call(table({"right": [answers]}), coco, tmp_path / "out", **settings)
    assert answers.asked == 4
    before = Answers(0)
    call(table({"right": [before]}), coco, tmp_path / "out", model="a")
    assert before.asked == 0  # what was answered under the first settings is still there


@pytest.mark.parametrize(
    ("folder", "split", "key"),
    [
        ("refcoco", "val", "refcoco val"),
        ("refcoco", "testA", "refcoco testa"),
        ("refcoco+", "val", ""),
        ("refcocog", "val", ""),
        ("grefcoco", "val", ""),
    ],
)
def test_a_split_of_refcoco_is_not_another_one(folder: str, split: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / folder / "refs.json"
    dataset = Dataset("refcoco", folder, (path,), lambda complain: iter(()), False, split)
    assert Chosen(dataset, "phrases", []).key == key


def test_images_that_cannot_be_read_leave_nothing_to_print(coco: Chosen, tmp_path: Path) -> None:
    for sample in coco.samples:
        sample.path.write_bytes(b"no image")
    heard: list[InputError] = []
    with pytest.raises(InputError, match="could be asked about"):
        reproduce(
            table({"right": [Answers(0)]}),
            coco,
            tmp_path,
            {},
            baseline="right",
            seed=0,
            complain=heard.append,
            track=lambda items, *_: items,
        )
    assert len(heard) == 4


def test_an_interrupted_run_goes_on(coco: Chosen, tmp_path: Path) -> None:
    class Breaks(Answers):
        def ground(self, *args: Any, **kwargs: Any) -> list[Grounding]:
            if self.asked == 2:
                raise KeyboardInterrupt
            return super().ground(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        call(table({"right": [Breaks(0)]}), coco, tmp_path / "out")
    answers = Answers(0)
    found = call(table({"right": [answers]}), coco, tmp_path / "out")
    assert answers.asked == 2 and found["n"] == 4


def results(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": "A table",
        "model": "tiny",
        "figures": ("miou", "p@0.5"),
        "baseline": "right",
        "data": [found],
        "made": {"command": "wherein reproduce pin", "seed": 0},
    }


def test_files(coco: Chosen, tmp_path: Path) -> None:
    published = {"left": {"coco": {"miou": 0.25}}}
    rows = {"right": [Answers(0)], "left": [Answers(-3), Answers(-4)], "missing": []}
    found = call(table(rows, published), coco, tmp_path / "out")
    paths = page.write(results(found), tmp_path / "out")
    assert [path.name for path in paths] == ["table.json", "table.csv", "table.md", "table.png"]
    assert json.loads(paths[0].read_text())["data"][0]["rows"]["left"]["published"] == {"miou": 0.25}
    lines = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert [line["row"] for line in lines] == ["right", "left"]
    assert float(lines[1]["miou difference"]) == pytest.approx(float(lines[1]["miou"]) - 0.25)
    assert lines[0]["miou published"] == "" and float(lines[1]["minus right p"]) < 1
    text = paths[2].read_text()
    assert "| left | 0." in text and "±" in text and "| 0.25 | - |" in text
    assert "- not run: missing. No adapter for missing." in text and "    wherein reproduce pin" in text
    with Image.open(paths[3]) as picture:
        assert picture.width > 300


@pytest.mark.parametrize(
    ("folder", "key"),
    [("coco_small", "coco"), ("voc2007_mini", "voc"), ("lvis_v1_val", "lvis"), ("mine", ""), ("advocate", "")],
)
def test_the_published_set_is_told_by_its_name(coco: Chosen, folder: str, key: str, tmp_path: Path) -> None:
    """A set in COCO's format may be any: what it is called says what it is."""
    (tmp_path / "coco_small").rename(tmp_path / folder)
    dataset = open_dataset(tmp_path / folder)
    chosen = Chosen(dataset, "pin", select("pin", dataset))
    assert chosen.key == key


def test_every_row_of_pin_s_first_table_on_the_tiny_model(tiny_vlm: Any, coco: Chosen, tmp_path: Path) -> None:
    """Without adapters the trained rows are told, the others run: ten runs of what draws."""
    made = pin_table(1, tiny_vlm, tmp_path / "none", seed=0)
    assert [row for part in made.parts for row in part.rows] == ["centre", *PIN_1, "heads", "cam"]
    (tmp_path / "none").mkdir()
    some = [part for part in made.parts if part.rows[0] in ("centre", "text", "random", "in_context 2", "coop", "cam")]
    found = call(Table("t", tuple(some), PIN_1, ("miou",)), coco, tmp_path / "out")
    assert set(found["rows"]) == {"centre", "text", "random", "in_context 2"}
    assert found["rows"]["random"]["runs"] == found["rows"]["in_context 2"]["runs"] == 10
    assert found["rows"]["random"]["deviation"]["miou"] > 0
    assert found["rows"]["random"]["published"]["miou"] == 0.12
    assert (
        "wherein train coop --model tiny --out" in found["not run"]["coop"]
        and "default model" in found["not run"]["cam"]
    )


def test_tables_that_there_are_not(tiny_vlm: Any, save_heads_for: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no table 4"):
        pin_table(4, tiny_vlm, None, 0)
    with pytest.raises(InputError, match="no table 'x'"):
        heads_table("x", tiny_vlm, str(save_heads_for(tiny_vlm)))


def test_heads_tables_have_the_published_rows(tiny_vlm: Any, save_heads_for: Callable[..., Path]) -> None:
    made = heads_table("sigma", tiny_vlm, str(save_heads_for(tiny_vlm)))
    assert set(made.parts[0].rows) == {"centre", *HEADS["sigma"]}


def test_identity_knows_settings_weights_and_examples(tiny_vlm: Any) -> None:
    assert identity(Answers(0, "a")) != identity(Answers(0, "b"))
    one, same, other = (InContext(tiny_vlm, composites(2, 64, seed)) for seed in (0, 0, 1))
    assert identity(one) == identity(same) != identity(other)
    boxes = composites(3, 64, 0)
    assert (
        identity(Random(tiny_vlm, boxes)) == identity(Random(tiny_vlm, boxes)) != identity(Random(tiny_vlm, boxes, 1))
    )
