"""Every family through one suite: the model's own forward pass, its features given back, its seams, its geometry.

Random weights in the real modelling code, float32 on the CPU; a family is a row of tests/tiny_families.py.
"""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from packaging import version
from PIL import Image
from torch import Tensor

from wherein.errors import InputError
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.maps import attention_maps
from wherein.methods.heads.method import Heads
from wherein.vlm.branches import Branch
from wherein.vlm.families import FAMILIES
from wherein.vlm.hf import HFVLM, QUESTION
from wherein.vlm.prefix import Continuation, Prefix

OLD = version.parse(transformers.__version__) < version.parse("5.23")
LOOSE = {"atol": 2e-4, "rtol": 2e-4}  # logits of about 10, in float32, summed in another order
SEAMS = ("features", "connector_tokens", "encoder_tokens", "prompt_tokens", "hidden")


def photo(seed: int, width: int = 90, height: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@torch.no_grad()
def prefix_of(vlm: HFVLM, image: NDArray[np.uint8]) -> Prefix:
    pixels, frames = vlm.prepare([image])
    return vlm.prefix(vlm.features(pixels), frames)


@torch.no_grad()
def plain(vlm: HFVLM, image: NDArray[np.uint8]) -> Tensor:
    """What transformers itself makes of the image and the prompt: logits float[1, S, V]."""
    inputs = vlm.prepare([image])[0]
    start = vlm._starting(1)
    logits: Tensor = vlm.model(**inputs, **start).logits
    return logits


def test_features_given_back_are_the_plain_forward_bit_for_bit(vlm: HFVLM) -> None:
    image = photo(0)
    pixels, frames = vlm.prepare([image])
    before, x_v = plain(vlm, image), vlm.features(pixels)
    blank = vlm._stack([vlm._processed(frames[0].width, frames[0].height)])
    with torch.no_grad(), vlm._replay.give(x_v):
        given = vlm.model(**blank, **vlm._starting(1)).logits
    assert torch.equal(given, before)
    assert torch.equal(plain(vlm, image), before)  # and the blocks are back
    assert not torch.equal(plain(vlm, photo(1)), before)


def test_a_continuation_is_the_plain_forward_in_one_go(vlm: HFVLM) -> None:
    """The prompt's last token, then the text behind it, against one pass over all of it."""
    if vlm.family == "paligemma":
        pytest.skip("image and prompt see each other there: a longer prompt is another prompt; see below")
    image, tail = photo(0), vlm.encode(" a red cat located at [")
    text = [*vlm.encode(vlm.shared_prompt), *tail]
    inputs = dict(vlm.prepare([image])[0])
    if vlm._starting(1):
        inputs["decoder_input_ids"] = torch.cat([vlm._starting(1)["decoder_input_ids"], torch.tensor([text])], dim=1)
    else:
        added = torch.tensor([text])
        for name, value in (("input_ids", added), ("attention_mask", torch.ones_like(added))):
            inputs[name] = torch.cat([inputs[name], value], dim=1)
        for name in ("mm_token_type_ids", "token_type_ids", "image_embeds_position_mask"):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.zeros_like(added)], dim=1)
        if "image_attention_mask" in inputs:
            mask = inputs["image_attention_mask"]
            inputs["image_attention_mask"] = torch.cat([mask, mask[:, -1:].expand(-1, len(text), -1)], dim=1)
    with torch.no_grad():
        whole = vlm.model(**inputs).logits[0, -len(tail) - 1 :]
        prefix = prefix_of(vlm, image)
        states = torch.cat([prefix.last[:, None], Continuation(prefix, [0]).hidden([tail])], dim=1)
        torch.testing.assert_close(prefix.head(states[0]), whole, **LOOSE)


def test_a_text_beside_an_image_is_a_text_behind_it(vlm: HFVLM) -> None:
    """Two images whose text runs with them, against the same text run behind them, and what is asked after it."""
    images, tail = [photo(0), photo(1)], vlm.encode(" a red cat")
    pixels, frames = vlm.prepare(images)
    with torch.no_grad():
        x_v = vlm.features(pixels)
        beside = vlm.prefix(x_v, frames, bare=True, text=tail)
        behind = Continuation(vlm.prefix(x_v, frames, bare=True), [0, 1])
        behind.hidden([tail, tail])
        later = behind.reached()
        assert beside.length == later.length
        assert (beside.position is None) == (later.position is None)
        if beside.position is not None and later.position is not None:
            assert torch.equal(beside.position, later.position)
        rows = [1] if beside.position is None else [1, 0]  # rows of unequal length cannot be mixed there
        chunks = [vlm.encode(text) for text in (" located at", " dog")][: len(rows)]
        for one, two in zip(*([*_states(prefix, rows, chunks)] for prefix in (beside, later)), strict=True):
            torch.testing.assert_close(one, two, **LOOSE)


def _states(prefix: Prefix, rows: list[int], chunks: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Logits at a prefix's last token, and at the last of what continues it."""
    return prefix.head(prefix.last), Continuation(prefix, rows).feed(chunks)


def test_a_text_continues_as_generate_would(vlm: HFVLM) -> None:
    """PaliGemma's way too: image and prompt in both directions, what is written causally, token by token."""
    if not hasattr(vlm.model, "generate"):
        pytest.skip("our own OpenFlamingo has no generate; the test above is its own")
    if vlm.name == "paligemma2" and OLD:
        pytest.skip("before 5.23, transformers left the soft cap of Gemma 2's logits out here")
    image = photo(2)
    inputs, steps = vlm.prepare([image])[0], 6
    with torch.no_grad():
        made = vlm.model.generate(
            **inputs, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        written = made.sequences[0, -steps:].tolist()
        shared, vlm.shared_prompt = vlm.shared_prompt, ""
        try:
            prefix = prefix_of(vlm, image)
        finally:
            vlm.shared_prompt = shared
        states = torch.cat([prefix.last[:, None], Continuation(prefix, [0]).hidden([written[:-1]])], dim=1)
        ours = prefix.head(states[0])
    torch.testing.assert_close(ours, torch.cat(made.logits), **LOOSE)


def test_the_encoder_runs_once_for_many_questions(vlm: HFVLM) -> None:
    block = vlm.model.get_submodule(vlm.blocks_path)[0]
    runs, real = [], type(block).forward
    image = photo(0)

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return real(self, *args, **kwargs)

    type(block).forward = counted
    try:
        prefix = prefix_of(vlm, image)
        vlm.continue_text(prefix, [0, 0, 0], [" a cat", " a red dog", " the image"], 3)
        blocks = len(vlm.model.get_submodule(vlm.blocks_path))
        assert 1 <= len(runs) <= blocks
    finally:
        type(block).forward = real


def test_a_batch_is_its_images(vlm: HFVLM) -> None:
    images = [photo(0), photo(1), photo(0)]
    pixels, frames = vlm.prepare(images)
    with torch.no_grad():
        together = vlm.prefix(vlm.features(pixels), frames)
        apart = [prefix_of(vlm, image).last[0] for image in images]
    torch.testing.assert_close(together.last, torch.stack(apart), **LOOSE)
    assert not torch.allclose(together.last[0], together.last[1], **LOOSE)


def test_questions_together_are_questions_apart(vlm: HFVLM) -> None:
    prefix, asked = prefix_of(vlm, photo(0)), [" a cat", " a red dog located at", " nowhere"]
    together = vlm.continue_text(prefix, [0, 0, 0], asked, 4)
    assert together == [vlm.continue_text(prefix, [0], [text], 4)[0] for text in asked]


@pytest.mark.parametrize("seam", SEAMS)
def test_a_seam_inserts_and_leaves_nothing_behind(vlm: HFVLM, seam: str) -> None:
    image = photo(0)
    base = plain(vlm, image)
    more = (lambda x, _: x + 0.5) if seam == "hidden" else (lambda x: x + 0.5)
    same = (lambda x, _: x) if seam == "hidden" else (lambda x: x)
    with vlm.seam(seam, same):
        assert torch.equal(plain(vlm, image), base)
    with vlm.seam(seam, lambda *_: None):  # only read
        assert torch.equal(plain(vlm, image), base)
    with vlm.seam(seam, more):
        inside = plain(vlm, image)
        with vlm.seam(seam, more), torch.inference_mode():
            assert not torch.equal(plain(vlm, image), inside)
        assert torch.equal(plain(vlm, image), inside)
    assert not torch.equal(inside, base)
    with pytest.raises(ZeroDivisionError), vlm.seam(seam, lambda *_: 1 // 0):
        plain(vlm, image)
    assert torch.equal(plain(vlm, image), base)


def test_features_pass_their_seam_image_by_image(vlm: HFVLM) -> None:
    """x_v[B, N, D_v], whatever the family has there: tiles, or patches of all images in one row."""
    pixels, frames = vlm.prepare([photo(0), photo(1)])
    x_v, seen = vlm.features(pixels), []
    with torch.no_grad(), vlm.seam("features", lambda x: seen.append(x.clone())):
        vlm.prefix(x_v, frames)
    (passed,) = seen
    assert passed.shape == (*x_v.shape[:2], vlm.feature_dim)
    assert torch.equal(passed, x_v[..., -vlm.feature_dim :])


def test_an_insert_may_differ_from_row_to_row(vlm: HFVLM) -> None:
    """Row i of what is inserted is added to row i of each image's x_v."""
    pixels, frames = vlm.prepare([photo(0), photo(1)])
    x_v = vlm.features(pixels)
    pi = torch.randn(x_v.shape[1], vlm.feature_dim)
    moved = x_v.clone()
    moved[..., -vlm.feature_dim :] += pi
    with torch.no_grad():
        with vlm.seam("features", lambda x: x + pi):
            inserted = vlm.prefix(x_v, frames).last
        assert torch.equal(inserted, vlm.prefix(moved, frames).last)
        assert not torch.equal(inserted, vlm.prefix(x_v, frames).last)


def test_attention_is_that_of_eager(vlm: HFVLM) -> None:
    """The last row of every block, against the whole matrices of eager attention; at prefill and while answering."""
    if vlm.seams.decoder is None:
        pytest.skip("our own attention has no eager twin; the test below is its own")
    if vlm.family == "kosmos2" and OLD:
        pytest.skip("before 5.23, eager and sdpa disagree in transformers' own Kosmos-2")
    rows: dict[int, list[Tensor]] = {}
    with torch.no_grad(), vlm.seam("attention", lambda row, layer: rows.setdefault(layer, []).append(row)):
        prefix = prefix_of(vlm, photo(0))
        Continuation(prefix, [0]).feed([vlm.encode(" a cat")])
    matrices: dict[int, list[Tensor]] = {}
    before = vlm.seams.decoder.config._attn_implementation
    vlm.seams.decoder.set_attn_implementation("eager")
    hooks = [
        module.register_forward_hook(lambda _, __, out, i=i: matrices.setdefault(i, []).append(out[-1]))
        for i, module in enumerate(vlm.seams.attentions)
    ]
    with torch.no_grad():
        prefix = prefix_of(vlm, photo(0))
        Continuation(prefix, [0]).feed([vlm.encode(" a cat")])
    for hook in hooks:
        hook.remove()
    vlm.seams.decoder.set_attn_implementation(before)
    apart = not vlm.appends or bool(vlm._starting(1))  # of the image, the shared text; the question always is
    passes = 2 + apart
    assert set(rows) == set(range(len(vlm.seams.attentions)))
    for layer, found in rows.items():
        assert len(found) == len(matrices[layer]) == passes
        for row, matrix in zip(found, matrices[layer], strict=True):
            torch.testing.assert_close(row, matrix[:, :, -1].float(), atol=1e-5, rtol=0)
            torch.testing.assert_close(row.sum(-1), torch.ones_like(row[..., 0]), atol=1e-5, rtol=0)


def test_a_bare_prefix_has_the_image_where_the_prompt_has_it(vlm: HFVLM) -> None:
    """Nothing is asked yet, and the tokens up to the image's last are those of the whole prompt."""
    bare, whole = (vlm._processed(90, 70, bare)["input_ids"][0].tolist() for bare in (True, False))
    last = 0 if vlm.latents else int(vlm.image_tokens(vlm.frame_of(90, 70)).positions.max())
    assert bare[: last + 1] == whole[: last + 1] and len(bare) <= len(whole)
    if QUESTION in vlm._lead and not vlm.latents:
        assert len(bare) < len(whole)


def test_two_readers_of_attention_both_read(vlm: HFVLM) -> None:
    """Seams nest, and where somebody read, the model is what it was, also after an error."""
    outer: list[Tensor] = []
    inner: list[Tensor] = []
    switched = vlm.seams.decoder is not None
    before = vlm.seams.decoder.config._attn_implementation if switched else None
    first, second = (lambda row, _, found=found: found.append(row) for found in (outer, inner))
    with torch.no_grad(), vlm.seam("attention", first), vlm.seam("attention", second, [0]):
        prefix_of(vlm, photo(0))
    count = len(vlm.seams.attentions)
    assert len(inner) * count == len(outer) > 0
    for one, two in zip(inner, outer[::count], strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ZeroDivisionError), vlm.seam("attention", lambda *_: None), vlm.until(0):
        raise ZeroDivisionError
    assert not switched or vlm.seams.decoder.config._attn_implementation == before
    assert not any("forward" in block.__dict__ for block in vlm.seams.layers)


@pytest.mark.parametrize("name", ["paligemma2", "gemma3"])
def test_a_window_that_slid_on_is_read_where_it_is(build: Any, name: str) -> None:
    """A layer with a sliding window keeps the last keys only: the image's tokens there are counted from its end."""
    vlm = build(name)
    frame = vlm.frame_of(90, 70)
    positions = vlm.image_tokens(frame).positions
    text = vlm.model.config.get_text_config()
    text.sliding_window = int(positions.max()) + 2
    sliding = [i for i, kind in enumerate(text.layer_types) if kind == "sliding_attention"]
    for layer in vlm.decoder().layers:
        if getattr(layer.self_attn, "sliding_window", None) is not None:
            layer.self_attn.sliding_window = text.sliding_window
    canvas, pixels = Canvas(vlm, frame), vlm.prepare([photo(0)])[0]
    texts = [[" a red cat located at"]]
    found = attention_maps(vlm, vlm.features(pixels), canvas, texts)[0]
    rows: dict[int, Tensor] = {}
    with torch.inference_mode():
        prefix = vlm.prefix(vlm.features(pixels), [frame], bare=True)
        continuation = Continuation(prefix, [0])
        with vlm.seam("attention", lambda row, layer: rows.update({layer: row[0]})):
            continuation.hidden([vlm.encode(texts[0][0])])
    length = continuation.filled.shape[1]
    assert sliding and all(rows[layer].shape[-1] < length for layer in sliding)
    for layer, row in rows.items():
        whole = torch.zeros(row.shape[0], length)
        whole[:, length - row.shape[-1] :] = row
        np.testing.assert_allclose(found[layer], canvas.lay(whole[:, positions].numpy()), atol=1e-5)


def test_our_own_cross_attention_tells_its_row(vlm: HFVLM) -> None:
    """OpenFlamingo: against queries and keys as their projections give them."""
    if vlm.seams.decoder is not None:
        pytest.skip("that is transformers' attention; see above")
    made: list[Tensor] = []
    rows: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: made.append(out))
        for module in vlm.seams.attentions
        for part in (module.to_q, module.to_kv)
    ]
    try:
        with torch.no_grad(), vlm.seam("attention", lambda row, _: rows.append(row)):
            prefix_of(vlm, photo(0))
    finally:
        for hook in hooks:
            hook.remove()
    heads = vlm.seams.attentions[0].heads
    assert len(made) == 2 * len(rows)
    for row, query, both in zip(rows, made[::2], made[1::2], strict=True):
        q = query[0, -1].reshape(heads, -1)
        k = both[0].chunk(2, -1)[0].reshape(len(both[0]), heads, -1)
        wanted = torch.einsum("hd,khd->hk", q, k) * q.shape[-1] ** -0.5
        torch.testing.assert_close(row[0], wanted.softmax(-1), atol=1e-5, rtol=0)


def test_attention_is_read_off_an_eager_model_too(vlm: HFVLM) -> None:
    """Where the model runs eagerly by itself, the rows are those that are worked out beside sdpa."""
    if vlm.seams.decoder is None or (vlm.family == "kosmos2" and OLD):
        pytest.skip("our own attention has no eager twin, or transformers' own eager and sdpa disagree")
    rows: dict[str, list[Tensor]] = {}
    before = vlm.seams.decoder.config._attn_implementation
    for kind in {before, "eager"}:
        vlm.seams.decoder.set_attn_implementation(kind)
        found = rows[kind] = []
        try:
            with torch.no_grad(), vlm.seam("attention", lambda row, _, found=found: found.append(row)):
                prefix_of(vlm, photo(0))
        finally:
            vlm.seams.decoder.set_attn_implementation(before)
    assert rows["eager"] and all(len(found) == len(rows["eager"]) for found in rows.values())
    for one, two in zip(rows[before], rows["eager"], strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_image_tokens_see_what_they_say(vlm: HFVLM) -> None:
    """A change in one row of x_v changes the embedding of the very tokens whose cells lie over its own most."""
    image = photo(0, 90, 70)
    pixels, (frame,) = vlm.prepare([image])
    if vlm.latents:
        found = vlm.image_tokens(frame)
        assert not found.whole.any() and (found.boxes == [0, 0, 90, 70]).all() and found.grid == vlm.grid
        return
    tokens, cells, x_v = vlm.image_tokens(frame), vlm.cells(frame), vlm.features(pixels)
    assert len(set(tokens.positions.tolist())) == len(tokens.positions) == len(tokens.boxes)
    assert int(tokens.whole.sum()) == tokens.grid[0] * tokens.grid[1]
    widest = tokens.boxes[tokens.whole]
    np.testing.assert_allclose([*widest[:, :2].min(0), *widest[:, 2:].max(0)], tokens.frame.visible, atol=1e-5)
    assert np.allclose(tokens.frame.visible, frame.visible) or frame.model_width % vlm.token()

    @torch.no_grad()
    def embedded(given: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(_: Any, args: Any, kwargs: Any) -> None:
            if kwargs.get("inputs_embeds") is not None:
                found.append(kwargs["inputs_embeds"])

        hook = vlm.decoder().register_forward_pre_hook(keep, with_kwargs=True)
        try:
            vlm.prefix(given, [frame])
        finally:
            hook.remove()
        return found[0][0]

    base, checked = embedded(x_v), 0
    for row in np.random.default_rng(0).choice(len(cells.boxes), 4, replace=False):
        changed = x_v.clone()
        changed[:, row] += 1.0
        moved = (embedded(changed) - base).abs().amax(-1).numpy()
        hit = int(moved.argmax())
        if moved[hit] == 0:
            assert len(tokens.positions) < len(cells.boxes)  # unpadding drops rows of padding
            continue
        index = tokens.positions.tolist().index(hit)
        own, seen = cells.boxes[row], tokens.boxes[index]
        centre = (own[:2] + own[2:]) / 2
        assert (seen[:2] - 1e-6 <= centre).all() and (centre <= seen[2:] + 1e-6).all(), (row, own, seen)
        checked += 1
    assert checked


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-3), (torch.bfloat16, 0.5)])
def test_tiles_that_are_resampled_lie_where_their_mean_does(build: Any, dtype: torch.dtype, within: float) -> None:
    """LLaVA-OneVision: of 4 x 4 tiles of 4 x 4 patches, 12 x 12 tokens remain, linear in the 16 x 16; a tile's patches
    of 14 pixels leave the last 4 of its 60 out."""
    vlm = build("llava_onevision")
    vlm = type(vlm)(copy.deepcopy(vlm.model).to(dtype), vlm.processor, "onevision")
    tokens = vlm.image_tokens(vlm.frame_of(240, 240))
    fine = tokens.boxes[~tokens.whole]
    assert len(fine) == 144
    centres = (60 * np.arange(4)[:, None] + 14 * np.arange(4) + 7).ravel()
    wanted = np.interp((np.arange(12) + 0.5) * 16 / 12 - 0.5, np.arange(16), centres)
    x, y = ((fine[:, :2] + fine[:, 2:]) / 2).T.reshape(2, 12, 12)
    np.testing.assert_allclose(x, np.tile(wanted, (12, 1)), atol=within)
    np.testing.assert_allclose(y, np.tile(wanted, (12, 1)).T, atol=within)
    (found,) = Heads(vlm, config=HeadsConfig(((0, 0),))).ground(photo(0, 240, 240), ["the cat"])
    assert ((found.boxes >= 0) & (found.boxes <= 240)).all()


def test_patches_that_do_not_fill_a_view_lie_where_they_see(build: Any) -> None:
    """A convolution leaves the last pixels out, and does not stretch: SPEC, P-7."""
    vlm = build("llava_onevision")
    frame = vlm.frame_of(600, 300)  # of 60 x 60 model pixels
    wanted = frame.crop(0, 0, 56, 56).cells(4, 4)
    np.testing.assert_allclose(vlm.cells(frame).boxes[:16], wanted)
    np.testing.assert_allclose(vlm.image_tokens(frame).boxes[:16], wanted, atol=1e-3)
    np.testing.assert_allclose(wanted[-1], [420, 210, 560, 280])


def test_where_tokens_are_is_known_without_the_encoder(vlm: HFVLM) -> None:
    def ran(*_: Any) -> None:
        raise AssertionError("a block of the encoder ran")

    inside = [module for block in vlm.encoder_blocks.children() for module in block.modules() if module is not block]
    assert inside
    hooks = [module.register_forward_hook(ran) for module in inside]
    try:
        assert len(vlm.image_tokens(vlm.frame_of(91, 67)).positions)
    finally:
        for hook in hooks:
            hook.remove()


def test_gradients_reach_an_insert_and_nothing_else(vlm: HFVLM) -> None:
    pixels, frames = vlm.prepare([photo(0), photo(1)])
    x_v = vlm.features(pixels)
    pi = torch.zeros(x_v.shape[1], vlm.feature_dim, requires_grad=True)
    batch = [
        [Branch(tuple(vlm.encode(" a cat located at")), tuple(vlm.encode(" [14,28")))],
        [
            Branch(tuple(vlm.encode(" a dog")), tuple(vlm.encode(" [1"))),
            Branch(tuple(vlm.encode(" it")), tuple(vlm.encode(" is"))),
        ],
    ]
    with vlm.seam("features", lambda x: x + pi):
        prefix = vlm.prefix(x_v, frames)
    loss, each = vlm.loss(prefix, batch)
    loss.backward()
    assert torch.isfinite(each).all() and len(each) == sum(len(b.target) for branches in batch for b in branches)
    assert pi.grad is not None and torch.isfinite(pi.grad).all() and (pi.grad != 0).any()
    assert all(not p.requires_grad and p.grad is None for p in vlm.parameters())


def test_gradient_checkpointing_changes_nothing(vlm: HFVLM) -> None:
    if not hasattr(vlm.model, "gradient_checkpointing_enable"):
        pytest.skip("our own OpenFlamingo has no gradient checkpointing")
    pixels, frames = vlm.prepare([photo(0)])
    x_v = vlm.features(pixels)
    batch = [[Branch(tuple(vlm.encode(" a cat")), tuple(vlm.encode(" located at")))]]

    def gradient() -> Tensor:
        pi = torch.zeros(x_v.shape[1], vlm.feature_dim, requires_grad=True)
        with vlm.seam("features", lambda x: x + pi):
            prefix = vlm.prefix(x_v, frames)
        vlm.loss(prefix, batch)[0].backward()
        assert pi.grad is not None
        return pi.grad

    base = gradient()
    vlm.model.gradient_checkpointing_enable()
    try:
        assert torch.equal(gradient(), base)
    finally:
        vlm.model.gradient_checkpointing_disable()


def test_two_threads_on_two_models(vlm: HFVLM, build: Any) -> None:
    """What one thread inserts into its model, and reads from it, is not seen by the other's."""
    other = build(vlm.name, seed=1)
    alone = [plain(one, photo(0)) for one in (vlm, other)]
    start = threading.Barrier(2)

    def work(one: HFVLM, base: Tensor, shift: float) -> None:
        start.wait(60)
        for _ in range(3):
            with one.seam("features", lambda x: x + shift), one.seam("hidden", lambda *_: None):
                inside = plain(one, photo(0))
            assert not torch.equal(inside, base) and torch.equal(plain(one, photo(0)), base)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, one, base, 0.5) for one, base in zip((vlm, other), alone, strict=True)]:
            done.result(60)


def test_a_compiled_model_obeys_its_seams(build: Any) -> None:
    vlm = build("llava")
    base, last = plain(vlm, photo(0)), prefix_of(vlm, photo(0)).last
    vlm.model.compile(backend="eager")
    torch.testing.assert_close(plain(vlm, photo(0)), base, **LOOSE)
    torch.testing.assert_close(prefix_of(vlm, photo(0)).last, last, **LOOSE)
    assert len(vlm.image_tokens().positions) == 16
    with vlm.seam("features", lambda x: x + 0.5):
        assert not torch.allclose(plain(vlm, photo(0)), base, **LOOSE)
    torch.testing.assert_close(plain(vlm, photo(0)), base, **LOOSE)


@pytest.mark.parametrize("name", ["blip2", "instructblip", "flamingo_mpt1b"])
def test_a_larger_picture_has_more_rows(build: Any, name: str) -> None:
    """Positions are interpolated: twice the side, four times the patches, and the same places."""
    small, large = build(name), build(name)
    large = type(large)(large.model, large.processor, name, 112)
    assert large.size == (112, 112) and large.grid == (8, 8)
    x_v = large.features(large.prepare([photo(0)])[0])
    assert x_v.shape[1] == 64 + large.leading == len(large.cells().boxes)
    with torch.no_grad():
        prefix = large.prefix(x_v)
    assert torch.isfinite(prefix.last).all()
    assert len(large.image_tokens().positions) == len(small.image_tokens().positions)  # latent queries, as many as ever
    assert small.size == (56, 56) and prefix.length == prefix_of(small, photo(0)).length
    with pytest.raises(InputError, match="multiple of 14"):
        type(large)(build(name).model, build(name).processor, name, 113)


def test_a_family_of_one_resolution_says_so(build: Any) -> None:
    llava = build("llava")
    with pytest.raises(InputError, match="leave size out"):
        type(llava)(llava.model, llava.processor, "llava", 112)


def test_a_family_says_what_users_need_to_know() -> None:
    for family in FAMILIES:
        assert family.family and family.checkpoint.count("/") == 1 and family.licence
    types = [name for family in FAMILIES for name in family.model_types]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 60), (60, 3), (60, 1)])
def test_a_thin_image_is_no_image_of_a_few_channels(vlm: HFVLM, width: int, height: int) -> None:
    """An array of 1 or 3 rows does not say which axis its channels are: the processor must see what the frame says."""
    pixels, (frame,) = vlm.prepare([photo(0, width, height)])
    assert vlm.features(pixels).shape[1] == len(vlm.cells(frame).boxes)
    assert len(vlm.image_tokens(frame).positions)


@pytest.mark.parametrize("name", ["gemma3", "idefics3", "llava"])
def test_a_template_that_begins_the_text_does_so_once(build: Any, name: str) -> None:
    """The tokenizer begins every text with the same token: transformers' own chat has one, and so has ours."""
    vlm = build(name)
    processor = copy.copy(vlm.processor)
    image_token = vlm._lead[: vlm._lead.index(QUESTION)].strip()
    processor.chat_template = (
        "{{ bos_token }}{% for message in messages %}{% for content in message.content %}"
        "{{ content.text if content.type == 'text' else '" + image_token + "' }}{% endfor %}{% endfor %}:"
    )
    image = Image.fromarray(photo(0))
    asked = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}]
    wanted = processor.apply_chat_template(asked, tokenize=True, return_dict=True, add_generation_prompt=True)
    pixels, _ = type(vlm)(vlm.model, processor, name).prepare([photo(0)])
    ids = pixels["input_ids"][0].tolist()
    assert ids == list(wanted["input_ids"][0]) and ids.count(vlm.tokenizer.bos_token_id) == 1


def test_a_users_words_stand_right_behind_paligemmas_image(build: Any) -> None:
    """Its processor ends a text with a line break, which is not to come between the image and the question."""
    vlm = build("paligemma2")
    whole = vlm.processor(text="<image>detect cat", images=[Image.fromarray(photo(0))], return_tensors="pt")
    bare = vlm._processed(90, 70, True)["input_ids"][0].tolist()
    question = vlm.tokenizer.encode("detect cat\n", add_special_tokens=False)
    assert bare + question == whole["input_ids"][0].tolist()


def test_what_is_kept_of_an_image_whose_pixels_do_not_matter_is_small(vlm: HFVLM) -> None:
    kept = vlm._blank(90, 70)
    floats = [x for x in kept.values() if x.is_floating_point()]
    assert floats and all(x.untyped_storage().nbytes() <= 8 for x in floats)
