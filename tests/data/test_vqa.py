"""The reader of VQAv2: what it takes from the two files, and a broken entry of each kind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints
from wherein.data.vqa import Question, read_vqa
from wherein.errors import InputError

QUESTIONS: dict[str, Any] = {
    "data_type": "mscoco",
    "data_subtype": "val2014",
    "questions": [
        {"question_id": 420, "image_id": 42, "question": "What is this? "},
        {"question_id": 1, "image_id": "folder/cat.png", "question": "Is it a cat?"},
        {"question_id": 421, "image_id": 42, "question": "How many?"},
    ],
}
ANSWERS: dict[str, Any] = {
    "annotations": [
        {"question_id": key, "answer_type": kind, "answers": [{"answer": f"{key}"}] * 9 + [{"answer": ""}]}
        for key, kind in ((1, "yes/no"), (421, "number"), (420, "other"), (7, "other"))
    ]
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    def made(questions: Any = QUESTIONS, answers: Any = ANSWERS) -> tuple[Path, Path, Path]:
        paths = tmp_path / "questions.json", tmp_path / "annotations.json"
        for path, content in zip(paths, (questions, answers), strict=True):
            path.write_text(json.dumps(content))
        return *paths, tmp_path / "images"

    return made


def test_questions_are_kept_by_image(write: Callable[..., tuple[Path, Path, Path]]) -> None:
    first, second = read_vqa(*write())
    assert (first.name, first.path.name) == ("COCO_val2014_000000000042.jpg",) * 2
    assert first.questions[0] == Question(420, "What is this?", ("420",) * 9 + ("",), "other")
    assert [question.key for question in first.questions] == [420, 421]
    assert second.name == "folder/cat.png" and second.path.parts[-3:] == ("images", "folder", "cat.png")


def test_only_integers_need_the_name_of_the_part(write: Callable[..., tuple[Path, Path, Path]]) -> None:
    own = {"questions": QUESTIONS["questions"][1:2]}
    assert [image.name for image in read_vqa(*write(own))] == ["folder/cat.png"]
    told = Complaints(lambda line: None)
    paths = write({"questions": QUESTIONS["questions"]})
    assert [image.name for image in read_vqa(*paths, told)] == ["folder/cat.png"]
    for place, sentence in zip((0, 2), told.sentences, strict=True):
        assert sentence.startswith(f"The questions file {paths[0]}, questions[{place}] has image_id 42")
        assert "no text 'data_subtype': give the name" in sentence


def broken(path: list[Any], value: Any, content: Any) -> Any:
    """A copy with another value at a path."""
    made = place = copy.deepcopy(content)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["questions"], {}, "questions"),
        (["questions"], [], "holds no question"),
        (["questions", 0, "question"], " ", "not empty"),
        (["questions", 0, "question_id"], 9, "no annotation"),
        (["questions", 0, "question_id"], 421, "repeats the question_id 421"),
        (["questions", 0, "image_id"], 1.5, "integer or a text"),
        (["questions", 1, "image_id"], "../cat.png", "inside the images folder"),
        (["data_subtype"], "x/../../val", "inside the images folder"),
    ],
)
def test_broken_questions(
    write: Callable[..., tuple[Path, Path, Path]], path: list[Any], value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_vqa(*write(questions=broken(path, value, QUESTIONS)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["annotations", 0, "answers"], [{"answer": "yes"}] * 3, "has 3 answers"),
        (["annotations", 0, "answers", 4], {"answer": 2}, "must be a text"),
        (["annotations", 0, "answers", 4], {}, "no 'answer'"),
        (["annotations", 0, "answer_type"], None, "answer_type"),
        (["annotations", 0, "question_id"], 421, "repeats the question_id 421"),
        (["annotations", 0], "yes", "JSON object"),
    ],
)
def test_broken_answers(
    write: Callable[..., tuple[Path, Path, Path]], path: list[Any], value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_vqa(*write(answers=broken(path, value, ANSWERS)))


def test_a_bad_record_costs_its_image(write: Callable[..., tuple[Path, Path, Path]]) -> None:
    """Of 42 the second question is bad; the image of the first is used."""
    good = {"question_id": 5, "image_id": "dog.png", "question": "Is it a dog?"}
    answer = {**ANSWERS["annotations"][0], "question_id": 5}
    told = Complaints(lambda line: None)
    questions = {**QUESTIONS, "questions": [*QUESTIONS["questions"], good, "no object", {**good, "image_id": "x.png"}]}
    answers = {"annotations": [*broken([1, "answers"], [], ANSWERS["annotations"]), answer]}
    paths = write(questions, answers)
    assert [image.name for image in read_vqa(*paths, told)] == ["folder/cat.png"]
    annotation, nothing, repeated = told.sentences
    assert annotation.startswith(f"The annotation file {paths[1]}, annotations[1] has 0 answers")
    assert nothing.startswith(f"The questions file {paths[0]}, questions[4] is 'no object'")
    assert repeated.startswith(f"The questions file {paths[0]}, questions[5] repeats the question_id 5")


def test_files_that_are_none(tmp_path: Path, write: Callable[..., tuple[Path, Path, Path]]) -> None:
    questions, annotations, images = write()
    with pytest.raises(InputError, match="Cannot read"):
        read_vqa(tmp_path / "nothing.json", annotations, images)
    with pytest.raises(InputError, match="JSON object"):
        read_vqa(*write(questions=[1]))
