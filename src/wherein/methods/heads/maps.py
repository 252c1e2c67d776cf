"""Attention maps of phrases: one run of the image, every phrase read at its own last token.

One row a text is all that is read, and no matrix of queries by keys is ever made; texts of any length share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.errors import AdapterError
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.selection import Head
from wherein.phrases import noun_phrase, unpunctuated
from wherein.vlm.base import FrozenVLM
from wherein.vlm.prefix import Continuation, Prefix

Maps = NDArray[np.float32]
Pieces = Sequence[str]  # of one text; each ends with a token that is read


def separate(prompt: str, phrases: Sequence[str]) -> list[Pieces]:
    """Each phrase in a text of its own, read at the end of the text: the last token of the prompt, as published."""
    return [[prompt.format(phrase=unpunctuated(phrase), noun=noun_phrase(phrase))] for phrase in phrases]


def together(prompt: str, phrases: Sequence[str]) -> list[Pieces]:
    """All phrases in one sentence, each read at its own last word (CVPR'25, appendix D.4)."""
    place = "{noun}" if "{noun}" in prompt else "{phrase}"
    before = prompt.partition(place)[0]
    spoken = [noun_phrase(phrase) if place == "{noun}" else unpunctuated(phrase) for phrase in phrases]
    return [[f"{before if i == 0 else ', '}{phrase}" for i, phrase in enumerate(spoken)]]


@torch.inference_mode()
def attention_maps(
    vlm: FrozenVLM,
    x_v: Tensor,
    canvas: Canvas,
    texts: Sequence[Pieces],
    heads: Sequence[Head] | None = None,
    steps: int = 0,
) -> Maps:
    """What the last token of each piece looks at in one image: float32[P, K, R, C] for K heads, text after text.

    x_v float[1, N, D_v] of the image whose `canvas` it is · heads: None for all, float32[P, L, H, R, C] · steps: tokens
    of the answer that are written behind the (only) piece of each text, the last of which is read instead.
    With heads named and nothing written, no layer behind theirs is run.
    Raises AdapterError for a head that the model does not have.
    """
    count = len(vlm.seams.attentions)
    layers = list(range(count)) if heads is None else sorted({layer for layer, _ in heads})
    if layers[-1] >= count:
        raise AdapterError(f"{vlm.name} has {count} layers with attention to the image, and no layer {layers[-1]}.")
    mixing = vlm.mixing() if vlm.latents else None
    with ExitStack() as stack:
        if not steps and layers[-1] + 1 < count:
            stack.enter_context(vlm.until(layers[-1]))
        alone = len(texts) == len(texts[0]) == 1 and not steps  # then image and text share one forward pass
        found: dict[int, Tensor] = {}
        with ExitStack() as watched:
            if mixing is not None:
                watched.enter_context(mixing.watch())
            if alone:
                watched.enter_context(vlm.seam("attention", partial(_keep, found), layers))
            prefix = vlm.prefix(x_v, [canvas.frame], bare=True, text=vlm.encode(texts[0][0]) if alone else ())
        if alone:
            rows = _of_image(found, layers, canvas.positions, 0 if prefix.extra else prefix.length)
        else:
            rows = _read(vlm, prefix, texts, layers, canvas.positions, steps)
    shares = None if mixing is None else mixing.shares(len(canvas.positions))[0]
    return canvas.lay(rows if heads is None else _chosen(vlm, rows, layers, heads), shares)


def _read(
    vlm: FrozenVLM,
    prefix: Prefix,
    texts: Sequence[Pieces],
    layers: Sequence[int],
    positions: NDArray[np.int64],
    steps: int,
) -> Maps:
    """float32[P, layers, H, M]: the rows at the end of every piece."""
    if len(parts := prefix.parts(len(texts))) > 1:
        return np.concatenate([_read(vlm, prefix, texts[part], layers, positions, steps) for part in parts])
    continuation = Continuation(prefix, [0] * len(texts))
    rows: dict[tuple[int, int], NDArray[np.float32]] = {}
    for number in range(max(map(len, texts))):
        chunks = [vlm.encode(text[number]) if number < len(text) else [] for text in texts]
        for _ in range(steps):
            chunks = [[int(token)] for token in continuation.feed(chunks).argmax(-1)]
        found: dict[int, Tensor] = {}
        with vlm.seam("attention", partial(_keep, found), layers):
            continuation.hidden(chunks)
        stacked = _of_image(found, layers, positions, 0 if prefix.extra else continuation.filled.shape[1])
        rows |= {(i, number): stacked[i] for i, text in enumerate(texts) if number < len(text)}
    return np.stack([rows[key] for key in sorted(rows)])


def _keep(found: dict[int, Tensor], row: Tensor, layer: int) -> None:
    """The row of the pass that ran last; it stays where it is, so that no layer waits for it to be copied."""
    found[layer] = row


def _of_image(found: Mapping[int, Tensor], layers: Sequence[int], positions: NDArray[np.int64], length: int) -> Maps:
    """float32[B, layers, H, M], the image's, of rows float32[B, H, K] over the last K of `length` tokens (0: over keys
    of their own).

    A layer with a sliding window keeps no more; what has left the window is looked at no longer.
    """
    rows = [found[layer].cpu().numpy() for layer in layers]
    places = [positions - max(0, length - row.shape[-1]) for row in rows]
    read = [np.where(at >= 0, row[..., np.maximum(at, 0)], np.float32(0)) for row, at in zip(rows, places, strict=True)]
    return np.stack(read, 1)


def _chosen(vlm: FrozenVLM, rows: Maps, layers: Sequence[int], heads: Sequence[Head]) -> Maps:
    """float32[P, K, M] of the named heads, in their order."""
    most = max(head for _, head in heads)
    if most >= rows.shape[2]:
        raise AdapterError(f"{vlm.name} has {rows.shape[2]} heads a layer, and no head {most}.")
    return rows[:, [layers.index(layer) for layer, _ in heads], [head for _, head in heads]]
