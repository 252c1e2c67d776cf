"""Questions asked of a tiny model with an insert in it and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wherein.data import Complaints
from wherein.data.vqa import AskedImage, Question
from wherein.errors import AdapterError, ImageError
from wherein.evaluation import vqa
from wherein.methods import adapter
from wherein.methods.insert import Inserted
from wherein.methods.pin import Pin, PinConfig, PositionalInsert


@pytest.fixture
def asked(tmp_path: Path) -> list[AskedImage]:
    """Three images with two questions each, on whose answers people do not quite agree."""
    random, images = np.random.default_rng(0), []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
        questions = (
            Question(10 * number, "What is this?", ("cat",) * 9 + ("kitten",), "other"),
            Question(10 * number + 1, "Is it a cat?", ("yes",) * 9 + ("maybe",), "yes/no"),
        )
        images.append(AskedImage(path.name, path, questions))
    return images


@pytest.fixture
def bind(tiny_vlm: Any, tmp_path: Path) -> Callable[[], Inserted]:
    """A random PIN of the tiny model."""
    config = PinConfig(*tiny_vlm.grid, tiny_vlm.feature_dim, codec="00-99")
    torch.manual_seed(0)
    insert = PositionalInsert(config)
    torch.nn.init.normal_(insert.layers[-1].weight, std=0.5)
    folder = adapter.save(tmp_path / "pin", "pin", tiny_vlm, config.to_dict(), insert.state_dict(), "")
    return lambda: Pin(tiny_vlm, folder)


def answers(asked: list[AskedImage], vlm: Any, bind: Any, path: Path | None = None) -> list[vqa.Answered]:
    with vqa.Transcript(path, {}) as transcript:
        return list(vqa.run(asked, vlm, bind, transcript))


def test_off_is_the_model_without_the_adapter(asked: list[AskedImage], tiny_vlm: Any, bind: Any) -> None:
    """Word for word what the model writes when no method was ever made; on, it is another."""
    plain = []
    for image in asked:
        pixels, frames = tiny_vlm.prepare([np.asarray(Image.open(image.path))])
        prompts = [vqa.PROMPT.format(question=question.text) for question in image.questions]
        with torch.inference_mode():
            prefix = tiny_vlm.prefix(tiny_vlm.features(pixels), frames, bare=True)
        plain.append(tuple(vqa.cut(text) for text in tiny_vlm.continue_text(prefix, [0, 0], prompts, vqa.MAX_TOKENS)))
    found = answers(asked, tiny_vlm, bind)
    assert [own.off for own in found] == plain
    assert all(own.off_is_base for own in found)
    assert [own.on for own in found] != plain


def test_a_model_that_an_insert_left_changed_is_told(asked: list[AskedImage], tiny_vlm: Any, bind: Any) -> None:
    """The check can fail: here a method whose insert stays, once it was made."""
    model = type(tiny_vlm)()

    def spoils() -> Inserted:
        with torch.no_grad():
            model.connector[0].weight += 1
        pin = bind()
        pin.vlm = model
        return pin  # type: ignore[no-any-return]

    first, second, _ = answers(asked, model, spoils)
    assert not first.off_is_base and second.off_is_base


def test_an_interrupted_run_goes_on(asked: list[AskedImage], tiny_vlm: Any, bind: Any, tmp_path: Path) -> None:
    path, whole = tmp_path / "out.records.jsonl", answers(asked, tiny_vlm, bind)
    with pytest.raises(KeyboardInterrupt), vqa.Transcript(path, {}) as transcript:
        for number, _ in enumerate(vqa.run(asked, tiny_vlm, bind, transcript)):
            if number == 1:
                raise KeyboardInterrupt
    path.write_bytes(path.read_bytes() + b'{"image": "2.p')  # the line during which it was killed
    asked[0].path.unlink()  # is not looked at again
    with vqa.Transcript(path, {}) as transcript:
        assert transcript.note is not None and "2 answers" in transcript.note
        assert list(vqa.run(asked, tiny_vlm, bind, transcript)) == whole
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["image"] for line in lines[1:-1]] == ["0.png", "1.png", "2.png"] and lines[-1] == {"finished": True}


def test_an_image_that_cannot_be_read_is_left_out(asked: list[AskedImage], tiny_vlm: Any, bind: Any) -> None:
    whole = answers(asked, tiny_vlm, bind)
    asked[1].path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="1.png is not an image"):
        answers(asked, tiny_vlm, bind)
    told = Complaints(lambda line: None)
    with vqa.Transcript(None, {}) as transcript:
        assert list(vqa.run(asked, tiny_vlm, bind, transcript, told)) == [whole[0], whole[2]]
    assert len(told.sentences) == 1


def test_an_image_that_the_model_cannot_take_is_left_out(asked: list[AskedImage], tiny_vlm: Any, bind: Any) -> None:
    class Picky(type(tiny_vlm)):  # type: ignore[misc]
        def prepare(self, images: Any) -> Any:
            if images[0].shape[1] > 1000:
                raise ImageError("too long and thin")
            return super().prepare(images)

    Image.new("RGB", (3000, 10)).save(asked[1].path)
    told = Complaints(lambda line: None)
    with vqa.Transcript(None, {}) as transcript:
        found = list(vqa.run(asked, Picky(), bind, transcript, told))
    assert [own.image for own in found] == ["0.png", "2.png"]
    assert "too long and thin" in told.sentences[0]


def test_other_settings_start_afresh(asked: list[AskedImage], tiny_vlm: Any, bind: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.records.jsonl"
    with pytest.raises(KeyboardInterrupt), vqa.Transcript(path, {"seed": 1}) as transcript:
        next(vqa.run(asked, tiny_vlm, bind, transcript))
        raise KeyboardInterrupt
    with vqa.Transcript(path, {"seed": 2}) as transcript:
        assert not transcript.answered and "other settings" in str(transcript.note)


def test_an_adapter_that_is_not_there_ends_it(asked: list[AskedImage], tiny_vlm: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="No adapter"):
        answers(asked, tiny_vlm, lambda: Pin(tiny_vlm, tmp_path / "nothing"))


def test_figures_worked_out_by_hand(asked: list[AskedImage]) -> None:
    off = [("Cat.", "yes"), ("a cat", "no"), ("cat", "yes")]
    on = [("cat", "no"), ("dog", "no"), ("the cat", "yes")]
    given = [
        vqa.Answered(image.name, *pair, True) for image, pair in zip(asked, zip(off, on, strict=True), strict=True)
    ]
    found = vqa.summarise(asked, given, model="tiny", method="pin", seed=3)
    assert (found["schema"], found["n"], found["images"], found["off_is_base"]) == (1, 6, 3, True)
    assert found["accuracy"]["off"]["all"] == pytest.approx(5 / 6)
    assert found["accuracy"]["off"]["by_kind"] == {"other": 1.0, "yes/no": pytest.approx(2 / 3)}
    assert found["accuracy"]["on"]["by_kind"] == {"other": pytest.approx(2 / 3), "yes/no": pytest.approx(1 / 3)}
    assert found["on - off"]["difference"] == pytest.approx(-2 / 6)
    # Per image -1/2, -1/2 and 0: of the resampled means none is above 0, a 27th is 0.
    assert found["on - off"]["ci95"] == pytest.approx([-0.5, 0]) and found["on - off"]["p"] < 0.1
    assert found["accuracy"]["on"]["ci95"] == pytest.approx([0, 1])
    json.dumps(found, allow_nan=False)
    spoilt = vqa.Answered(given[0].image, given[0].off, given[0].on, False)
    assert not vqa.summarise(asked, [spoilt, *given[1:]], model="tiny", method="pin")["off_is_base"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("blue\nQuestion:", "blue"),
        ("2 Question:How", "2"),
        ("yes Short answer", "yes"),
        ("\n", ""),
        (" a cat ", "a cat"),
        ("yes, a cat", "yes"),
        ("1,000", "1,000"),
    ],
)
def test_what_follows_an_answer_is_cut_off(text: str, answer: str) -> None:
    assert vqa.cut(text) == answer


def test_the_prompt_is_that_of_the_published_evaluation() -> None:
    said = vqa.PROMPT.format(question="What is this?")
    assert said.endswith("\nQuestion:What is this? Short answer:") and said.count("Short answer:") == 3
