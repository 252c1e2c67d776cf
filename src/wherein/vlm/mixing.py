"""Which patches a latent query stands for, where a connector mixes all of them into a few: its attention, rolled out.

Attention rollout (Abnar & Zuidema, 2020) through the connector: a latent begins with nothing of the image; each
attention hands it, half and half with what it had, what it looks at: patches, or other latents and what these hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Sees = Literal["patches", "latents", "both"]


@dataclass(frozen=True)
class Mixer:
    """One attention of a connector, by the modules that make its queries and keys.

    query, key: give float[B, *, H * d], or float[B, H, *, d] where a norm of each head comes last · heads: H · sees:
    whose keys they are: "patches", "latents", or "both", patches first · halves: 2 where keys and values come together.
    """

    query: nn.Module
    key: nn.Module
    heads: int
    sees: Sees
    halves: int = 1


@dataclass
class Mixing:
    """What the mixers of one forward pass looked at: weights float32[B, queries, keys], heads averaged, in order."""

    mixers: Sequence[Mixer]
    weights: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watch(self) -> Iterator[Mixing]:
        """Read the mixers as they run inside the block. The matrices are small: latents by patches."""
        with ExitStack() as stack:
            for mixer in self.mixers:
                pair = _Pair(mixer, self.weights)
                stack.callback(mixer.query.register_forward_hook(pair.query).remove)
                stack.callback(mixer.key.register_forward_hook(pair.key).remove)
            yield self

    def shares(self, latents: int) -> Tensor:
        """float32[B, M, N]: what share of each of the `latents` comes from each patch; a row sums to one."""
        held: Tensor | None = None
        for mixer, weights in zip(self.mixers, self.weights, strict=True):
            batch, queries, keys = weights.shape
            patches = {"patches": keys, "both": keys - queries, "latents": 0}[mixer.sees]
            if held is None:
                if not patches:
                    continue  # latents look at each other before any has seen the image
                held = weights.new_zeros(batch, queries, patches)
            seen = weights[..., :patches]
            if mixer.sees != "patches":
                seen = seen + weights[..., patches:] @ held[:, :keys] if patches else weights @ _rows(held, keys)
            held = _rows(held, max(queries, held.shape[1]))
            held = torch.cat([(held[:, :queries] + seen) / 2, held[:, queries:]], dim=1)
        assert held is not None
        return held[:, :latents] / held[:, :latents].sum(-1, keepdim=True).clamp(min=1e-12)


class _Pair:
    """The queries and keys of one attention, which come in either order; the second makes the weights."""

    def __init__(self, mixer: Mixer, weights: list[Tensor]) -> None:
        self.mixer, self.weights = mixer, weights
        self.made: dict[str, Tensor] = {}

    def query(self, _: nn.Module, __: object, out: Tensor) -> None:
        """Queries were made."""
        self._keep("query", out)

    def key(self, _: nn.Module, __: object, out: Tensor) -> None:
        """Keys were made."""
        self._keep("key", out.chunk(self.mixer.halves, -1)[0])

    def _keep(self, what: str, out: Tensor) -> None:
        batch, count = out.shape[0], out.shape[-2]
        by_head = out if out.ndim == 4 else out.reshape(batch, count, self.mixer.heads, -1).transpose(1, 2)
        self.made[what] = by_head.float()
        if len(self.made) == 2:
            query, key = self.made.pop("query"), self.made.pop("key")
            self.weights.append((query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1))


def _rows(held: Tensor, count: int) -> Tensor:
    """`held` float[B, M, N] with rows of zeros up to `count`: queries that hold nothing of the image yet."""
    missing = max(0, count - held.shape[1])
    return torch.cat([held, held.new_zeros(held.shape[0], missing, held.shape[2])], dim=1)
