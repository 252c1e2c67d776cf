"""Asked as people ask: images and words in, words and boxes in pixels of the image out, all of it in one pass."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.methods.pixel import words as words_module
from wherein.methods.pixel.language import Reading
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.reader import PixelReader, frame_of, shown
from wherein.methods.pixel.words import words
from wherein.methods.pixel.writing import write

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def tokenizer(tiny_vlm: Any) -> Any:
    return tiny_vlm.tokenizer


@pytest.fixture(scope="module", params=["seq2seq", "decoder"])
def reader(request: pytest.FixtureRequest, tiny: ModuleType, tokenizer: Any) -> PixelReader:
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    config = tiny.tiny_config(request.param, vocabulary=len(tokenizer), begin_token_id=3, end_token_id=end)
    return PixelReader(tiny.stirred(PixelLM(config), seed=4), tokenizer)


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(0).integers(0, 255, (90, 150, 3), np.uint8)


@contextmanager
def calls(module: torch.nn.Module) -> Iterator[list[int]]:
    """How many tokens each call of the language model's decoder reads."""
    seen: list[int] = []

    def note(_: Any, given: Any, named: Any) -> None:
        ids = named.get("input_ids")
        seen.append((named["inputs_embeds"] if ids is None else ids).shape[1])

    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def test_pl_12_a_place_for_every_word(reader: PixelReader, image: Image) -> None:
    caption = reader.caption(reader.see(image), longest=25)
    assert len(caption.words) == len(words_module.WORD.findall(caption.text)) > 0
    for word in caption.words:
        assert caption.text[word.start : word.end] == word.text
        assert word.point.shape == (2,) and word.box is not None and word.box.shape == (4,)
        x0, y0, x1, y1 = word.box
        assert 0 <= x0 <= x1 <= 150 and 0 <= y0 <= y1 <= 90
    assert 0 < caption.score <= 1


def test_pl_12_as_many_states_as_tokens_in_one_pass(reader: PixelReader, image: Image) -> None:
    """The states are those of reading the finished caption again, but the decoder reads each token once."""
    model, seen = reader.model, reader.see(image)
    size = torch.tensor([shown(seen.frame)])
    text = reader.texts(["A long image caption: "])
    visual = model.visual(seen.features, torch.tensor([0]), _whole(size))
    decoder = model.language_model.get_decoder()
    config = model.config
    with calls(decoder) as reads:
        (written,) = write(Reading(model.language_model, visual, text), config.begin_token_id, config.end_token_id, 12)
    assert len(written.states) == len(written.tokens) == len(written.scores) > 3
    again = torch.tensor([[*written.tokens, config.end_token_id]])
    with torch.inference_mode():
        states, logits, _ = model.behind(visual, text, again, size)
    count = len(written.tokens)
    torch.testing.assert_close(written.states, states[0, :count], atol=1e-4, rtol=1e-4)
    assert logits[0, :count].argmax(-1).tolist() == written.tokens
    assert reads[1:] == [1] * count  # begin, perhaps behind what was shown, and every token once
    plain = model.language_model.generate(
        **_shown(model, visual, text),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=config.end_token_id,
        pad_token_id=0,
    )
    assert [token for token in plain[0].tolist() if token != config.begin_token_id][:count] == written.tokens


def _whole(size: torch.Tensor) -> Any:
    from wherein.methods.pixel.prompts import Prompts

    return Prompts.whole(size)


def _shown(model: PixelLM, visual: torch.Tensor, text: torch.Tensor) -> dict[str, Any]:
    """What transformers' own `generate` continues."""
    table = model.language_model.get_input_embeddings()
    embedded = torch.cat([visual, table(text)], dim=1)
    if model.config.text_config.is_encoder_decoder:
        return {"inputs_embeds": embedded, "decoder_start_token_id": model.config.begin_token_id}
    embedded = torch.cat([embedded, table(torch.tensor([[model.config.begin_token_id]]))], dim=1)
    return {"inputs_embeds": embedded, "attention_mask": torch.ones(embedded.shape[:2])}


def test_a_caption_with_places_reads_no_more_than_one_without(
    reader: PixelReader, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, decoder = reader.see(image), reader.model.language_model.get_decoder()
    with calls(decoder) as placed:
        caption = reader.caption(seen, longest=15)
    monkeypatch.setattr(reader, "_placed", lambda written, *_: written)
    with calls(decoder) as plain:
        written: Any = reader.caption(seen, longest=15)
    assert placed == plain and len(placed) == len(written.tokens) + 1
    assert caption.words


def test_beams_find_a_likelier_caption(reader: PixelReader, image: Image) -> None:
    """At least as likely as the greedy one, with the states of its own tokens."""
    seen = reader.see(image)
    greedy, searched = (reader.caption(seen, beams=beams, longest=8) for beams in (1, 4))
    assert searched.score >= greedy.score * 0.999
    model, size = reader.model, torch.tensor([shown(seen.frame)])
    config, text = model.config, reader.texts(["A long image caption: "] * 4)
    visual = model.visual(seen.features, torch.zeros(4, dtype=torch.long), _whole(size.expand(4, -1)))
    reading = Reading(model.language_model, visual, text)
    (written,) = write(reading, config.begin_token_id, config.end_token_id, 8, beams=4)
    again = torch.tensor([[*written.tokens, config.end_token_id]])
    with torch.inference_mode():
        states, _, _ = model.behind(visual[:1], text[:1], again, size)
    torch.testing.assert_close(written.states, states[0, : len(written.tokens)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 160, 3), (160, 40, 3)])
@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_places_of_beams_on_a_long_image(
    tiny: ModuleType, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, fit: str, shape: tuple[int, ...]
) -> None:
    """Words are where the likeliest caption, read again alone, says shares of the picture to be, not of the square."""
    end = tokenizer.eos_token_id
    config = tiny.tiny_config("decoder", vocabulary=len(tokenizer), begin_token_id=3, end_token_id=end, fit=fit)
    reader = PixelReader(tiny.stirred(PixelLM(config), seed=4), tokenizer)
    kept: list[Any] = []
    placed = reader._placed
    monkeypatch.setattr(reader, "_placed", lambda written, *more: kept.append(written) or placed(written, *more))
    seen = reader.see(np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    caption = reader.caption(seen, beams=3, longest=20)
    size = torch.tensor([shown(seen.frame)])
    visual = reader.model.visual(seen.features, torch.tensor([0]), _whole(size))
    labels = torch.tensor([[*kept[0].tokens, end]])
    with torch.inference_mode():
        _, _, said = reader.model.behind(visual, reader.texts(["A long image caption: "]), labels, size)
    shares = (said[0] / size).numpy().astype(float)
    long = [shape[1], shape[0]]
    boxes = np.concatenate([shares.min(1), shares.max(1)], 1).clip(0, 1) * [*long, *long]
    _, found = words(tokenizer, kept[0].tokens)
    assert len(caption.words) == len(found) > 0
    for word, where in zip(caption.words, found, strict=True):
        assert word.box is not None
        np.testing.assert_allclose(word.box, boxes[where.last], atol=0.05)


def test_a_caption_without_a_lead(reader: PixelReader, image: Image) -> None:
    caption = reader.caption(reader.see(image), longest=6, lead="")
    assert 0 < caption.score <= 1


def test_regions_together_and_alone(reader: PixelReader, image: Image) -> None:
    seen = reader.see(image)
    boxes = np.array([[5.0, 5.0, 60.0, 80.0], [70.0, 10.0, 200.0, 60.0]])
    together = reader.captions_of(seen, boxes, longest=6)
    alone = [reader.captions_of(seen, box[None], longest=6)[0] for box in boxes]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    places = [np.array([word.point for word in caption.words]) for caption in together]
    assert places[0].shape != places[1].shape or np.abs(places[0] - places[1]).max() > 0.5
    searched = reader.captions_of(seen, boxes, beams=3, longest=6)
    for box, caption in zip(boxes, searched, strict=True):
        (one,) = reader.captions_of(seen, box[None], beams=3, longest=6)
        assert one.text == caption.text and one.score == pytest.approx(caption.score, rel=1e-3)
    at = reader.captions_at(seen, [[20.0, 30.0], [100.0, 40.0]], longest=6)
    assert len(at) == 2 and reader.captions_of(seen, []) == reader.captions_at(seen, []) == []


def test_a_phrase_has_a_box_and_a_mask(reader: PixelReader, image: Image) -> None:
    seen = reader.see(image)
    phrases = ["a cat", "the red cat on the left"]
    found = reader.refer(seen, phrases, masks=True)
    assert [one.phrase for one in found] == phrases
    for i, one in enumerate(found):
        (alone,) = reader.refer(seen, [phrases[i]])
        np.testing.assert_allclose(alone.boxes, one.boxes, atol=1e-2)
        np.testing.assert_allclose(alone.scores, one.scores, rtol=1e-3)
        assert alone.mask is None and one.mask is not None and one.mask.shape == (90, 150)
        assert one.score_kind == "phrase_probability" and not one.absent and one.absent_probability is None
    assert not np.allclose(found[0].boxes, found[1].boxes, atol=0.1)
    assert reader.refer(seen, []) == []


def test_boxes_are_of_the_image(reader: PixelReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head says shares of the picture, whatever the padding beside it (bug P-8)."""
    seen = reader.see(np.zeros((50, 200, 3), np.uint8))
    said = torch.tensor([[0.25, 0.1], [0.75, 1.4]])
    monkeypatch.setattr(
        reader.model.point_head,
        "forward",
        lambda states, sizes: (said * sizes[:, None, None]).expand(len(states), states.shape[1], 2, 2),
    )
    (found,) = reader.refer(seen, ["a cat"])
    np.testing.assert_allclose(found.boxes, [[50.0, 5.0, 150.0, 50.0]], atol=1e-4)


def test_a_box_beside_the_image_is_none(reader: PixelReader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reader.see(np.zeros((50, 200, 3), np.uint8))
    beside = torch.tensor([[70.0, 1.0], [90.0, 9.0]])
    monkeypatch.setattr(
        reader.model.point_head, "forward", lambda states, _: beside.expand(len(states), states.shape[1], 2, 2)
    )
    (found,) = reader.refer(seen, ["a cat"], masks=True)
    assert found.invalid and len(found.scores) == 0 and found.mask is None


@pytest.mark.parametrize(
    ("width", "height", "fit", "size"),
    [
        (200, 50, "pad", (384, 96)),
        (50, 200, "pad", (96, 384)),
        (1000, 1, "pad", (384, 1)),
        (200, 50, "squash", (384, 384)),
    ],
)
def test_frames(width: int, height: int, fit: str, size: tuple[int, int]) -> None:
    frame = frame_of(width, height, 384, fit)
    assert (frame.model_width, frame.model_height) == (384, 384)
    assert shown(frame) == pytest.approx(size)
    corner = frame.to_model(np.array([[0, 0, width, height]]))[0]
    assert corner.tolist() == pytest.approx([0, 0, *size])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda reader, seen: reader.captions_of(seen, [[10, 10, 10, 40]]), "must hold some of the image"),
        (lambda reader, seen: reader.captions_of(seen, [[300, 10, 400, 40]]), "must hold some of the image"),
        (lambda reader, seen: reader.captions_of(seen, [[np.nan, 10, 400, 40]]), "must hold some of the image"),
        (lambda reader, seen: reader.captions_at(seen, [[10, 100]]), "must be inside the image of 150 x 90"),
        (lambda reader, seen: reader.caption(seen, beams=0), "at least one beam"),
        (lambda reader, seen: reader.refer(seen, [" "]), "must have a word"),
        (lambda reader, seen: reader.refer(seen, ["cat " * 300]), "make it shorter"),
        (lambda reader, seen: reader.refer(seen, [reader.tokenizer.eos_token]), "a control token"),
        (lambda reader, seen: reader.refer(seen, ["a cat", f"a {reader.tokenizer.eos_token}cat"]), "a control token"),
        (lambda reader, seen: reader.caption(seen, lead=f"A cat.{reader.tokenizer.eos_token}"), "a control token"),
        (lambda reader, seen: reader.captions_at(seen, [[0, 0, 9, 9]]), "x and y"),
    ],
)
def test_questions_that_cannot_be_answered(reader: PixelReader, image: Image, ask: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask(reader, reader.see(image))


def test_one_point_a_word(tiny: ModuleType, tokenizer: Any, image: Image) -> None:
    end = tokenizer.eos_token_id
    config = tiny.tiny_config(
        "decoder",
        vocabulary=len(tokenizer),
        begin_token_id=3,
        end_token_id=end,
        points_per_token=1,
        sam_encodes=False,
        fit="squash",
    )
    reader = PixelReader(tiny.stirred(PixelLM(config), seed=4), tokenizer)
    seen = reader.see(image)
    assert all(word.box is None and word.point.shape == (2,) for word in reader.caption(seen, longest=9).words)
    with pytest.raises(InputError, match="two points"):
        reader.refer(seen, ["a cat"])


def test_masks_need_sam(tiny: ModuleType, tokenizer: Any, image: Image) -> None:
    end = tokenizer.eos_token_id
    config = tiny.tiny_config(
        "decoder", vocabulary=len(tokenizer), begin_token_id=3, end_token_id=end, sam_encodes=False
    )
    reader = PixelReader(PixelLM(config), tokenizer)
    with pytest.raises(InputError, match="sam_encodes"):
        reader.refer(reader.see(image), ["a cat"], masks=True)


def test_the_words_example() -> None:
    assert doctest.testmod(words_module) == (0, 5)


@pytest.mark.parametrize("text", ["Two cats, a t-shirt and 3.5 mugs.", "naïve café – über 猫 🐱 ok", "", "..."])
def test_words_of_real_tokens(tokenizer: Any, text: str) -> None:
    """Byte-level tokens, characters of several tokens among them: each word is where its tokens are."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    whole, found = words(tokenizer, tokens)
    assert whole == text and [word.text for word in found] == words_module.WORD.findall(text)
    for word in found:
        assert word.text in tokenizer.decode(tokens[word.first : word.last + 1])
        assert word.text not in tokenizer.decode(tokens[word.first : word.last])
    assert all(a.last < b.first or a.last == b.first for a, b in zip(found, found[1:], strict=False))
