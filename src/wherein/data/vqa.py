"""Reader of VQAv2 (Goyal et al., CVPR'17): a JSON of questions about images, and one of ten people's answers to each.

The data are licensed CC BY 4.0; its validation split is for evaluation. Of an entry only what is named below is read.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from wherein.data.entry import Entry, shown
from wherein.data.files import read_json
from wherein.errors import InputError

ANSWERS = 10
"""People who answered each question."""


@dataclass(frozen=True)
class Question:
    """A question, what ten people answered, and of which kind their answers are: "yes/no", "number" or "other"."""

    key: int | str
    text: str
    answers: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class AskedImage:
    """An image of the folder, by its path in there, with all questions about it in the order of the file."""

    name: str
    path: Path
    questions: tuple[Question, ...]


def read_vqa(questions: Path, annotations: Path, images: Path) -> list[AskedImage]:
    """The images that are asked about, in the order of their first question; no image is opened.

    An integer `image_id` is COCO's number, so the image is `COCO_<data_subtype>_<twelve digits>.jpg`; a text is the
    name of the file. Answers to questions that are not asked are left out.

    Raises:
        InputError: a file cannot be read, an entry of it is unusable, a question has not ten answers, or there is none.
    """
    asked = Entry(read_json(questions), f"The questions file {questions}")
    answered = _answers(annotations)
    found: dict[str, list[Question]] = defaultdict(list)
    keys: set[int | str] = set()
    for entry in asked.entries("questions"):
        key = entry.key("question_id")
        if key in keys:
            raise InputError(f"{entry.where} repeats the question_id {shown(key)} of an earlier question.")
        keys.add(key)
        answers, kind = entry.target("question_id", answered, f"annotation in {annotations}")
        found[_image(entry, asked)].append(Question(key, entry.text("question"), answers, kind))
    if not found:
        raise InputError(f"The questions file {questions} holds no question.")
    return [AskedImage(name, images / name, tuple(own)) for name, own in found.items()]


def _answers(annotations: Path) -> dict[int | str, tuple[tuple[str, ...], str]]:
    """The answers to each question and their kind."""
    index: dict[int | str, tuple[tuple[str, ...], str]] = {}
    for entry in Entry(read_json(annotations), f"The annotation file {annotations}").entries("annotations"):
        key, answers = entry.key("question_id"), tuple(_text(answer) for answer in entry.entries("answers"))
        if len(answers) != ANSWERS:
            raise InputError(
                f"{entry.where} has {len(answers)} answers, but the accuracy of VQA is one of {ANSWERS}: "
                "write each as often as it counts."
            )
        if key in index:
            raise InputError(f"{entry.where} repeats the question_id {shown(key)} of an earlier annotation.")
        index[key] = answers, entry.text("answer_type")
    return index


def _text(entry: Entry) -> str:
    value = entry.field("answer")
    if not isinstance(value, str):
        raise InputError(f"{entry.where} has answer {shown(value)}, but it must be a text.")
    return value


def _image(entry: Entry, asked: Entry) -> str:
    """The image a question is about, as a path inside the images folder."""
    key = entry.key("image_id")
    name = key if isinstance(key, str) else f"COCO_{asked.text('data_subtype')}_{key:012d}.jpg"
    return Entry({"image_id": name}, entry.where).image_name("image_id")
