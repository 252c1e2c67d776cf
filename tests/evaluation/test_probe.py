"""The probe's figures from its answers, and a local model that is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from wherein.boxforms import CONVENTIONS, THOUSANDTHS, Convention
from wherein.data import Complaints, Sample
from wherein.errors import InputError
from wherein.evaluation import select
from wherein.evaluation.asking import BARE, PROMPTS, Asker, Local, question
from wherein.evaluation.probe import Probe, to_table
from wherein.evaluation.transcript import Reply, Transcript
from wherein.geometry import Frame

# Images are 100 x 50 pixels; the first has cat twice (all of it, and the left half) and dog (the left half), the second
# dog (the right half).
LEFT, RIGHT, WHOLE = [0, 0, 50, 50], [50, 0, 100, 50], [0, 0, 100, 50]


class FakeAsker:
    """Says what a function of the question says; its own picture has half the sides and a border of 10 at the left."""

    name = "fake"
    settings: dict[str, Any] = {"model": "fake"}

    def __init__(self, say: Callable[[str], str], convention: Convention | None = None) -> None:
        self.say, self.convention, self.asked = say, convention, list[str]()

    def check_phrase(self, phrase: str) -> None:
        if phrase == "<end>":
            raise InputError("The phrase '<end>' is a control token.")

    def frame_of(self, width: int, height: int) -> Frame:
        return Frame.identity(width, height).resize(width // 2, height // 2).pad(10, 0, 0, 0)

    def ask(self, image: NDArray[np.uint8], questions: Sequence[str]) -> Iterator[Reply]:
        for text in questions:
            self.asked.append(text)
            yield Reply(self.say(text), 0.25)


@pytest.fixture
def samples(dataset: Path) -> list[Sample]:
    Image.new("RGB", (100, 50), "red").save(dataset / "images" / "1.png")  # a reply is kept by what is in the file
    return select("pin", dataset / "annotations.json", dataset / "images")


def probe(
    samples: list[Sample],
    asker: Asker,
    prompts: Sequence[str] = ("box", "localise"),
    stated: Convention | None = None,
    path: Path | None = None,
) -> dict[str, Any]:
    transcript = Transcript(path, asker.settings)
    probed = Probe(samples, asker, prompts, transcript)
    count = sum(len(questions) for _, _, questions in probed.waiting())
    assert len(list(probed.ask())) == count
    assert all(not questions for _, _, questions in probed.waiting())
    return probed.results(stated, protocol="pin", split=None, seed=0, command=None)


def test_boxes_come_back_through_the_frame_and_are_measured(samples: list[Sample]) -> None:
    """In the asker's picture of 60 x 25 the left half is 10..35 wide."""
    results = probe(samples, FakeAsker(lambda text: "[10, 0, 35, 25]" if "box" in text else "a cat"))
    assert (results["schema"], results["model"], results["n"], results["images"]) == (1, "fake", 4, 2)
    figures = results["methods"]
    assert list(figures) == ["centre", "box", "localise"]
    assert figures["box"]["miou"] == pytest.approx(np.mean([0.5, 1, 1, 0])) and figures["box"]["invalid"] == 0
    assert figures["localise"]["miou"] == 0 and figures["localise"]["invalid"] == 1
    assert figures["box"]["seconds_per_image"] == pytest.approx((2 + 1) * 0.25 / 2)
    assert set(results["paired"]) == {"box - centre", "localise - centre"}
    answer = results["answers"][0]
    assert (answer["image"], answer["phrase"], answer["prompt"], answer["verdict"]) == ("0.png", "cat", "box", "box")
    assert (answer["box"], answer["form"], answer["convention"]) == (LEFT, "list", "pixels")
    assert results["answers"][-1]["box"] is None and results["answers"][-1]["text"] == "a cat"
    json.dumps(results, allow_nan=False)


def test_every_verdict_is_counted(samples: list[Sample]) -> None:
    said = {"box": "", "localise": "a dog", "box-list": "[x_min, y_min, x_max, y_max]", "box-json": "{}"}
    asked = {question(name, phrase): text for name, text in said.items() for phrase in ("cat", "dog")}
    results = probe(samples, FakeAsker(lambda text: asked[text]), list(said))
    counts = {name: {k: n for k, n in one["verdicts"].items() if n} for name, one in results["prompts"].items()}
    assert counts == {
        "box": {"empty": 3},
        "localise": {"chatty": 3},
        "box-list": {"echo": 3},
        "box-json": {"unparsable": 3},
    }


def test_a_box_in_a_border_of_the_models_picture_is_none(samples: list[Sample]) -> None:
    results = probe(samples, FakeAsker(lambda text: "[0, 0, 10, 25]"))
    assert results["prompts"]["box"]["verdicts"]["unparsable"] == 3 and results["methods"]["box"]["miou"] == 0


@pytest.mark.parametrize(
    ("own", "stated", "expected", "decided"),
    [
        (THOUSANDTHS, CONVENTIONS["0-1000-y-first"], "0-1000-y-first", "the caller"),
        (THOUSANDTHS, None, "0-1000", "the model's family"),
        (None, None, "0-1000", "rule: as pixels, 1 of 6 boxes would reach out of the picture"),
    ],
)
def test_who_decides_what_numbers_mean(
    samples: list[Sample], own: Convention | None, stated: Convention | None, expected: str, decided: str
) -> None:
    """One answer out of the picture settles it for all, and pixels are not tried for any."""

    def say(text: str) -> str:
        return "[100, 100, 900, 900]" if text == question("box", "cat") else "[10, 0, 35, 25]"

    results = probe(samples, FakeAsker(say, own), stated=stated)
    assert results["coordinates"] == {"convention": expected, "decided": decided}
    assert {answer["convention"] for answer in results["answers"] if answer["box"]} == {expected}


def test_nothing_is_asked_twice(samples: list[Sample], tmp_path: Path) -> None:
    path, asker = tmp_path / "a.jsonl", FakeAsker(lambda text: "a cat")
    transcript = Transcript(path, asker.settings)
    replies = Probe(samples, asker, ["box"], transcript).ask()
    next(replies)
    replies.close()  # type: ignore[attr-defined]  # killed
    assert asker.asked == [question("box", "cat")]
    results = probe(samples, asker, path=path)
    assert len(asker.asked) == 2 * 3 and results["prompts"]["box"]["verdicts"]["chatty"] == 3
    probe(samples, asker, path=path)
    assert len(asker.asked) == 2 * 3


def test_phrases_that_make_one_question_are_asked_once(dataset: Path) -> None:
    pairs = [{"file_name": "1.png", "phrase": phrase, "bbox": [50, 0, 50, 50]} for phrase in ("the dog", "a dog")]
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    asker = FakeAsker(lambda text: "[35, 0, 60, 25]")
    results = probe(select("phrases", dataset / "pairs.json", dataset / "images"), asker, ["box"])
    assert asker.asked == ["Provide a bounding box around the dog."]
    assert results["methods"]["box"]["miou"] == 1 and results["prompts"]["box"]["verdicts"]["box"] == 2


def test_a_flaw_in_the_data_is_found_before_anything_is_asked(dataset: Path) -> None:
    samples, asker = select("pin", dataset / "annotations.json", dataset / "images"), FakeAsker(lambda text: "")
    Image.new("RGB", (99, 50)).save(dataset / "images" / "1.png")
    with pytest.raises(InputError, match="100 x 50 pixels, but the image has 99 x 50"):
        probe(samples, asker)
    pairs = [{"file_name": "0.png", "phrase": "<end>", "bbox": [0, 0, 1, 1]}]
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    with pytest.raises(InputError, match="control token"):
        probe(select("phrases", dataset / "pairs.json", dataset / "images"), asker)
    assert asker.asked == []


def test_images_with_a_flaw_can_be_left_out(dataset: Path) -> None:
    pairs = [
        {"file_name": f"{number}.png", "phrase": phrase, "bbox": [0, 0, 50, 50]}
        for number, phrase in enumerate(["<end>", "the dog", "a cat"])
    ]
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    samples = select("phrases", dataset / "pairs.json", dataset / "images")
    (dataset / "images" / "2.png").write_bytes(b"no image")
    asker, told = FakeAsker(lambda text: "[10, 0, 35, 25]"), Complaints(lambda line: None)
    transcript = Transcript(None, {})
    probed = Probe(samples, asker, ["box"], transcript, told)
    assert len(told.sentences) == 2 and len(list(probed.ask())) == 1
    results = probed.results(None, protocol="phrases", split=None, seed=0, command=None)
    assert (results["images"], results["methods"]["box"]["miou"]) == (1, 1)
    with pytest.raises(InputError, match="No image is left"):
        Probe(samples[:1], asker, ["box"], transcript, told)


def test_prompts_with_and_without_the_word_and_the_format() -> None:
    assert question("localise", "The red Cat.") == "Localise the red cat in the image."
    assert question("box-json", "a {dog}").endswith('around the {dog} as JSON: {"bbox": [x_min, y_min, x_max, y_max]}.')
    kinds = {("box" in text.split(), "x_min" in text) for text in PROMPTS.values()}
    assert kinds == {(True, False), (False, False), (True, True), (False, True)}
    assert not any(character.isdigit() for text in PROMPTS.values() for character in text)  # an echo is no box


def test_the_table_names_every_prompt_verdict_and_the_baseline(samples: list[Sample]) -> None:
    results = probe(samples, FakeAsker(lambda text: "[10, 0, 35, 25]"), list(PROMPTS))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(to_table(results))
    text = console.export_text()
    assert "3 questions a prompt, 4 boxes in 2 images" in text and "\u2026" not in text
    for row in (*PROMPTS, "centre"):
        assert f"{results['methods'][row]['miou']:.3f}" in next(
            line for line in text.splitlines() if line.startswith(f" {row} ")
        )
    assert "Bare numbers mean pixels (rule: as pixels, 18 of 18 boxes lie in the picture)." in " ".join(text.split())


def test_a_model_without_a_template_is_asked_in_one_of_ours(tiny_vlm: Any) -> None:
    local = Local(tiny_vlm, tokens=5)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    questions = [question("box", f"cat {number}") for number in range(10)]  # more than a batch
    encoded = tiny_vlm.encoded
    replies = list(local.ask(image, questions))
    assert tiny_vlm.encoded == encoded + 1
    pixels, frames = tiny_vlm.prepare([image])
    prefix = tiny_vlm.prefix(tiny_vlm.features(pixels), frames, bare=True)
    one_by_one = [tiny_vlm.continue_text(prefix, [0], [BARE.format(text)], 5)[0] for text in questions]
    assert [reply.text for reply in replies] == one_by_one and len(set(one_by_one)) > 1
    assert local.convention is None and json.dumps(local.settings) and local.frame_of(90, 60).model_width == 64


@pytest.mark.parametrize(
    ("family", "closing", "convention"),
    [("llava", " ASSISTANT:", "0-1"), ("qwen2_5_vl", "<|im_end|>\n<|im_start|>assistant\n", "pixels")],
)
def test_a_model_with_a_template_is_asked_in_it(build: Any, family: str, closing: str, convention: str) -> None:
    vlm = build(family)
    local = Local(vlm, tokens=3)
    assert str(local.convention) == convention and local.settings["template"] == closing
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    (reply,) = local.ask(image, ["Where is the cat?"])
    pixels, frames = vlm.prepare([image])
    prefix = vlm.prefix(vlm.features(pixels), frames, bare=True)
    assert reply.text == vlm.continue_text(prefix, [0], [f"Where is the cat?{closing}"], 3)[0]
