"""One token over a long cache: what the kernel gives, packed or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

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
