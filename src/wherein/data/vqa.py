"""Reader of VQAv2 (Goyal et al., CVPR'17): a JSON of questions about images, and one of ten people's answers to each.

The data are licensed CC BY 4.0; its validation split is for evaluation. Of an entry only what is named below is read.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import Entry, shown
from wherein.data.files import read_json
from wherein.errors import InputError

ANSWERS = 10
"""People who answered each question."""


@dataclass(frozen=True)
class Question:
    """A question, what ten people answered, and of which kind their answers are: "yes/no", "number" or "other".

    `where` names file and record for complaints.
    """

    key: int | str
    text: str
    answers: tuple[str, ...]
    kind: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class AskedImage:
    """An image of the folder, by its path in there, with all questions about it in the order of the file."""

    name: str
    path: Path
    questions: tuple[Question, ...]

    @property
    def where(self) -> str:
        """File and record of its first question, for complaints."""
        return self.questions[0].where or str(self.path)


_Key = int | str
_Answers = tuple[tuple[str, ...], str]  # what people answered, and of which kind that is


def read_vqa(questions: Path, annotations: Path, images: Path, complain: Complain = refuse) -> list[AskedImage]:
    """The images that are asked about, in the order of their first question; no image is opened.

    An integer `image_id` is COCO's number, so the image is `COCO_<data_subtype>_<twelve digits>.jpg`; a text is the
    name of the file. Answers to questions that are not asked are left out, and so is an image with a bad record.

    Raises:
        InputError: a file cannot be read, or there is no question; or, as `complain` decides, an entry is unusable, an
            id is repeated, or a question has not ten answers.
    """
    asked = Entry(read_json(questions), f"The questions file {questions}")
    if not asked.values("questions"):
        raise InputError(f"The questions file {questions} holds no question.")
    answered = _answered(annotations, complain)
    found: dict[str, list[Question]] = defaultdict(list)
    known: dict[_Key, str] = {}
    spoilt: set[str] = set()
    for entry in asked.entries("questions", complain):
        name = None
        try:
            name = _image(entry, asked)
            key = entry.key("question_id")
            if key in known:
                spoilt.add(known[key])
                raise InputError(f"{entry.where} repeats the question_id {shown(key)} of an earlier question.")
            known[key] = name
            given = entry.target("question_id", answered, f"annotation in {annotations}")
            if given is None:  # which has been complained of
                spoilt.add(name)
            else:
                found[name].append(Question(key, entry.text("question"), *given, entry.where))
        except InputError as error:
            complain(error)
            if name is not None:
                spoilt.add(name)
    return [AskedImage(name, images / name, tuple(own)) for name, own in found.items() if name not in spoilt]


def _answered(annotations: Path, complain: Complain) -> dict[_Key, _Answers | None]:
    """The answers to each question and their kind; None for those that are unusable, of which `complain` is told."""
    index: dict[_Key, _Answers | None] = {}
    for entry in Entry(read_json(annotations), f"The annotation file {annotations}").entries("annotations", complain):
        key = None
        try:
            key = entry.key("question_id")
            if key in index:
                raise InputError(f"{entry.where} repeats the question_id {shown(key)} of an earlier annotation.")
            index[key] = _answers(entry)
        except InputError as error:
            complain(error)
            if key is not None:
                index[key] = None
    return index


def _answers(entry: Entry) -> _Answers:
    answers = tuple(_text(answer) for answer in entry.entries("answers"))
    if len(answers) != ANSWERS:
        raise InputError(
            f"{entry.where} has {len(answers)} answers, but the accuracy of VQA is one of {ANSWERS}: "
            "write each as often as it counts."
        )
    return answers, entry.text("answer_type")


def _text(entry: Entry) -> str:
    value = entry.field("answer")
    if not isinstance(value, str):
        raise InputError(f"{entry.where} has answer {shown(value)}, but it must be a text.")
    return value


def _image(entry: Entry, asked: Entry) -> str:
    """The image a question is about, as a path inside the images folder."""
    name, part = entry.key("image_id"), asked.get("data_subtype")
    if isinstance(name, int):
        if not isinstance(part, str):
            raise InputError(
                f"{entry.where} has image_id {shown(name)}, COCO's number, but the file has no text 'data_subtype': "
                "give the name of the image's file."
            )
        name = f"COCO_{part}_{name:012d}.jpg"
    return Entry({"image_id": name}, entry.where).image_name("image_id")
