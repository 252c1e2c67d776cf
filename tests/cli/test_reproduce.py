"""`wherein reproduce` on several data sets, with a tiny random model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import AdapterError, InputError
from wherein.methods import adapter

BOX = (10, 5, 50, 45)
XML = """<annotation><filename>{name}.png</filename><size><width>60</width><height>50</height></size>
<object><name>dog</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>50</xmax><ymax>45</ymax></bndbox></object>
</annotation>"""


@pytest.fixture(autouse=True)
def loaded(tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: tiny_vlm)


@pytest.fixture
def voc(tmp_path: Path) -> str:
    """VOC2007 with two lists, whose images lie where its usual folder is not."""
    root = tmp_path / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main", "elsewhere"):
        (root / folder).mkdir(parents=True)
    for split, name in (("test", "1"), ("val", "2")):
        (root / "Annotations" / f"{name}.xml").write_text(XML.format(name=name))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(name)
        Image.new("RGB", (60, 50), "grey").save(root / "elsewhere" / f"{name}.png")
    return "VOC2007"


@pytest.fixture
def coco(tmp_path: Path) -> str:
    """A COCO set without parts."""
    (tmp_path / "coco" / "images").mkdir(parents=True)
    Image.new("RGB", (60, 50), "grey").save(tmp_path / "coco" / "images" / "3.png")
    x0, y0, x1, y1 = BOX
    content = {
        "images": [{"id": 3, "file_name": "3.png", "width": 60, "height": 50}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}],
    }
    (tmp_path / "coco" / "annotations.json").write_text(json.dumps(content))
    return "coco"


def run(*arguments: str, verb: str = "pin") -> Any:
    table = ("--table", "2") if verb == "pin" else ()
    return CliRunner().invoke(app, ["reproduce", verb, *table, *arguments])


def results() -> dict[str, Any]:
    return json.loads(Path("reproduced/pin-2/table.json").read_text())  # type: ignore[no-any-return]


def test_sets_with_and_without_parts_share_a_call(voc: str, coco: str) -> None:
    each = ("--split", "test", "--split", "", "--images", "VOC2007/elsewhere", "--images", "")
    done = run("--data", voc, "--data", coco, *each)
    assert done.exit_code == 0, done.output
    assert [(found["data"], found["split"]) for found in results()["data"]] == [
        ("VOC2007 test", "test"),
        ("coco", None),
    ]
    assert "VOC2007 test: 1 images with one to three objects; the paper of PIN has 3,582." in done.stderr
    assert [found["expected_images"] for found in results()["data"]] == [3582, None]
    text = Path("reproduced/pin-2/table.md").read_text()
    assert "**VOC2007 test, 1 images (PIN's paper has 3,582), n = 1**" in text and "**coco, 1 images, n = 1**" in text
    assert results()["schema"] == 2 and results()["made"]["peft"] and len(results()["made"]["code"]) == 16


def test_two_parts_of_one_set_are_two_tables(voc: str) -> None:
    done = run("--data", voc, voc, "--split", "test", "--split", "val", "--images", "VOC2007/elsewhere")
    assert done.exit_code == 0, done.output
    assert [found["split"] for found in results()["data"]] == ["test", "val"]
    with Path("reproduced/pin-2/table.csv").open() as file:
        assert {line["split"] for line in csv.DictReader(file)} == {"test", "val"}


@pytest.mark.parametrize(("option", "value"), [("--split", "test"), ("--images", "VOC2007/elsewhere")])
def test_an_option_is_given_once_or_for_each(option: str, value: str, voc: str, coco: str) -> None:
    done = run("--data", voc, "--data", coco, "--data", coco, option, value, option, "")
    assert isinstance(done.exception, InputError)
    assert f"{option} was given 2 times, but the number of data sets is 3" in str(done.exception)


def test_what_was_answered_is_kept_until_the_code_changes(coco: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> set[str]:
        return {path.name for path in Path("reproduced").rglob("*.records.jsonl")}

    run("--data", coco)
    first = files()
    run("--data", coco)
    assert files() == first
    monkeypatch.setattr("wherein.evaluation.records.code", lambda: "other")
    run("--data", coco)
    assert files() > first and len(files()) == 2 * len(first)


def test_what_is_done_is_written_before_the_next_set(voc: str, coco: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wherein.evaluation import reproduction

    def fails(table: Any, chosen: Any, *rest: Any, **more: Any) -> Any:
        if chosen.dataset.format == "voc":
            raise RuntimeError("out of memory")
        return reproduce(table, chosen, *rest, **more)

    reproduce = reproduction.reproduce
    monkeypatch.setattr(reproduction, "reproduce", fails)
    options = ("--split", "", "--split", "test", "--images", "", "--images", "VOC2007/elsewhere")
    done = run("--data", coco, "--data", voc, *options)
    assert isinstance(done.exception, RuntimeError)
    assert [found["data"] for found in results()["data"]] == ["coco"]


def test_a_baseline_is_a_row_that_is_run(coco: str, tiny_vlm: Any) -> None:
    done = run("--data", coco, "--baseline", "vpt")
    assert isinstance(done.exception, InputError) and "No adapter trained/vpt: run" in str(done.exception)
    adapter.save_file_only("heads.json", "heads", tiny_vlm, {"heads": [[0, 1]]}, {})
    done = run("--data", coco, "--table", "reading", "--adapter", "heads.json", "--baseline", "typo", verb="heads")
    assert isinstance(done.exception, InputError) and "no row 'typo' to compare with" in str(done.exception)
    done = run("--data", coco, "--table", "k", "--adapter", "heads.json", verb="heads")
    assert done.exit_code == 0, done.output
    made = json.loads(Path("reproduced/heads-k/table.json").read_text())["made"]
    assert made["prompt"] == " {phrase}."


def test_a_file_of_heads_is_looked_at_before_the_model_is_loaded(coco: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    done = run("--data", coco, "--adapter", "none.json", verb="heads")
    assert isinstance(done.exception, AdapterError) and "No adapter at 'none.json'" in str(done.exception)


def test_the_heads_main_tables(coco: str, tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RefCOCO with a segmenter that paints its boxes; of data without masks there is a table of boxes only."""

    class Painter:
        kind = "sam"

        def __init__(self, name: str, device: str) -> None:
            self.name = name

        def encode(self, image: Any) -> Any:
            return image.shape[:2]

        def decode(self, size: tuple[int, int], boxes: Any, *_: Any) -> Any:
            masks = np.zeros((len(boxes), *size), np.bool_)
            masks[:, 5:45, 10:50] = True  # the true mask
            return masks, np.ones(len(boxes))

    monkeypatch.setattr("wherein.segment.Segmenter", Painter)
    adapter.save_file_only("heads.json", "heads", tiny_vlm, {"heads": [[0, 1]]}, {})
    content = json.loads(Path("coco/annotations.json").read_text())
    ends = np.flatnonzero(np.diff(Painter("", "").decode((50, 60), [0])[0][0].ravel(order="F"), prepend=False))
    counts = np.diff(ends, prepend=0, append=60 * 50).tolist()
    content["annotations"][0]["segmentation"] = {"size": [50, 60], "counts": counts}
    folder = Path("refcoco")
    folder.mkdir()
    (folder / "instances.json").write_text(json.dumps(content))
    refs = [{"ann_id": 1, "image_id": 3, "split": "testB", "sentences": [{"sent": "left cat"}]}]
    (folder / "refs.json").write_text(json.dumps(refs))
    options = ("--adapter", "heads.json", "--segmenter", "a-sam", "--table")
    of_refcoco = ("--data", "refcoco", "--split", "testB", "--images", "coco/images")

    def found(table: str) -> dict[str, Any]:
        return json.loads(Path(f"reproduced/heads-{table}/table.json").read_text())  # type: ignore[no-any-return]

    done = run(*of_refcoco, *options, "res", "--baseline", "heads", verb="heads")
    assert done.exit_code == 0, done.output
    (data,) = found("res")["data"]
    assert list(data["rows"]) == ["centre", "text", "heads", "heads+sam"] and found("res")["figures"][0] == "ciou"
    assert data["rows"]["heads+sam"]["ciou"] == 1 and data["rows"]["heads+sam"]["published"] == {"ciou": 0.728}
    assert data["rows"]["heads"]["published"] == {} and data["rows"]["heads"]["adapter"]["from"] == "heads.json"
    assert "(published with LLaVA-1.5-13B)" in found("res")["title"]
    assert data["published besides"]["heads+sam of LLaVA-1.5-7B"] == {"ciou": 0.704}
    done = run(*of_refcoco, *options, "rec", verb="heads")
    assert done.exit_code == 0, done.output
    (data,) = found("rec")["data"]
    assert data["rows"]["heads"]["published"] == {"p@0.5": 0.833} and data["rows"]["heads+sam"]["published"] == {}

    done = run("--data", coco, *options, "res", verb="heads")
    assert isinstance(done.exception, InputError) and "no masks to measure it by" in str(done.exception)
    done = run("--data", coco, *options, "k", verb="heads")
    assert isinstance(done.exception, InputError) and "no row with a segmenter" in str(done.exception)
    done = run("--data", coco, "--adapter", "heads.json", "--table", "rec", verb="heads")
    assert done.exit_code == 0, done.output
    assert list(found("rec")["data"][0]["rows"]) == ["centre", "text", "heads"]
