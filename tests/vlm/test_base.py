"""The contract of a frozen VLM: seams that leave nothing behind, and an image that is encoded once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AddedToken

from wherein.boxtext import CODECS
from wherein.errors import InputError
from wherein.vlm.branches import Branch


@pytest.fixture
def x_v(tiny_vlm: Any) -> Tensor:
    rows, columns = tiny_vlm.grid
    return torch.randn(1, rows * columns, tiny_vlm.feature_dim, generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
def logits(vlm: Any, x_v: Tensor) -> Tensor:
    """What the model predicts behind the image and the shared prompt."""
    text = vlm.language_model.get_input_embeddings()(torch.tensor([vlm.encode(vlm.shared_prompt)]))
    return vlm.language_model(inputs_embeds=torch.cat([vlm.tokens(x_v), text], dim=1)).logits


@pytest.mark.parametrize("seam", ["features", "connector_tokens"])
def test_off_is_the_base_bit_for_bit(tiny_vlm: Any, x_v: Tensor, seam: str) -> None:
    before = logits(tiny_vlm, x_v)
    with tiny_vlm.seam(seam, lambda x: x + 0.5):
        during = logits(tiny_vlm, x_v)
    assert torch.equal(logits(tiny_vlm, x_v), before)
    assert not torch.equal(during, before)


def test_a_seam_is_undone_after_an_error(tiny_vlm: Any, x_v: Tensor) -> None:
    before = logits(tiny_vlm, x_v)
    with pytest.raises(KeyError), tiny_vlm.seam("features", lambda x: x * 2):
        raise KeyError
    with pytest.raises(ZeroDivisionError), tiny_vlm.seam("features", lambda x: x / (1 // 0)):
        logits(tiny_vlm, x_v)
    assert torch.equal(logits(tiny_vlm, x_v), before)


def test_seams_insert_where_they_say(tiny_vlm: Any, x_v: Tensor) -> None:
    with tiny_vlm.seam("features", lambda x: x + 1):
        before = tiny_vlm.tokens(x_v)
    with tiny_vlm.seam("connector_tokens", lambda x: x + 1):
        behind = tiny_vlm.tokens(x_v)
    assert torch.equal(before, tiny_vlm.tokens(x_v + 1))
    assert torch.equal(behind, tiny_vlm.tokens(x_v) + 1)


def test_nested_seams(tiny_vlm: Any, x_v: Tensor) -> None:
    base = tiny_vlm.tokens(x_v)
    with tiny_vlm.seam("features", lambda x: x + 1):
        outer = tiny_vlm.tokens(x_v)
        with tiny_vlm.seam("connector_tokens", lambda x: -x), tiny_vlm.seam("features", lambda x: x * 2):
            both = tiny_vlm.tokens(x_v)
        assert torch.equal(tiny_vlm.tokens(x_v), outer)
    assert torch.equal(tiny_vlm.tokens(x_v), base)
    assert torch.equal(both, -tiny_vlm.tokens((x_v + 1) * 2))  # the outer seam inserts first


def test_an_unknown_seam_is_refused(tiny_vlm: Any) -> None:
    with pytest.raises(InputError, match="'encoder_tokens'"), tiny_vlm.seam("encoder_tokens", lambda x: x):
        pass


def test_a_phrase_with_a_control_token_is_refused(tiny_vlm: Any) -> None:
    tiny_vlm.check_phrase("the cat on the mat")
    with pytest.raises(InputError, match="control token"):
        tiny_vlm.check_phrase("a cat <|end|>")


def test_a_phrase_may_hold_a_token_that_is_white_space(tiny_vlm: Any) -> None:
    """GPT-NeoX's tokenizer has added tokens of spaces, which no prompt holds: it says a phrase with single spaces."""
    vlm = copy.copy(tiny_vlm)
    vlm.tokenizer = copy.deepcopy(tiny_vlm.tokenizer)
    vlm.tokenizer.add_tokens([AddedToken("  ", normalized=False), AddedToken(" ", normalized=False), "<|two words|>"])
    vlm.check_phrase("a  cat   on the mat")
    for phrase in ("a <|two words|>", "a <|two  words|>", "a <|Two WORDS|>"):  # a prompt may have it in lower case
        with pytest.raises(InputError, match=r"contains '<\|two words\|>', a control token"):
            vlm.check_phrase(phrase)


def test_an_image_is_encoded_once_for_many_phrases(tiny_vlm: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    already = tiny_vlm.encoded
    prefix = tiny_vlm.prefix(tiny_vlm.features(tiny_vlm.prepare([image])[0]))
    grammar = CODECS[tiny_vlm.codec].grammar(*tiny_vlm.size, lead=" ")
    for prompts in ([" a cat", " a dog", " a red bus"], [" a tree"]):
        tiny_vlm.answer(prefix, [0] * len(prompts), prompts, grammar)
    assert tiny_vlm.encoded == already + 1


def test_a_caption_is_text(tiny_vlm: Any) -> None:
    images = [np.full((20, 40, 3), value, np.uint8) for value in (0, 200)]
    captions = tiny_vlm.caption(images, max_tokens=5)
    assert len(captions) == 2 and all(isinstance(text, str) and text == text.strip() for text in captions)
    assert captions[0] == tiny_vlm.caption(images[:1], max_tokens=5)[0]


def test_image_tokens_spell_the_grid(tiny_vlm: Any, x_v: Tensor) -> None:
    found = tiny_vlm.image_tokens()
    assert tiny_vlm.tokens(x_v).shape[1] == len(found.positions) == found.grid[0] * found.grid[1]


def test_the_fingerprint_tells_models_apart(tiny_vlm: Any) -> None:
    same, other_grid, other_name = type(tiny_vlm)(), type(tiny_vlm)(grid=(2, 2)), type(tiny_vlm)(name="other")
    assert tiny_vlm.fingerprint == same.fingerprint == other_name.fingerprint != other_grid.fingerprint


def test_a_gradient_reaches_what_is_inserted_and_nothing_else(tiny_vlm: Any, x_v: Tensor) -> None:
    insert = torch.zeros(x_v.shape[1:], requires_grad=True)
    with tiny_vlm.seam("features", lambda x: x + insert):
        prefix = tiny_vlm.prefix(x_v)
    tiny_vlm.loss(prefix, [[Branch((6,), (7, 8))]])[0].backward()
    assert insert.grad is not None and (insert.grad.abs().sum(1) > 0).all()
    assert all(not p.requires_grad and p.grad is None for p in tiny_vlm.parameters())


def test_under_rivals_a_label_competes_with_its_set_only(tiny_vlm: Any) -> None:
    x_v = torch.randn(1, tiny_vlm.grid[0] * tiny_vlm.grid[1], tiny_vlm.feature_dim)
    prompt = tuple(tiny_vlm.encode(" a cat"))
    three, seven, other = (tiny_vlm.encode(text)[0] for text in ("3", "7", "x"))
    prefix, batch = tiny_vlm.prefix(x_v), [[Branch(prompt, (three, other))]]
    _, both = tiny_vlm.loss(prefix, batch)
    _, ranked = tiny_vlm.loss(prefix, batch, [[three, seven]])
    alone, _ = tiny_vlm.loss(prefix, batch, [[three]])
    assert len(both) == 2 and len(ranked) == 1  # the label outside every set does not count
    assert 0 < float(ranked[0]) < float(both[0])
    assert float(alone) == 0.0


def test_cells_left_out_leave_the_others_in_their_places(tiny_vlm: Any, x_v: Tensor) -> None:
    batch, every = [[Branch((7, 8), (9, 10))]], torch.arange(x_v.shape[1])[None]
    whole, _ = tiny_vlm.loss(tiny_vlm.prefix(x_v), batch)
    same, _ = tiny_vlm.loss(tiny_vlm.prefix(x_v, cells=every), batch)
    assert torch.equal(whole, same)
    part = tiny_vlm.prefix(x_v[:, ::2], cells=every[:, ::2])
    assert part.length == tiny_vlm.prefix(x_v).length - x_v.shape[1] // 2
    assert torch.equal(part.position, tiny_vlm.prefix(x_v).position)
    elsewhere = tiny_vlm.prefix(x_v[:, ::2], cells=every[:, 1::2])
    losses = [tiny_vlm.loss(prefix, batch)[0] for prefix in (part, elsewhere)]
    assert len({float(loss) for loss in [whole, *losses]}) == 3  # both what is shown and where it stands count
