"""Which images a protocol takes, how methods are asked, and that an interrupted run continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wherein.data import Sample
from wherein.errors import ImageError, InputError
from wherein.evaluation import Journal, Outcome, run, select
from wherein.evaluation.protocols import Grounder

from .conftest import FakeMethod, no_dogs, whole

SETTINGS = {"data": "d1", "methods": ["whole"]}


def pin(dataset: Path, limit: int | None = None) -> list[Sample]:
    return select("pin", dataset / "annotations.json", dataset / "images", limit)


def finish(samples: list[Sample], methods: list[Grounder], journal: Journal) -> list[Outcome]:
    with journal:
        return [outcome for outcomes in run(samples, methods, journal) for outcome in outcomes]


def test_pin_takes_images_with_one_to_three_objects(dataset: Path) -> None:
    assert [sample.name for sample in pin(dataset)] == ["0.png", "1.png"]  # crowds do not count
    assert [sample.name for sample in pin(dataset, 1)] == ["0.png"]


def test_pairs_takes_every_pair(dataset: Path) -> None:
    (sample,) = select("pairs", dataset / "pairs.json", dataset / "images")
    assert (sample.name, sample.phrases()) == ("1.png", ["the dog"])


def test_pin_on_the_real_photographs(evalset: Path) -> None:
    folder = evalset / "coco_train2017_mini"
    samples = select("pin", folder / "annotations.json", folder / "images")
    assert (len(samples), sum(len(sample.objects) for sample in samples)) == (88, 178)
    assert len(select("pairs", folder / "single_phrases.json", folder / "images", 7)) == 7


def test_what_cannot_be_selected_is_told(dataset: Path) -> None:
    annotations, images = dataset / "annotations.json", dataset / "images"
    with pytest.raises(InputError, match="no protocol 'pins'; choose one of pin, pairs"):
        select("pins", annotations, images)
    with pytest.raises(InputError, match="limit is 0"):
        select("pin", annotations, images, 0)
    with pytest.raises(InputError, match=r"image '0.png' of .*annotations.json is not in the folder"):
        select("pin", annotations, dataset)
    annotations.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    with pytest.raises(InputError, match="nothing to evaluate"):
        select("pin", annotations, images)
    (dataset / "pairs.json").write_text(json.dumps([{"file_name": "1.png", "phrase": "a\nb", "bbox": [0, 0, 1, 1]}]))
    with pytest.raises(InputError, match=r"pairs.json, image '1.png': .*control character"):
        select("pairs", dataset / "pairs.json", images)


def test_a_method_sees_pixels_and_each_phrase_once_and_is_never_allowed_absent(dataset: Path) -> None:
    method = FakeMethod("whole", whole)
    finish(pin(dataset), [method], Journal(None, SETTINGS))
    assert method.asked == [((50, 100, 3), ["cat", "dog"], False), ((50, 100, 3), ["dog"], False)]


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
    assert header == {"schema": 1, "settings": SETTINGS} and end == {"finished": True}
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
    finish(pin(dataset), [FakeMethod("whole", whole)], journal)
    assert (tmp_path / "out.records.jsonl.old").read_bytes() == old


def test_a_finished_run_is_run_again(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    finish(pin(dataset), [FakeMethod("whole", whole)], Journal(path, SETTINGS))
    journal = Journal(path, SETTINGS)
    assert journal.note is None and not journal.done


def test_a_file_of_something_else_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    path.write_bytes(b"\x00\xffmine")
    with Journal(path, SETTINGS):
        pass
    assert (tmp_path / "out.records.jsonl.old").read_bytes() == b"\x00\xffmine"


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot write the records to .*No such file"):
        Journal(tmp_path / "nowhere" / "out.records.jsonl", SETTINGS)


def test_outcomes_survive_the_file_exactly(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    sample = pin(dataset)[0]
    third = FakeMethod("third", lambda image, phrase: [] if phrase == "dog" else [[0.1, 1 / 3, 50, 50 - 1e-9]])
    journal = Journal(path, SETTINGS)
    (found,) = next(run([sample], [third], journal))
    assert Journal(path, SETTINGS).done["0.png", "third"] == found
    assert np.isfinite([record.iou for record in found.records]).all()
