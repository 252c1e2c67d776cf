"""Worked examples in front of a question, and a box drawn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein.boxtext import CODECS
from wherein.errors import InputError
from wherein.methods.in_context import Example, InContext, Random, composites
from wherein.synth import is_held_out


@pytest.fixture
def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    boxes = [[5, 5, 20, 30], [0, 10, 40, 40], [8, 2, 12, 38]]
    return [Example(rng.integers(0, 256, (40, 50, 3), np.uint8), "dog", np.array(box, float)) for box in boxes]


def test_the_model_reads_examples_as_one_text_with_the_question(
    tiny_vlm: Any, examples: list[Example], image: NDArray[np.uint8]
) -> None:
    """The same states as one plain run over everything, image tokens and texts in their order."""
    method = InContext(tiny_vlm, examples[:2])
    pieces, embed = [], tiny_vlm.language_model.get_input_embeddings()
    codec = CODECS[tiny_vlm.codec]
    for example in examples[:2]:
        pixels, (frame,) = tiny_vlm.prepare([example.image])
        box = codec.encode(frame.to_model(example.box[None])[0], *tiny_vlm.size)
        text = tiny_vlm.encode(" In the image is") + tiny_vlm.encode(f" a dog located at {box}\n")
        pieces += [tiny_vlm.tokens(tiny_vlm.features(pixels)), embed(torch.tensor([text]))]
    x_v = tiny_vlm.features(tiny_vlm.prepare([image])[0])
    pieces += [tiny_vlm.tokens(x_v), embed(torch.tensor([tiny_vlm.encode(" In the image is")]))]
    whole = tiny_vlm.language_model.get_decoder()(inputs_embeds=torch.cat(pieces, 1)).last_hidden_state
    for _ in range(2):  # the examples are not used up
        with torch.inference_mode():
            prefix = tiny_vlm.prefix(x_v, before=method._shown)
        torch.testing.assert_close(prefix.last, whole[:, -1], atol=1e-5, rtol=1e-4)
        assert prefix.length == whole.shape[1] and int(prefix.position[0]) == whole.shape[1]


@pytest.mark.parametrize("family", ["flamingo_mpt1b", "flamingo_mpt7b", "flamingo_rpj3b"])
def test_openflamingo_reads_them_as_one_prompt_of_several_images(
    build: Any, family: str, examples: list[Example], image: NDArray[np.uint8]
) -> None:
    """PIN's own in-context model: the states of one plain run, each text behind its image and the chunk's end."""
    vlm = build(family)
    method = InContext(vlm, examples[:2])
    codec, texts, pictures = CODECS[vlm.codec], [], []
    for example in examples[:2]:
        pixels, (frame,) = vlm.prepare([example.image])
        box = codec.encode(frame.to_model(example.box[None])[0], frame.model_width, frame.model_height)
        texts.append(f"<image>In the image is a dog located at {box}<|endofchunk|>")
        pictures.append(pixels["pixel_values"])
    pixels, _ = vlm.prepare([image])
    texts.append("<image>In the image is")
    ids = [token for text in texts for token in vlm.tokenizer.encode(text, add_special_tokens=False)]
    several = torch.stack([*pictures, pixels["pixel_values"]], dim=1)
    with torch.inference_mode():
        whole = vlm.model(input_ids=torch.tensor([ids]), pixel_values=several).last_hidden_state
        for _ in range(2):  # the examples are not used up
            prefix = vlm.prefix(vlm.features(pixels), before=method._shown)
            torch.testing.assert_close(prefix.last, whole[:, -1], atol=1e-4, rtol=1e-3)
            assert prefix.length == len(ids)
    found = method.ground(image, ["a cat", "the dog"])
    assert len(found) == 2 and all(one.answer is not None and "endofchunk" not in one.answer for one in found)


def test_examples_are_encoded_once(tiny_vlm: Any, examples: list[Example], image: NDArray[np.uint8]) -> None:
    method, already = InContext(tiny_vlm, examples), tiny_vlm.encoded
    for _ in range(2):
        assert len(method.ground(image, ["a cat", "the dog"])) == 2
    assert tiny_vlm.encoded == already + len(examples) + 2


def test_examples_change_the_answer(tiny_vlm: Any, examples: list[Example], image: NDArray[np.uint8]) -> None:
    written = {InContext(tiny_vlm, examples[:k]).ground(image, ["a cat"])[0].answer for k in (1, 2, 3)}
    assert len(written) > 1


def test_without_an_example_there_is_nothing_to_show(tiny_vlm: Any) -> None:
    with pytest.raises(InputError, match="at least one"):
        InContext(tiny_vlm, []).ground(np.zeros((9, 9, 3), np.uint8), ["a cat"])


def test_composites_need_no_label_and_name_no_evaluated_category() -> None:
    a, b, other = composites(4, 64, 0), composites(4, 64, 0), composites(4, 64, 1)
    for one, same, another in zip(a, b, other, strict=True):
        assert (one.image == same.image).all() and one.phrase == same.phrase and (one.box == same.box).all()
        assert one.image.shape == (64, 64, 3) and not is_held_out(one.phrase)
        assert (one.image != another.image).any()
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64


def test_random_draws_boxes_of_its_examples(tiny_vlm: Any, examples: list[Example]) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (80, 100, 3), np.uint8) for _ in range(40)]
    drawn = [Random(tiny_vlm, examples).ground(image, ["a cat"])[0].boxes[0] for image in images]
    wanted = {tuple(example.box * 2) for example in examples}
    assert {tuple(box) for box in np.round(drawn, 9)} == wanted
    counts = [sum(tuple(np.round(box, 9)) == each for box in drawn) for each in wanted]
    assert min(counts) >= 4


def test_random_depends_on_its_seed_and_not_on_what_was_asked_before(tiny_vlm: Any, examples: list[Example]) -> None:
    image = np.full((30, 30, 3), 7, np.uint8)
    phrases = [f"thing {i}" for i in range(30)]
    together = np.stack([g.boxes[0] for g in Random(tiny_vlm, examples).ground(image, phrases)])
    alone = np.stack([Random(tiny_vlm, examples).ground(image, [phrase])[0].boxes[0] for phrase in phrases])
    other = np.stack([g.boxes[0] for g in Random(tiny_vlm, examples, seed=1).ground(image, phrases)])
    assert (together == alone).all() and (together != other).any()
