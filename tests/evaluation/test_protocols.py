"""Which images a protocol takes, how methods are asked, and that an interrupted run continues."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wherein.data import Complaints, Mask, Sample, open_dataset
from wherein.errors import ImageError, InputError, PhraseError
from wherein.evaluation import Journal, Outcome, askable, protocol_for, published, run, select
from wherein.evaluation.protocols import Grounder
from wherein.evaluation.records import NoTarget

from .conftest import FakeMethod, no_dogs, runs, whole

SETTINGS = {"data": "d1", "methods": ["whole"]}


def pin(dataset: Path, limit: int | None = None) -> list[Sample]:
    return select("pin", dataset / "annotations.json", dataset / "images", limit)


def finish(samples: list[Sample], methods: list[Grounder], journal: Journal) -> list[Outcome]:
    with journal:
        return [outcome for outcomes in run(samples, methods, journal) for outcome in outcomes]


def test_pin_takes_images_with_one_to_three_objects(dataset: Path) -> None:
    assert [sample.name for sample in pin(dataset)] == ["0.png", "1.png"]  # crowds do not count
    assert [sample.name for sample in pin(dataset, 1)] == ["0.png"]


def test_phrases_takes_every_pair(dataset: Path) -> None:
    (sample,) = select("phrases", dataset / "pairs.json", dataset / "images")
    assert (sample.name, sample.phrases()) == ("1.png", ["the dog"])


def test_pin_on_the_real_photographs(evalset: Path) -> None:
    folder = evalset / "coco_train2017_mini"
    samples = select("pin", folder / "annotations.json", folder / "images")
    assert (len(samples), sum(len(sample.objects) for sample in samples)) == (88, 178)
    assert len(select("phrases", folder / "single_phrases.json", folder / "images", 7)) == 7
    assert len(select("auto", folder)) == 88
    assert len(select("phrases", folder)) > 200


def test_what_cannot_be_selected_is_told(dataset: Path) -> None:
    annotations, images = dataset / "annotations.json", dataset / "images"
    with pytest.raises(InputError, match="no protocol 'pins'; choose one of auto, pin, phrases, pairs"):
        select("pins", annotations, images)
    with pytest.raises(InputError, match="annotations.json has no splits, but the split 'val' was chosen"):
        select("pin", annotations, images, split="val")
    with pytest.raises(InputError, match="limit is 0"):
        select("pin", annotations, images, 0)
    with pytest.raises(InputError, match=r"annotations.json, images\[0\]: there is no image .*0.png"):
        select("pin", annotations, dataset)
    annotations.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    with pytest.raises(InputError, match="nothing to evaluate"):
        select("pin", annotations, images)
    (dataset / "pairs.json").write_text(json.dumps([{"file_name": "1.png", "phrase": "a\nb", "bbox": [0, 0, 1, 1]}]))
    with pytest.raises(InputError, match=r"pairs.json, pair\[0\], image '1.png': .*control character"):
        select("phrases", dataset / "pairs.json", images)


def test_refcoco_takes_every_expression_of_a_split(masked: Path) -> None:
    first, second = select("phrases", masked / "refs.json", masked / "images", split="val")
    assert (first.phrases(), second.phrases()) == (["left", "top"], ["dot", "unmasked"])
    assert len(select("phrases", masked / "refs.json", masked / "images", 1, "val")) == 1
    assert [one.phrases() for one in select("phrases", masked / "refs.json", masked / "images", None, "testA")] == [
        ["left"]
    ]
    with pytest.raises(InputError, match="splits 'testA', 'val', and none was chosen"):
        select("phrases", masked / "refs.json", masked / "images")


def test_the_usual_protocol_of_expressions(masked: Path) -> None:
    assert protocol_for(open_dataset(masked, split="val")) == "phrases"


def test_the_usual_protocol_of_categories(dataset: Path) -> None:
    coco = open_dataset(dataset / "annotations.json")
    assert (protocol_for(coco), protocol_for(coco, "phrases")) == ("pin", "phrases")
    assert published(coco, "pin") is None


def test_the_published_number_of_images(dataset: Path) -> None:
    (dataset / "annotations").mkdir()
    (dataset / "annotations.json").rename(dataset / "annotations" / "instances_val2017.json")
    (dataset / "images").rename(dataset / "val2017")
    coco = open_dataset(dataset)
    assert (published(coco, "pin"), published(coco, "phrases")) == (2062, None)


class Heard:
    """Complaints that remember what was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.complaints = Complaints(self.told.append)


def test_a_missing_image_is_left_out(dataset: Path) -> None:
    (dataset / "images" / "0.png").unlink()
    heard = Heard()
    samples = select("pin", dataset / "annotations.json", complain=heard.complaints)
    assert [sample.name for sample in samples] == ["1.png"] and len(heard.told) == 1
    assert "annotations.json, images[0]: there is no image" in heard.told[0]
    (dataset / "images" / "1.png").unlink()
    with pytest.raises(InputError, match="No image of .* is left for the protocol 'pin': nothing to evaluate"):
        select("pin", dataset / "annotations.json", complain=heard.complaints)


def test_what_only_the_image_tells_is_left_out_while_the_rest_runs(dataset: Path) -> None:
    """A damaged image, one of another size, and, where the annotation states no size, a box and a mask outside it."""
    pairs = [
        {
            "file_name": f"{n}.png",
            "phrase": "dog",
            "bbox": [0, 0, 10, 10],
            "segmentation": runs(np.ones((50, 100), bool)),
        }
        for n in range(4)
    ]
    pairs[1]["bbox"] = [0, 0, 101.5, 50]
    pairs[2]["segmentation"] = runs(np.ones((4, 4), bool))
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    (dataset / "images" / "0.png").write_bytes(b"nothing")
    heard, method = Heard(), FakeMethod("whole", whole)
    samples = select("phrases", dataset / "pairs.json", complain=heard.complaints)
    assert len(samples) == 4 and not heard.told
    found = [some for (some,) in run(samples, [method], Journal(None, SETTINGS), heard.complaints)]
    assert [outcome.image for outcome in found] == ["3.png"] and len(method.asked) == 1
    assert len(heard.told) == 3
    for line, word in zip(
        heard.told, ["pair[0]: image", "pair[1] has the box [0.0, 0.0, 101.5", "pair[2] has a segm"], strict=True
    ):
        assert word in line, line


@pytest.mark.parametrize("kind", [ImageError, PhraseError])
def test_an_image_that_a_method_refuses_is_left_out_while_the_rest_runs(
    kind: type[InputError], dataset: Path, tmp_path: Path
) -> None:
    """What other methods said of it is kept; an error that is not about the image ends the run."""

    def thin(image: Any, phrase: str) -> list[list[float]]:
        if phrase == "cat":  # of the first image
            raise kind("too long and thin")
        return whole(image, phrase)

    heard, constant, journal = Heard(), FakeMethod("constant", whole), Journal(tmp_path / "out.jsonl", SETTINGS)
    asked = run(pin(dataset), [constant, FakeMethod("thin", thin)], journal, heard.complaints)
    assert [[outcome.image for outcome in some] for some in asked] == [["1.png", "1.png"]]
    (told,) = heard.told
    assert "annotations.json, images[0], image '0.png': too long and thin" in told
    list(run(pin(dataset), [constant], journal, heard.complaints))
    assert len(constant.asked) == 2
    with pytest.raises(kind, match="too long and thin"):
        list(run(pin(dataset), [FakeMethod("thin", thin)], Journal(None, SETTINGS)))

    def wrong(image: Any, phrase: str) -> list[list[float]]:
        raise InputError("needs a heat map")

    with pytest.raises(InputError, match="needs a heat map"):
        list(run(pin(dataset), [FakeMethod("wrong", wrong)], Journal(None, SETTINGS), heard.complaints))


def test_a_mask_that_needs_a_package_stops_the_run(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no bad record: every image with a polygon would be left out."""
    pair = {"file_name": "1.png", "phrase": "dog", "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 9, 0, 9, 9]]}
    (dataset / "pairs.json").write_text(json.dumps([pair]))
    heard = Heard()
    samples = select("phrases", dataset / "pairs.json", complain=heard.complaints)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match="pip install"):
        select("phrases", dataset / "pairs.json", complain=heard.complaints)
    with pytest.raises(InputError, match="pip install"):
        list(run(samples, [FakeMethod("whole", whole)], Journal(None, SETTINGS), heard.complaints))
    assert not heard.told


def test_ignored_pixels_count_for_nobody(tmp_path: Path) -> None:
    """A target of 4 columns; the third and a sixth are to be ignored: the answer's pixels there are neither."""
    pytest.importorskip("pycocotools")
    Image.new("RGB", (10, 4)).save(tmp_path / "a.png")
    shapes = [
        {"label": "target", "points": [[0, 0], [4, 0], [4, 4], [0, 4]]},
        {"label": "ignore", "points": [[2, 0], [3, 0], [3, 4], [2, 4]]},
        {"label": "ignore", "points": [[5, 0], [6, 0], [6, 4], [5, 4]]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"text": ["that"], "shapes": shapes}))
    (outcome,) = finish(select("auto", tmp_path), [FakeMethod("whole", whole)], Journal(None, SETTINGS))
    assert outcome.records[0].overlap == (12, 32)


def test_a_mask_that_cannot_be_used_is_told_before_the_work(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations, pairs = dataset / "annotations.json", dataset / "pairs.json"
    content = json.loads(annotations.read_text())
    content["annotations"][1]["segmentation"] = {"size": [100, 50], "counts": [5000]}
    annotations.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"annotations.json, annotations\[1\] .* but its image has 100 x 50 pixels"):
        pin(dataset)
    pair = {"file_name": "1.png", "phrase": "dog", "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 9, 0, 9, 9]]}
    pairs.write_text(json.dumps([pair]))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"pair\[0\] .*pip install 'wherein\[eval\]'"):
        select("phrases", pairs, dataset / "images")


@pytest.mark.parametrize("side", [10, 10**6, 10**400])
def test_a_size_that_only_the_annotation_states_makes_nothing(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    annotations = dataset / "annotations.json"
    content = json.loads(annotations.read_text())
    content["annotations"][0]["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    content["images"][0].update(width=side, height=side)
    annotations.write_text(json.dumps(content))
    monkeypatch.setattr(Mask, "decode", lambda *_: pytest.fail("decoded for a size that no image was seen to have"))
    with pytest.raises(InputError, match="not inside its image of 10 x 10" if side == 10 else "the image has 100 x 50"):
        finish(pin(dataset), [FakeMethod("whole", whole)], Journal(None, SETTINGS))


def overlaps(folder: Path, method: FakeMethod) -> list[tuple[int, int] | None]:
    samples = select("phrases", folder / "refs.json", folder / "images", split="val")
    outcomes = finish(samples, [method], Journal(None, SETTINGS))
    return [record.overlap for outcome in outcomes for record in outcome.records]


def test_a_box_is_filled_where_a_method_has_no_mask(masked: Path) -> None:
    """Masks of 16, 10 and 1 pixels; the best box covers all 40 pixels, and there is no true mask for the last."""
    assert overlaps(masked, FakeMethod("whole", whole)) == [(16, 40), (10, 40), (1, 40), None]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 2, 4], (8, 16)),
        ([0.4, 0.4, 2.4, 4], (8, 16)),  # the centres of two columns are in it
        ([0.6, 0, 2.6, 3.4], (6, 16)),  # those of columns 1 and 2, and of rows 0, 1, 2
        ([-50, -50, 2, 50], (8, 16)),
        ([-1, -1, 2, 4], (8, 16)),
        ([3, 0, 6, 4], (4, 24)),
        ([2, 0, 2, 4], (0, 16)),
        ([3, 3, 1, 1], (0, 16)),
        ([50, 0, 90, 4], (0, 16)),
    ],
)
def test_the_pixels_of_a_box(masked: Path, box: list[float], expected: tuple[int, int]) -> None:
    """Against the left 4 columns, 16 pixels."""
    assert overlaps(masked, FakeMethod("box", lambda image, phrase: [box]))[0] == expected


def test_the_mask_of_a_method_counts_and_not_its_box(masked: Path) -> None:
    mask = np.zeros((4, 10), dtype=bool)
    mask[:2, 2:7] = True
    found = overlaps(masked, FakeMethod("masks", whole, lambda image, phrase: mask))
    assert found == [(4, 22), (5, 15), (0, 11), None]


def test_an_invalid_answer_has_no_pixels(masked: Path) -> None:
    everything = np.ones((4, 10), dtype=bool)
    method = FakeMethod("mute", lambda image, phrase: [], lambda image, phrase: everything)
    assert overlaps(masked, method) == [(0, 16), (0, 10), (0, 1), None]


def test_a_mask_of_another_size_than_the_image_is_told(dataset: Path) -> None:
    """Pairs state no size, so the image itself tells."""
    pair = {
        "file_name": "1.png",
        "phrase": "dog",
        "bbox": [0, 0, 1, 1],
        "segmentation": runs(np.ones((4, 4), dtype=bool)),
    }
    (dataset / "pairs.json").write_text(json.dumps([pair]))
    samples = select("phrases", dataset / "pairs.json", dataset / "images")
    with pytest.raises(InputError, match=r"pair\[0\] .* but its image has 100 x 50 pixels"):
        finish(samples, [FakeMethod("whole", whole)], Journal(None, SETTINGS))


def test_a_method_sees_pixels_and_each_phrase_once_and_is_never_allowed_absent(dataset: Path) -> None:
    method = FakeMethod("whole", whole)
    finish(pin(dataset), [method], Journal(None, SETTINGS))
    assert method.asked == [((50, 100, 3), ["cat", "dog"], False), ((50, 100, 3), ["dog"], False)]


def test_a_phrase_without_a_target_may_be_answered_absent(doubtful: Path, tmp_path: Path) -> None:
    """Each once, in a call of its own: what the boxes are measured by is asked as if there were no such phrase."""
    method = FakeMethod("doubts", whole, gone=["zebra", "left"])
    samples = select("auto", doubtful / "refs.json", split="val", no_target=True)
    assert [sample.name for sample in samples] == ["1.png", "2.png", "3.png"]
    journal = Journal(tmp_path / "out.records.jsonl", SETTINGS, keep=True)
    with journal:
        found = [outcome for (outcome,) in run(samples, [method], journal, no_target=True)]
    assert [asked[1:] for asked in method.asked] == [
        (["left", "top"], False),
        (["zebra", "yak"], True),
        (["dot", "unmasked"], False),
        (["zebra"], True),
    ]
    assert [record.phrase for record in found[0].records] == ["left", "top"] and found[2].records == ()
    yak = NoTarget("yak", False, 0.25)
    assert found[0].no_target == (NoTarget("zebra", True, 0.75), yak, yak) and found[1].no_target == ()
    assert list(Journal(tmp_path / "out.records.jsonl", SETTINGS, keep=True).done.values()) == found


def test_elsewhere_nobody_asks_for_them(doubtful: Path) -> None:
    method = FakeMethod("whole", whole)
    samples = select("phrases", doubtful / "refs.json", split="val")
    assert [sample.name for sample in samples] == ["1.png", "2.png"]
    assert [outcome.no_target for outcome in finish(samples, [method], Journal(None, SETTINGS))] == [(), ()]
    assert [asked[2] for asked in method.asked] == [False, False]
    refs = [{**ref, "ann_id": [-1]} for ref in json.loads((doubtful / "refs.json").read_text())]
    (doubtful / "refs.json").write_text(json.dumps(refs))
    with pytest.raises(InputError, match="nothing to evaluate"):  # no box to be found
        select("phrases", doubtful / "refs.json", split="val", no_target=True)


def test_a_phrase_without_a_target_that_cannot_be_asked_is_told(doubtful: Path) -> None:
    def check(phrase: str) -> None:
        if phrase == "yak":
            raise InputError("No yaks.")

    heard = Heard()
    samples = select("phrases", doubtful / "refs.json", split="val", no_target=True)
    assert [sample.name for sample in askable(samples, check, heard.complaints)] == ["2.png", "3.png"]
    refs = json.loads((doubtful / "refs.json").read_text())
    refs[-1]["sentences"] = [{"sent": "..."}]
    (doubtful / "refs.json").write_text(json.dumps(refs))
    samples = select("phrases", doubtful / "refs.json", split="val", complain=heard.complaints, no_target=True)
    assert [sample.name for sample in samples] == ["1.png", "2.png"]
    assert "No yaks." in heard.told[0] and "image '3.png': The phrase '...' names nothing" in heard.told[1]


def test_records(dataset: Path) -> None:
    methods = [FakeMethod("whole", whole), FakeMethod("no dogs", no_dogs)]
    first, second, third, fourth = finish(pin(dataset), methods, Journal(None, SETTINGS))
    assert [(outcome.image, outcome.method) for outcome in (first, second, third, fourth)] == [
        ("0.png", "whole"),
        ("0.png", "no dogs"),
        ("1.png", "whole"),
        ("1.png", "no dogs"),
    ]
    assert (first.width, first.height) == (100, 50) and first.seconds >= 0
    assert [(record.phrase, record.iou) for record in first.records] == [("cat", 1.0), ("dog", 0.5), ("cat", 0.5)]
    assert first.records[0].prediction == (0, 0, 100, 50) and first.records[0].truth == (0, 0, 100, 50)
    assert first.records[0].score == 0.9 and first.records[0].absent_probability == 0.25
    invalid = second.records[1]
    assert (invalid.prediction, invalid.score, invalid.iou) == (None, None, 0.0)
    assert fourth.records[0].prediction is None


def test_an_image_of_another_size_is_told(dataset: Path) -> None:
    Image.new("RGB", (50, 100)).save(dataset / "images" / "0.png")
    with pytest.raises(InputError, match=r"annotation of '0.png' is for 100 x 50 pixels, but the image has 50 x 100"):
        finish(pin(dataset), [FakeMethod("whole", whole)], Journal(None, SETTINGS))


def test_a_damaged_image_is_told(dataset: Path) -> None:
    (dataset / "images" / "0.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"0\.png"):
        finish(pin(dataset), [FakeMethod("whole", whole)], Journal(None, SETTINGS))


def interrupt(dataset: Path, path: Path) -> list[Outcome]:
    """Run until the second image, then fail; returns what a whole run would have given."""
    method = FakeMethod("whole", lambda image, phrase: whole(image, phrase) if len(method.asked) < 2 else 1 / 0)  # type: ignore[return-value]
    with pytest.raises(ZeroDivisionError):
        finish(pin(dataset), [method], Journal(path, SETTINGS))
    return finish(pin(dataset), [FakeMethod("whole", whole)], Journal(None, SETTINGS))


def without_time(outcomes: list[Outcome]) -> list[Any]:
    return [(outcome.image, outcome.method, outcome.records) for outcome in outcomes]


def test_an_interrupted_run_continues(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    expected = interrupt(dataset, path)
    method, journal = FakeMethod("whole", whole), Journal(path, SETTINGS)
    assert journal.note and "1 answers are there" in journal.note
    assert without_time(finish(pin(dataset), [method], journal)) == without_time(expected)
    assert len(method.asked) == 1  # the first image was not asked again
    header, *lines, end = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {"schema": 2, "settings": SETTINGS} and end == {"finished": True}
    assert [(line["image"], line["method"]) for line in lines] == [("0.png", "whole"), ("1.png", "whole")]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-40], lambda raw: raw + b'{"image": "1'])
def test_a_half_written_line_is_asked_again(dataset: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "out.records.jsonl"
    expected = interrupt(dataset, path)
    path.write_bytes(damage(path.read_bytes()))
    found = finish(pin(dataset), [FakeMethod("whole", whole)], Journal(path, SETTINGS))
    assert without_time(found) == without_time(expected)
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())


def test_other_settings_start_afresh_and_keep_the_old_records(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    interrupt(dataset, path)
    old = path.read_bytes()
    journal = Journal(path, {**SETTINGS, "data": "d2"})
    assert journal.note and "other settings" in journal.note and not journal.done
    interrupt_again = FakeMethod("whole", lambda image, phrase: 1 / 0)  # type: ignore[return-value]
    with pytest.raises(ZeroDivisionError):
        finish(pin(dataset), [interrupt_again], journal)
    back = Journal(path, SETTINGS)
    assert back.note and "other settings" in back.note and "1 answers are there" in back.note
    assert path.read_bytes() == old and len(back.done) == 1
    assert Journal(path, {**SETTINGS, "data": "d2"}).done == {} and Journal(path, SETTINGS).done == back.done


def test_of_two_runs_that_write_to_one_file_the_second_to_write_is_told(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    first, second = Journal(path, SETTINGS), Journal(path, {**SETTINGS, "data": "d2"})
    finish(pin(dataset), [FakeMethod("whole", whole)], second)
    with pytest.raises(InputError, match="Another process writes to"):
        finish(pin(dataset), [FakeMethod("whole", whole)], first)
    third = Journal(path, {**SETTINGS, "data": "d2"}, keep=True)
    assert len(third.done) == 2


def test_a_finished_run_is_run_again(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    finish(pin(dataset), [FakeMethod("whole", whole)], Journal(path, SETTINGS))
    old = path.read_bytes()
    journal = Journal(path, SETTINGS)
    assert journal.note is None and not journal.done
    assert (tmp_path / "out.records.jsonl.old").read_bytes() == old  # the next run may be stopped at its first image


def test_a_run_that_is_left_open_continues(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    with Journal(path, SETTINGS) as journal:
        found = [one for some in run(pin(dataset), [FakeMethod("whole", whole)], journal) for one in some]
        journal.leave_open()
    assert list(Journal(path, SETTINGS).done.values()) == found


def test_a_file_of_something_else_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    path.write_bytes(b"\x00\xffmine")
    with Journal(path, SETTINGS):
        pass
    assert [file.read_bytes() for file in tmp_path.glob("out.records.jsonl.*")] == [b"\x00\xffmine"]


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write to .*out.records.jsonl: (Not a directory|File exists)"):
        Journal(tmp_path / "file" / "out.records.jsonl", SETTINGS)


def test_records_from_before_there_were_masks_are_not_continued(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    interrupt(dataset, path)
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1').replace(', "overlap": null', ""))
    assert not Journal(path, SETTINGS).done


def test_overlaps_survive_the_file(masked: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    samples = select("phrases", masked / "refs.json", masked / "images", split="val")
    found = [
        outcome for some in run(samples, [FakeMethod("whole", whole)], Journal(path, SETTINGS)) for outcome in some
    ]
    read = Journal(path, SETTINGS).done
    assert [read[outcome.image, "whole"] for outcome in found] == found
    assert [record.overlap for record in found[1].records] == [(1, 40), None]


def test_outcomes_survive_the_file_exactly(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    sample = pin(dataset)[0]
    third = FakeMethod("third", lambda image, phrase: [] if phrase == "dog" else [[0.1, 1 / 3, 50, 50 - 1e-9]])
    journal = Journal(path, SETTINGS)
    (found,) = next(run([sample], [third], journal))
    assert Journal(path, SETTINGS).done["0.png", "third"] == found
    assert np.isfinite([record.iou for record in found.records]).all()
