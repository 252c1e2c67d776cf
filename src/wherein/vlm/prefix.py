"""An image and the text before a question, run once; every question about the image continues from there.

This is how a language model is run throughout: the family's own forward pass makes the prefix, whatever it does with
the image, and what follows is ordinary text behind a cache. Training, constrained answers, captions: all continue one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from wherein.vlm.attention import ends

ROOM = 4 * 2**30  # bytes of cache that rows which run at once may have, beside that of their prefix


@dataclass(frozen=True)
class Prefix:
    """B images, each with the same text, as the language model holds them.

    decoder: called with input_ids, attention_mask, position_ids, past_key_values, use_cache and `extra`, gives
    `.last_hidden_state` float[*, T, D_t] · head: hidden states -> logits over the vocabulary · cache: keys and values
    of `length` tokens a row · position int64[B]: of the token that comes next; None where the decoder counts by itself,
    and rows of unequal length cannot be mixed · last float[B, D_t]: hidden state of the last token · extra: further
    inputs of the decoder, batch first.
    """

    decoder: Callable[..., Any]
    head: Callable[[Tensor], Tensor]
    cache: Any
    length: int
    position: Tensor | None
    last: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def behind(
        cls,
        language_model: Any,
        image: Tensor,
        text: Sequence[int],
        whole: int,
        cells: Tensor | None = None,
        before: Prefix | None = None,
    ) -> Prefix:
        """Image tokens float[B, M, D_t] in front of a plain language model, then `text` behind the `whole` image.

        `cells` int64[B, m]: the places of the first m tokens among the `whole`, where they are not all of it. Tokens
        that are no cells, since an insert added them, follow the `whole`. `before`: one row that all images follow.
        """
        count, device = len(image), image.device
        cells = torch.arange(whole).expand(count, -1) if cells is None else cells
        further = image.shape[1] - cells.shape[1]
        follow = torch.arange(whole, whole + further + len(text)).expand(count, -1)
        position = torch.cat([cells.to(device), follow.to(device)], dim=1)
        ids = torch.tensor([list(text)], dtype=torch.long, device=device).expand(count, -1)
        words = language_model.get_input_embeddings()(ids).to(image.dtype)
        past, start = None, 0
        if before is not None:
            assert before.position is not None
            past, start = before.select([0] * count), int(before.position[0])
        out = language_model.get_decoder()(
            inputs_embeds=torch.cat([image, words], dim=1),
            position_ids=start + position,
            past_key_values=None if past is None else past.cache,
            use_cache=True,
        )
        return cls(
            language_model.get_decoder(),
            language_model.get_output_embeddings(),
            out.past_key_values,
            (0 if past is None else past.length) + image.shape[1] + len(text),
            torch.full((count,), start + whole + further + len(text), device=device),
            out.last_hidden_state[:, -1],
        )

    def parts(self, count: int) -> list[slice]:
        """`count` rows that continue from here, cut into parts that run one after the other: each row has a copy of its
        image's cache, and rows that cannot be mixed run alone."""
        most = 1 if self.position is None else max(1, ROOM * len(self.last) // max(_bytes(self.cache), 1))
        return [slice(first, first + most) for first in range(0, count, most)]

    def select(self, rows: Sequence[int]) -> Prefix:
        """The prefix of some of the images, in this order and as often as they are named; this one stays as it is."""
        index = torch.tensor(list(rows), device=self.last.device)
        return replace(
            self,
            cache=_select(self.cache, index),
            position=None if self.position is None else self.position[index],
            last=self.last[index],
            extra={name: value[index.to(value.device)] for name, value in self.extra.items()},
        )


class Continuation:
    """B rows that continue from a prefix at their own pace: right-padded chunks, masked padding, own positions."""

    def __init__(self, prefix: Prefix, rows: Sequence[int], last_use: bool = False) -> None:
        """`last_use`: nobody continues from the prefix after this, and `rows` are all of it: its cache need not be
        copied, and goes on being filled.
        """
        self.prefix = prefix if last_use else prefix.select(rows)
        self.device = prefix.last.device
        self.filled = torch.ones(len(rows), prefix.length, dtype=torch.long, device=self.device)
        self.position = self.prefix.position
        self.last = self.prefix.last

    def hidden(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append chunks[b] to row b (an empty chunk is a pause): hidden states float[B, longest, D_t]."""
        lengths = torch.tensor([len(chunk) for chunk in chunks], device=self.device)
        width = int(lengths.max())
        if not width:
            return self.prefix.last[:, None][:, :0]
        ids = torch.zeros(len(chunks), width, dtype=torch.long)
        for b, chunk in enumerate(chunks):
            ids[b, : len(chunk)] = torch.tensor(chunk, dtype=torch.long)
        steps = torch.arange(width, device=self.device)
        self.filled = torch.cat([self.filled, (steps < lengths[:, None]).long()], dim=1)
        placed = {} if self.position is None else {"position_ids": self.position[:, None] + steps}
        with ends(lengths.clamp(min=1) - 1):
            hidden: Tensor = self.prefix.decoder(
                input_ids=ids.to(self.device),
                attention_mask=self.filled,
                past_key_values=self.prefix.cache,
                use_cache=True,
                **placed,
                **self.prefix.extra,
            ).last_hidden_state
        if self.position is not None:
            self.position = self.position + lengths
        hidden = hidden.to(self.device)
        states = torch.cat([self.last[:, None], hidden], dim=1)
        self.last = states[torch.arange(len(chunks), device=self.device), lengths]
        return hidden

    def feed(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append chunks[b] to row b; float32[B, V] logits behind each row's last token."""
        self.hidden(chunks)
        return self.prefix.head(self.last).float()

    def at(self, rows: Sequence[int]) -> Continuation:
        """Some of the rows where they are now, as often as they are named, as a continuation of their own."""
        index = torch.tensor(list(rows), device=self.device)
        chosen = Continuation(replace(self.prefix, position=self.position, last=self.last), rows)
        chosen.filled = self.filled[index]
        return chosen

    def reached(self) -> Prefix:
        """All rows where they are now, which must be as far from the prefix: a longer prefix to continue from."""
        return replace(self.prefix, length=self.filled.shape[1], position=self.position, last=self.last)


def _bytes(cache: Any) -> int:
    """Of all rows of a cache of transformers."""
    if hasattr(cache, "self_attention_cache"):
        return _bytes(cache.self_attention_cache) + _bytes(cache.cross_attention_cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.keys is not None)


def _select(cache: Any, index: Tensor) -> Any:
    """Rows of a cache of transformers as a cache of their own; gradients stay attached, and the given one unchanged."""
    chosen = copy.copy(cache)
    if hasattr(cache, "self_attention_cache"):  # an encoder-decoder's two
        chosen.self_attention_cache = _select(cache.self_attention_cache, index)
        chosen.cross_attention_cache = _select(cache.cross_attention_cache, index)
        chosen.is_updated = dict(cache.is_updated)
        return chosen
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        if layer.keys is not None:  # blocks that were passed over have none
            layer.batch_select_indices(index.to(layer.keys.device))
    return chosen
