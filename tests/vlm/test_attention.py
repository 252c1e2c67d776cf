"""Grouped attention against the eager function of transformers: values, gradients, masks, and its going away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from wherein.vlm.attention import NAME, grouped_attention
from wherein.vlm.packing import Branch, pack


@contextmanager
def eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def run(vlm: Any, kind: Any, mask: Tensor, positions: Tensor | None, real: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states at the `real` places bool[B, S], and the gradient of a mix of them with respect to the input."""
    width = vlm.language_model.config.hidden_size
    embeds = torch.randn(*real.shape, width, generator=torch.Generator().manual_seed(2)).requires_grad_()
    with kind(vlm.language_model):
        hidden = vlm.language_model.get_decoder()(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[real]
    mix = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    (hidden * mix).sum().backward()
    assert embeds.grad is not None
    return hidden.detach(), embeds.grad


def test_equals_eager_with_padding_and_grouped_heads(tiny_vlm: Any) -> None:
    config = tiny_vlm.language_model.config
    assert config.num_attention_heads > config.num_key_value_heads > 1
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    ours = run(tiny_vlm, grouped_attention, mask, None, mask.bool())
    theirs = run(tiny_vlm, eager, mask, None, mask.bool())
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_equals_eager_on_packed_branches(tiny_vlm: Any) -> None:
    packed = pack(3, (5,), [[Branch((7, 8), (9,)), Branch((10,), (11, 12))], [Branch((7,), (9,))]])
    mask = torch.zeros(packed.mask.shape).masked_fill(~packed.mask, torch.finfo(torch.float32).min)
    real = torch.cat([torch.ones(2, 3, dtype=torch.bool), packed.branch >= 0], dim=1)
    ours = run(tiny_vlm, grouped_attention, mask, packed.positions, real)
    theirs = run(tiny_vlm, eager, mask, packed.positions, real)
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_the_own_implementation_comes_back(tiny_vlm: Any) -> None:
    model = tiny_vlm.language_model
    before = model.config._attn_implementation
    with grouped_attention(model):
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == before != NAME


def test_the_own_implementation_comes_back_after_an_error(tiny_vlm: Any) -> None:
    model = tiny_vlm.language_model
    before = model.config._attn_implementation
    with pytest.raises(KeyError), grouped_attention(model):
        raise KeyError
    assert model.config._attn_implementation == before
