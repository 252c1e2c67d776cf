"""Tokens over a cache: what the kernel gives, packed or not, copied or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from wherein.vlm import packed


def attended(length: int, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, ...]]]:
    """What the function gives for one token, what each query head gives alone, and the queries that the kernel saw."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, count, 8) for heads, count in ((6, 1), (2, length), (2, length)))
    module: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    kernel, seen = nn.functional.scaled_dot_product_attention, list[tuple[int, ...]]()

    def watched(q: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append(tuple(q.shape))
        return kernel(q, *rest, **named)

    alone = kernel(query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), scale=0.3)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    out, _ = packed.attend(module, query, key, value, None, scaling=0.3)
    return out, alone.transpose(1, 2), seen


@pytest.mark.parametrize(("length", "rows"), [(packed.LONG, (2, 2, 3, 8)), (packed.LONG - 1, (2, 6, 1, 8))])
def test_packed_over_long_caches_only(length: int, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    out, alone, seen = attended(length, monkeypatch)
    torch.testing.assert_close(out, alone)
    assert seen == [rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_tokens_need_no_copies_of_the_keys(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8).to(dtype) for heads, n in ((6, 4), (2, 30), (2, 30)))
    mask = torch.zeros(2, 1, 4, 30, dtype=dtype).masked_fill(torch.rand(2, 1, 4, 30) < 0.3, torch.finfo(dtype).min)
    module: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    copied, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    kernel, seen = nn.functional.scaled_dot_product_attention, list[int]()

    def watched(q: torch.Tensor, k: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append(k.shape[1])
        return kernel(q, k, *rest, **named)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    out, _ = packed.attend(module, query, key, value, mask, scaling=0.3)
    assert torch.equal(out, copied) and out.is_contiguous() and seen == [2]
