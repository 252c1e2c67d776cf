"""The language model of a pixel-aligned model, encoder-decoder or decoder alone: visual tokens, text, then a caption.

An encoder-decoder reads visual tokens and text in its encoder and writes the caption in its decoder. A decoder alone
has all of it in one row. Either way the state behind a token of the caption is one and the same: it says which token
comes next, and where the token just read is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # fills up rows of labels
FILLER = -1  # fills up rows of text


class Reading:
    """R rows of visual tokens and text in front of a language model, to be continued token by token or all at once.

    visual float[R, t, D] · text int64[R, S], rows filled up with `FILLER`; None for none.
    """

    def __init__(self, model: Any, visual: Tensor, text: Tensor | None = None) -> None:
        self.model = model
        words = model.get_input_embeddings()
        self.shown, self.seen = visual.to(words.weight), torch.ones(visual.shape[:2], device=visual.device).long()
        if text is not None:
            self.shown = torch.cat([self.shown, words(text.clamp(min=0))], dim=1)
            self.seen = torch.cat([self.seen, (text != FILLER).long()], dim=1)
        self.cache: Any = None
        self.encoded: Any = None

    def all(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64[R, T] at once, with gradients: states float[R, T, D] and logits float[R, T, V] behind each."""
        if self.model.config.is_encoder_decoder:
            out = self.model(
                inputs_embeds=self.shown,
                attention_mask=self.seen,
                decoder_input_ids=tokens,
                use_cache=False,
                output_hidden_states=True,
            )
            return out.decoder_hidden_states[-1], out.logits
        embedded = torch.cat([self.shown, self.model.get_input_embeddings()(tokens)], dim=1)
        mask = torch.cat([self.seen, torch.ones_like(tokens)], dim=1)
        out = self.model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=_last(tokens.shape[1], mask),
        )
        return out.hidden_states[-1][:, -tokens.shape[1] :], out.logits

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """One further token int64[R] a row: state float[R, D] and logits float[R, V] behind it."""
        return self._decoded(tokens) if self.model.config.is_encoder_decoder else self._continued(tokens)

    def _decoded(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if self.encoded is None:
            self.encoded = self.model.get_encoder()(inputs_embeds=self.shown, attention_mask=self.seen)
        out = self.model(
            encoder_outputs=self.encoded,
            attention_mask=self.seen,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
            output_hidden_states=True,
        )
        self.cache = out.past_key_values
        return out.decoder_hidden_states[-1][:, -1], out.logits[:, -1]

    def _continued(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.model.get_input_embeddings()(tokens[:, None])
        if self.cache is None:
            embedded = torch.cat([self.shown, embedded], dim=1)
        self.seen = torch.cat([self.seen, torch.ones_like(tokens[:, None])], dim=1)
        out = self.model(
            inputs_embeds=embedded,
            attention_mask=self.seen,
            position_ids=_positions(self.seen)[:, -embedded.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            output_hidden_states=True,
            logits_to_keep=_last(1, embedded),
        )
        self.cache = out.past_key_values
        return out.hidden_states[-1][:, -1], out.logits[:, -1]

    def reorder(self, rows: Tensor) -> None:
        """Go on from these rows int64[R] only, in this order, as often as they are named; of one image and text each
        a row may take another's place."""
        self.cache.reorder_cache(rows)


def _positions(mask: Tensor) -> Tensor:
    """Positions int64[R, S] that count what is there only: text is filled up between visual tokens and caption."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _last(count: int, row: Tensor) -> Tensor:
    """The last `count` places int64[count] along the second axis of `row`.

    Picked by their numbers, states lie one behind another in memory. A slice of them does not, and torch then copies
    the output embeddings for every row of a batch.
    """
    return torch.arange(row.shape[1] - count, row.shape[1], device=row.device)
