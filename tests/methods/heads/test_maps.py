"""Attention of a phrase's last token on every family (SPEC 2.8: LH-1, LH-2, LH-15; bugs L-2, L-9)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.errors import AdapterError
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.maps import Maps, attention_maps, separate, together
from wherein.vlm.prefix import Continuation

PROMPT, PHRASES = " {phrase}.", ["a red cat", "dog"]


def photo(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8)


def maps_of(vlm: Any, image: NDArray[np.uint8], texts: Any, *rest: Any) -> Maps:
    pixels, (frame,) = vlm.prepare([image])
    return attention_maps(vlm, vlm.features(pixels), Canvas(vlm, frame), texts, *rest)


def test_a_map_is_the_row_of_the_last_token(vlm: Any) -> None:
    """LH-1: one phrase, one pass over all of its text, all keys; its image tokens, not renormalised, laid out."""
    image = photo(0)
    pixels, (frame,) = vlm.prepare([image])
    x_v, canvas, rows = vlm.features(pixels), Canvas(vlm, frame), dict[int, Tensor]()
    mixing = vlm.mixing() if vlm.latents else None
    with torch.inference_mode():
        if mixing is None:
            prefix = vlm.prefix(x_v, [frame], bare=True)
        else:
            with mixing.watch():
                prefix = vlm.prefix(x_v, [frame], bare=True)
        with vlm.seam("attention", lambda row, layer: rows.update({layer: row[0]})):
            Continuation(prefix, [0]).hidden([vlm.encode(" a red cat.")])
    wanted = torch.stack([rows[layer][:, canvas.positions] for layer in sorted(rows)]).numpy()
    for row in rows.values():
        torch.testing.assert_close(row.sum(-1), torch.ones(len(row)), atol=1e-3, rtol=0)
    shares = None if mixing is None else mixing.shares(len(canvas.positions))[0]
    found = maps_of(vlm, image, separate(PROMPT, ["a red cat"]))[0]
    np.testing.assert_allclose(found, canvas.lay(wanted, shares), atol=1e-5)
    assert (found.sum((-2, -1)) <= wanted.sum(-1) + 1e-5).all()


def test_each_phrase_and_each_image_has_its_own_map(vlm: Any) -> None:
    """LH-2, L-2: a batch is its single phrases, and another image another map."""
    both = maps_of(vlm, photo(0), separate(PROMPT, PHRASES))
    alone = [maps_of(vlm, photo(0), separate(PROMPT, [phrase]))[0] for phrase in PHRASES]
    np.testing.assert_allclose(both, alone, atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 1e-4
    assert np.abs(maps_of(vlm, photo(1), separate(PROMPT, PHRASES)) - both).max() > 1e-6


def test_named_heads_stop_early_and_are_the_same(vlm: Any) -> None:
    every = maps_of(vlm, photo(0), separate(PROMPT, PHRASES))
    chosen = [(0, 1), (0, 0)]
    ran: list[int] = []
    hook = vlm.seams.attentions[-1].register_forward_hook(lambda *_: ran.append(1))
    try:
        early = maps_of(vlm, photo(0), separate(PROMPT, PHRASES), chosen)
        stopped = not ran
        last = len(vlm.seams.attentions) - 1
        late = maps_of(vlm, photo(0), separate(PROMPT, PHRASES), [(last, 0)])
    finally:
        hook.remove()
    # Where the gated cross-attention stands between the blocks, those behind the stop still run, on what comes in.
    assert stopped or vlm.family == "idefics"
    assert ran
    np.testing.assert_allclose(early, every[:, [0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(late[:, 0], every[:, last, 0], atol=1e-6)


def test_a_later_forward_runs_whole(vlm: Any) -> None:
    pixels, frames = vlm.prepare([photo(0)])
    x_v = vlm.features(pixels)
    with torch.inference_mode():
        before = vlm.prefix(x_v, frames).last
        maps_of(vlm, photo(0), separate(PROMPT, PHRASES), [(0, 0)])
        assert torch.equal(vlm.prefix(x_v, frames).last, before)


def test_phrases_of_one_sentence_are_read_where_they_end(vlm: Any) -> None:
    """The first phrase has not seen the second; the second has seen the first."""
    joint = maps_of(vlm, photo(0), together(PROMPT, PHRASES))
    first = maps_of(vlm, photo(0), [[" a red cat"]])
    second = maps_of(vlm, photo(0), [[" a red cat, dog"]])
    assert joint.shape[0] == 2
    np.testing.assert_allclose(joint[0], first[0], atol=1e-5)
    if vlm.encode(" a red cat") + vlm.encode(", dog") == vlm.encode(" a red cat, dog"):
        np.testing.assert_allclose(joint[1], second[0], atol=1e-5)
    assert np.abs(joint[1] - maps_of(vlm, photo(0), [[" dog"]])[0]).max() > 1e-6


def test_a_word_of_the_answer_can_be_read_instead(vlm: Any) -> None:
    """Decode steps: the model's own next tokens follow the phrase; the last of them is read."""
    texts = separate(PROMPT, PHRASES)
    written = maps_of(vlm, photo(0), texts, None, 2)
    assert written.shape == maps_of(vlm, photo(0), texts).shape
    pixels, (frame,) = vlm.prepare([photo(0)])
    with torch.inference_mode():
        prefix = vlm.prefix(vlm.features(pixels), [frame], bare=True)
        own = Continuation(prefix, [0])
        logits = own.feed([vlm.encode(texts[1][0])])
        words = [int(logits.argmax())]
        words.append(int(own.feed([words]).argmax()))
        rows: dict[int, Tensor] = {}
        with vlm.seam("attention", lambda row, layer: rows.update({layer: row[0]})):
            own.hidden([words[1:]])
    if not vlm.latents:
        canvas = Canvas(vlm, frame)
        wanted = torch.stack([rows[layer][:, canvas.positions] for layer in sorted(rows)]).numpy()
        np.testing.assert_allclose(written[1], canvas.lay(wanted), atol=1e-5)


def test_a_head_that_is_not_there_is_named(vlm: Any) -> None:
    layers = len(vlm.seams.attentions)
    with pytest.raises(AdapterError, match=f"no layer {layers}"):
        maps_of(vlm, photo(0), separate(PROMPT, PHRASES), [(layers, 0)])
    with pytest.raises(AdapterError, match="no head 99"):
        maps_of(vlm, photo(0), separate(PROMPT, PHRASES), [(0, 99)])


def test_nothing_of_the_model_moves(vlm: Any) -> None:
    """LH-15."""
    before = [parameter.clone() for parameter in vlm.parameters()]
    maps_of(vlm, photo(0), separate(PROMPT, PHRASES))
    for parameter, was in zip(vlm.parameters(), before, strict=True):
        assert torch.equal(parameter, was) and parameter.grad is None and not parameter.requires_grad


def test_texts_of_phrases() -> None:
    assert separate(" {phrase}.", ["The pizza mouth.", "x"]) == [[" The pizza mouth."], [" x."]]
    assert separate(" In it is {noun}", ["The Apple"]) == [[" In it is an apple"]]
    assert together(" In it is {noun}", ["cat", "dog"]) == [[" In it is a cat", ", a dog"]]
    assert together(" {phrase}.", ["the cat"]) == [[" the cat"]]
