"""Whatever is put in whatever place of an annotation file, a reader tells of it or reads on: it never falls over."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherein.data import Complaints, open_dataset, read_narratives
from wherein.data.sample import Sample
from wherein.data.vqa import AskedImage, read_vqa
from wherein.errors import InputError

OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2, 1, 2]]}
COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "coco_url": f"x/{n}.jpg", "width": 9, "height": 9} for n in (1, 2)],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{**OBJECT, "iscrowd": 0}, {**OBJECT, "id": 2, "image_id": 2}],
}
REF = {"ann_id": 1, "image_id": 1, "split": "val", "sentences": [{"sent": "it", "raw": "IT"}]}
REGION = {"phrase": "a cup", "x": 1, "y": 1, "width": 2, "height": 2}
SHAPE = {"label": "target", "points": [[1, 1], [2, 1], [2, 2]]}
EXPRESSIONS = {**COCO, "images": [{**one, "caption": "it", "file_name": "1.jpg"} for one in COCO["images"]]}
EXPRESSIONS["annotations"] = [{**one, "tokens_positive": [[0, 2]]} for one in COCO["annotations"]]
FILES: dict[str, Any] = {
    "coco": COCO,
    "lvis": COCO,
    "pairs": [{"file_name": "1.jpg", "phrase": "cat", "bbox": [1, 1, 2, 2]}] * 2,
    "shikra": [{"img_path": "x/1.jpg", "expression": "cat", "bbox": [1, 1, 2, 2]}] * 2,
    "mdetr": EXPRESSIONS,
    "refcoco": [REF, {**REF, "ann_id": [1]}, {**REF, "ann_id": [-1]}],
    "genome": [{"id": n, "regions": [REGION]} for n in (1, 2)],
    "reasonseg": {"text": ["why"], "shapes": [SHAPE, {**SHAPE, "label": "ignore"}]},
}
FORMATS = {"shikra": "pairs", "mdetr": "refcoco"}
NAMES = {"lvis": "lvis_v1_val.json", "reasonseg": "1.json"}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "cat", "../x", "1.jpg", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "x"]), inner, max_size=2),
    max_leaves=5,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with every key of it."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from places(value[key])


@pytest.mark.parametrize("name", FILES)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_told_or_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp(name)
    content = [copy.deepcopy(FILES[name])]
    container, key = data.draw(st.sampled_from(list(places(content))))
    container[key] = data.draw(JUNK)
    path = folder / NAMES.get(name, "annotations.json")
    path.write_text(json.dumps(content[0]))
    (folder / "instances.json").write_text(json.dumps(COCO))
    (folder / "1.jpg").write_bytes(b"")
    complaints = Complaints(lambda line: None)
    try:
        place = folder if name == "reasonseg" else path
        samples = list(open_dataset(place, folder, format=FORMATS.get(name, name)).samples(complaints))
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert all(isinstance(sample, Sample) for sample in samples)
        assert all(str(folder) in sentence for sentence in complaints.sentences)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_questions_are_told_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("vqa")
    answer = {"question_id": 1, "answer_type": "other", "answers": [{"answer": "a cat"} for _ in range(10)]}
    question = {"question_id": 1, "image_id": 1, "question": "What is this?"}
    content: dict[str, Any] = {
        "questions": {
            "data_subtype": "val2014",
            "questions": [question, {**question, "question_id": 2, "image_id": "1.jpg"}],
        },
        "annotations": {"annotations": [answer, {**copy.deepcopy(answer), "question_id": 2}]},
    }
    container, key = data.draw(st.sampled_from(list(places(content))))
    container[key] = data.draw(JUNK)
    paths = [folder / f"{name}.json" for name in content]
    for path, value in zip(paths, content.values(), strict=True):
        path.write_text(json.dumps(value))
    complaints = Complaints(lambda line: None)
    try:
        asked = read_vqa(*paths, folder, complaints)
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert all(isinstance(image, AskedImage) and image.questions for image in asked)
        assert all(str(folder) in sentence for sentence in complaints.sentences)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_narrative_is_told_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    word = {"utterance": "a", "start_time": 0.0, "end_time": 0.4}
    line = {
        "dataset_id": "mscoco",
        "image_id": "1",
        "caption": "a",
        "timed_caption": [word],
        "traces": [[{"x": 1, "y": 1, "t": 1}]],
    }
    content = [line]
    container, key = data.draw(st.sampled_from(list(places(content))))
    container[key] = data.draw(JUNK)
    path = tmp_path_factory.mktemp("narratives") / "a.jsonl"
    path.write_text(json.dumps(content[0]))
    complaints = Complaints(lambda line: None)
    found = list(read_narratives(path, path.parent, complaints))
    assert len(found) + len(complaints.sentences) >= 1
