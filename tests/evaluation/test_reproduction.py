"""A paper's table: rows in several runs, paired tests, published values beside, what is there is not run again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein.data import Dataset, open_dataset, refuse
from wherein.errors import AdapterError, InputError
from wherein.evaluation import page, select
from wherein.evaluation.heads_tables import heads_table
from wherein.evaluation.papers import HEADS, PIN_1
from wherein.evaluation.parts import Part, Table, identity
from wherein.evaluation.pin_tables import pin_table
from wherein.evaluation.reproduction import Chosen, reproduce
from wherein.grounding import Grounding

from .conftest import FakeMethod, whole

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


def table(
    rows: dict[str, list[Answers]],
    published: Any = None,
    made: list[str] | None = None,
    figures: tuple[str, ...] = ("miou", "p@0.5"),
    adapters: dict[str, str] | None = None,
) -> Table:
    def part(name: str) -> Part:
        def make() -> Sequence[Sequence[Answers]]:
            if made is not None:
                made.append(name)
            if not rows[name]:
                raise AdapterError(f"No adapter for {name}.")
            return [rows[name]]

        source = (adapters or {}).get(name)
        return Part((name,), make, {name: source} if source else {})

    return Table("A table", tuple(map(part, rows)), published or {}, figures)


def call(made: Table, chosen: Chosen, folder: Path, baseline: str = "right", **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return reproduce(
        made,
        chosen,
        folder,
        settings,
        baseline=baseline,
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
    ("name", "split", "key"),
    [
        ("refcoco/refs(unc)", "val", "refcoco val"),
        ("refcoco/refs(unc)", "testA", "refcoco testa"),
        ("refcoco/refs(google)", "val", ""),
        ("refcoco+/refs(unc)", "testB", "refcoco+ testb"),
        ("refcoco_plus/refs(unc)", "val", "refcoco+ val"),
        ("refcocog/refs(umd)", "test", "refcocog test"),
        ("refcocog/refs(google)", "val", ""),
        ("refcoco/refcoco+", "val", "refcoco+ val"),  # MDETR's files of all three, in one folder
        ("grefcoco/grefs(unc)", "val", ""),
        ("mine/refs", "val", ""),
    ],
)
def test_a_split_of_refcoco_is_not_another_one(name: str, split: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    dataset = Dataset("refcoco", path.stem, (path,), lambda complain: iter(()), False, split)
    assert Chosen(dataset, "phrases", []).key == key


@pytest.mark.parametrize(
    ("folder", "split", "key"),
    [
        ("ReasonSeg/val", "val", "reasonseg val"),
        ("reason_seg/test", None, "reasonseg test"),  # the split's own folder was given
        ("mine/val", "val", ""),
    ],
)
def test_a_split_of_reasonseg(folder: str, split: str | None, key: str, tmp_path: Path) -> None:
    path = tmp_path / folder / "1.json"
    dataset = Dataset("reasonseg", path.parent.name, (path,), lambda complain: iter(()), False, split)
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


def results(found: dict[str, Any], figures: tuple[str, ...] = ("miou", "p@0.5")) -> dict[str, Any]:
    return {
        "title": "A table",
        "model": "tiny",
        "figures": figures,
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
    assert "| left | 0." in text and "±" in text and "| 0.25 (+0." in text
    assert "mIoU published (difference)" in text and "P@0.5 (>=) published" not in text
    assert "- the published figures are of other images" in text
    assert "- not run: missing. No adapter for missing." in text and "    wherein reproduce pin" in text
    with Image.open(paths[3]) as picture:
        assert picture.width > 300


def test_published_figures_of_these_images_stand_without_a_word(coco: Chosen, tmp_path: Path) -> None:
    complete = replace(coco, expected=len(coco.samples))
    found = call(table({"right": [Answers(0)]}, {"right": {"coco": {"miou": 0.25}}}), complete, tmp_path / "out")
    assert found["as_published"] and "other images" not in page.to_markdown(results(found))
    split = replace(coco, dataset=replace(coco.dataset, format="refcoco", name="refcoco (unc)", split="testA"))
    assert split.as_published and not replace(split, limited=True).as_published
    assert not replace(split, dataset=replace(split.dataset, name="refcoco (google)")).as_published


def cells(text: str) -> dict[str, dict[str, str]]:
    """The cells of the only table in a Markdown text, by row and column."""
    header, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_every_published_figure_has_its_difference(coco: Chosen, tmp_path: Path) -> None:
    """A table of the heads publishes no mean IoU: what it publishes is compared all the same."""
    published = {"left": {"coco": {"p@0.5": 0.5, "miou_l": 0.25}}}
    figures = ("p@0.5", "ciou", "miou_l")
    found = call(table({"right": [Answers(0)], "left": [Answers(-3)]}, published, figures=figures), coco, tmp_path)
    shown = cells(page.to_markdown(results(found, figures)))
    ours = found["rows"]["left"]
    assert shown["left"]["P@0.5 (>=) published (difference)"] == f"0.5 ({ours['p@0.5'] - 0.5:+.3f})"
    assert shown["left"]["L published (difference)"] == f"0.25 ({ours['miou_l'] - 0.25:+.3f})"
    assert shown["right"]["L published (difference)"] == "-"
    assert "cIoU published (difference)" not in shown["left"]


def test_interval_and_test_are_of_the_figure_that_the_table_is_about(coco: Chosen, tmp_path: Path) -> None:
    """Of the four boxes, 30, 50, 10 and 40 wide, the narrow one is missed: every figure of a draw is a quarter."""
    figures = ("p@0.5", "miou")
    found = call(table({"right": [Answers(0)], "left": [Answers(-5)]}, figures=figures), coco, tmp_path)
    left = found["rows"]["left"]
    low, high = left["ci95"]
    assert left["p@0.5"] == 0.75 and low < 0.75 < high == 1 and low in (0.25, 0.5)
    assert left["minus right"]["difference"] == -0.25 and left["minus right"]["ci95"][1] == 0
    shown = cells(page.to_markdown(results(found, figures)))["left"]
    assert "P@0.5 (>=) - right (95 %, p)" in shown and list(shown)[1:3] == ["P@0.5 (>=)", "95 %"]


def referring(masked: Path) -> Chosen:
    """The expressions of the folder `masked`, under the name of RefCOCO."""
    dataset = replace(open_dataset(masked / "refs.json", masked / "images", split="val"), name="refcoco")
    return Chosen(dataset, "phrases", select("phrases", dataset))


def test_a_table_about_masks(masked: Path, tmp_path: Path) -> None:
    """Without masks of its own a row is judged by its filled box: here the whole image, 40 pixels, over 26 and 1."""

    def most(image: NDArray[np.uint8], phrase: str) -> NDArray[np.bool_]:
        return np.indices((4, 10))[1] < 8

    rows: dict[str, Any] = {"right": [FakeMethod("a", whole)], "left": [FakeMethod("b", whole, most)] * 2}
    published = {"left": {"refcoco val": {"ciou": 0.5}}}
    figures = ("ciou", "p@0.5", "miou")
    found = call(table(rows, published, figures=figures), referring(masked), tmp_path / "out")
    right, left = found["rows"]["right"], found["rows"]["left"]
    assert right["ciou"] == 27 / 120 and right["ci95"] == pytest.approx([1 / 40, 26 / 80])
    ours = (16 + 8 + 1) / (32 + 34 + 32)
    assert left["ciou"] == pytest.approx(ours) and left["deviation"]["ciou"] == 0
    assert left["ci95"] == pytest.approx([1 / 32, 24 / 66])
    compared = left["minus right"]
    assert compared["difference"] == pytest.approx(ours - 27 / 120)
    assert compared["ci95"] == pytest.approx([1 / 32 - 1 / 40, 24 / 66 - 26 / 80])
    paths = page.write(results(found, figures), tmp_path / "out")
    shown = cells(paths[2].read_text())["left"]
    assert shown["cIoU published (difference)"] == f"0.5 ({ours - 0.5:+.3f})" and "cIoU - right (95 %, p)" in shown


def test_the_draws_of_several_runs_are_their_mean(masked: Path, tmp_path: Path) -> None:
    """A run that finds nothing halves the figure, and every draw of it."""
    rows: dict[str, Any] = {
        "right": [FakeMethod("a", whole)],
        "half": [FakeMethod("b", whole), FakeMethod("c", lambda *_: [])],
    }
    found = call(table(rows, figures=("ciou",)), referring(masked), tmp_path / "out")["rows"]
    assert found["half"]["ciou"] == pytest.approx(found["right"]["ciou"] / 2)
    assert found["half"]["ci95"] == pytest.approx([end / 2 for end in found["right"]["ci95"]])


def test_a_table_about_masks_needs_some(coco: Chosen, masked: Path, tmp_path: Path) -> None:
    made, answers = ("ciou", "miou"), Answers(0)
    with pytest.raises(InputError, match=r"about cIoU, but .*annotations\.json has no masks .* \(rec\)"):
        call(table({"right": [answers]}, figures=made), coco, tmp_path / "out")
    assert answers.asked == 0
    chosen = referring(masked)  # the only masks are on images that cannot be read
    bad = [replace(one, objects=tuple(each._replace(mask=None) for each in one.objects)) for one in chosen.samples[1:]]
    chosen.samples[0].path.write_bytes(b"no image")
    rows: dict[str, Any] = {"right": [FakeMethod("a", whole)]}
    with pytest.raises(InputError, match="No image that every row was asked about has a true mask"):
        reproduce(
            table(rows, figures=made),
            replace(chosen, samples=[chosen.samples[0], *bad]),
            tmp_path,
            {},
            baseline="right",
            seed=0,
            complain=lambda error: None,
            track=lambda items, *_: items,
        )


def test_the_best_box_of_a_repeated_class_is_a_column_of_its_own(coco: Chosen, tmp_path: Path) -> None:
    """Two things in the first image, and the answer fits one of them: the mean IoU counts both, the best the better."""
    path = coco.dataset.files[0]
    content = json.loads(path.read_text())
    content["annotations"].append({**content["annotations"][0], "id": 9, "bbox": [50, 50, 5, 5]})
    path.write_text(json.dumps(content))
    dataset = open_dataset(path.parent)
    found = call(table({"right": [Answers(0)]}), Chosen(dataset, "pin", select("pin", dataset)), tmp_path / "out")
    assert (found["rows"]["right"]["miou"], found["rows"]["right"]["miou_best"]) == (0.8, 1.0)
    shown = cells(page.to_markdown(results(found)))["right"]
    assert (shown["mIoU"], shown["mIoU best"]) == ("0.800", "1.000")


def test_a_baseline_that_there_is_not_is_refused(coco: Chosen, tmp_path: Path) -> None:
    rows = {"right": [Answers(0)], "missing": []}
    with pytest.raises(InputError, match="no row 'typo' to compare with: choose right, missing"):
        call(table(rows), coco, tmp_path, baseline="typo")
    with pytest.raises(InputError, match=r"compared with 'missing', which cannot be run: No adapter for missing\."):
        call(table(rows), coco, tmp_path, baseline="missing")
    assert rows["right"][0].asked == 0


def test_rows_are_compared_on_the_images_that_all_have(coco: Chosen, tmp_path: Path) -> None:
    """An image was damaged after the baseline had been asked about it: the other rows never see it."""
    call(table({"right": [Answers(-3)]}), coco, tmp_path / "out")
    coco.samples[1].path.write_bytes(b"no image")
    heard: list[InputError] = []
    found = reproduce(
        table({"right": [Answers(-3)], "left": [Answers(0)]}),
        coco,
        tmp_path / "out",
        {},
        baseline="right",
        seed=0,
        complain=heard.append,
        track=lambda items, *_: items,
    )
    assert (found["images"], found["n"], found["left out"], len(heard)) == (3, 3, ["1.png"], 1)
    assert found["rows"]["right"]["miou"] == pytest.approx(np.mean([(w - 3) / (w + 3) for w in (30, 10, 40)]))
    assert found["rows"]["left"]["minus right"]["difference"] > 0
    text = page.to_markdown(results(found))
    assert "left out of every row" in text and "1 images (1.png)" in text


def test_the_adapter_of_a_row_is_told(coco: Chosen, tmp_path: Path) -> None:
    rows = {"right": [Answers(0)], "left": [Answers(-3, "a")], "far": [Answers(-9, "b")]}
    adapters = {"left": "built in", "far": "built in"}
    found = call(table(rows, adapters=adapters), coco, tmp_path)
    assert found["rows"]["right"]["adapter"] is None
    left = found["rows"]["left"]["adapter"]
    assert left == {"from": "built in", "digest": identity(rows["left"][0])}
    assert f"- adapters, built in: left ({left['digest']}), far (" in page.to_markdown(results(found))
    assert list(csv.DictReader(io.StringIO(page.to_csv(results(found)))))[1]["adapter digest"] == left["digest"]


def test_what_is_published_besides_is_told_below_the_table(coco: Chosen, tmp_path: Path) -> None:
    besides = {"pin at 448 pixels": {"coco": {"miou": 0.37, "miou_m": 0.29}}, "another": {"voc": {"miou": 0.1}}}
    made = replace(table({"right": [Answers(0)]}), besides=besides)
    found = call(made, coco, tmp_path)
    assert found["published besides"] == {"pin at 448 pixels": {"miou": 0.37, "miou_m": 0.29}}
    assert "- also published: pin at 448 pixels, mIoU 0.37, M 0.29." in page.to_markdown(results(found))


def test_heads_say_what_they_ask_and_nobody_s_time(
    tiny_vlm: Any, coco: Chosen, tmp_path: Path, save_heads_for: Callable[..., Path]
) -> None:
    """All variants share a run of the model, for which the first of them would pay."""
    made = heads_table("kernel", tiny_vlm, str(save_heads_for(tiny_vlm)))
    found = call(made, coco, tmp_path / "out", baseline="centre")["rows"]
    assert found["centre"]["prompt"] is None and found["centre"]["seconds_per_image"] > 0
    assert {found[row]["prompt"] for row in HEADS["kernel"]} == {" {phrase}."}
    assert {found[row]["seconds_per_image"] for row in HEADS["kernel"]} == {None}
    assert found["kernel=3"]["adapter"]["from"] == str(tmp_path / "heads.json")
    assert made.figures[0] == "p@0.5"


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
    found = call(Table("t", tuple(some), PIN_1, ("miou",)), coco, tmp_path / "out", baseline="centre")
    assert set(found["rows"]) == {"centre", "text", "random", "in_context 2"}
    assert found["rows"]["random"]["runs"] == found["rows"]["in_context 2"]["runs"] == 10
    assert found["rows"]["random"]["deviation"]["miou"] > 0
    assert found["rows"]["random"]["published"]["miou"] == 0.12
    assert (
        "wherein train coop --model tiny --out" in found["not run"]["coop"]
        and "default model" in found["not run"]["cam"]
    )
