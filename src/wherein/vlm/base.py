"""FrozenVLM: the one contract every vision-language model meets (batch first, weights never touched).

    images -> prepare -> pixels, frames -> features (x_v) -> [seam "features"] -> connector -> [seam "connector_tokens"]
           -> language model -> answer (constrained text with token probabilities) | caption | loss

Precomputed `x_v` may be passed wherever pixels may: an image is encoded once, however often it is asked about.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein.boxtext import Grammar
from wherein.errors import InputError
from wherein.geometry import Frame
from wherein.vlm.decoding import Prefix, Written, write
from wherein.vlm.packing import Packed

Insert = Callable[[Tensor], Tensor]


class FrozenVLM(ABC):
    """A frozen VLM: encoder -> connector -> language model, and the seams between them.

    A subclass (one per family) sets the attributes below and says how images become pixels, and pixels x_v.

    name: what the user calls it · size: (width, height) of the model's input, pixels · grid: (rows, columns) of x_v ·
    feature_dim: D_v · connector, language_model, tokenizer: the frozen parts · codec: name of the box text format ·
    best_method: the method that measured best · shared_prompt: text behind the image tokens, run once for all;
    caption_prompt and locate_prompt continue it, and `{phrase}` stands for "a cat".
    """

    name: str
    size: tuple[int, int]
    grid: tuple[int, int]
    feature_dim: int
    codec: str
    best_method: str
    shared_prompt: str
    caption_prompt: str
    locate_prompt: str
    connector: nn.Module
    language_model: Any
    tokenizer: Any

    @abstractmethod
    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[Frame]]:
        """uint8[H, W, 3] images -> pixels float[B, 3, h, w] as the encoder expects them, and one Frame each."""

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Pixels float[B, 3, h, w] -> patch features x_v float[B, N, D_v], exactly as the connector receives them."""

    @property
    def device(self) -> torch.device:
        """Where the language model lives."""
        device: torch.device = next(self.language_model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The language model's dtype; x_v and the tokens are kept in it."""
        dtype: torch.dtype = next(self.language_model.parameters()).dtype
        return dtype

    @property
    def fingerprint(self) -> str:
        """Hash of the parts' parameter names and shapes: an adapter for another model is refused by it."""
        lines = [f"{self.name} {self.size} {self.grid} {self.feature_dim}"]
        for part in (self.connector, self.language_model):
            lines += [f"{name} {tuple(p.shape)}" for name, p in part.named_parameters()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every frozen parameter (none of them requires a gradient)."""
        yield from self.connector.parameters()
        yield from self.language_model.parameters()

    @contextmanager
    def seam(self, name: str, insert: Insert) -> Iterator[None]:
        """Apply `insert` at a seam inside the block; on exit, also on error, the model is what it was.

        `features`: x_v float[B, N, D_v] on its way into the connector; `connector_tokens`: float[B, N, D_t] behind it.
        Raises InputError for a seam this model does not offer.
        """
        self.width(name)
        if name == "features":
            handle = self.connector.register_forward_pre_hook(lambda _, args: (insert(args[0]), *args[1:]))
        else:
            handle = self.connector.register_forward_hook(lambda _, __, out: insert(out))
        try:
            yield
        finally:
            handle.remove()

    def width(self, seam: str) -> int:
        """The width of what passes a seam: D_v or D_t. Raises InputError for a seam this model does not offer."""
        widths = {"features": self.feature_dim, "connector_tokens": self.language_model.config.hidden_size}
        if seam not in widths:
            raise InputError(f"{self.name} offers the seams {' and '.join(widths)}, not {seam!r}.")
        return int(widths[seam])

    def check_phrase(self, phrase: str) -> None:
        """Raise InputError if the phrase holds a special token of the tokenizer, which would not be read as text."""
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        for token in sorted(added | set(self.tokenizer.all_special_tokens)):
            if token in phrase:
                raise InputError(f"The phrase {phrase!r} contains {token!r}, a control token of {self.name}.")

    def encode(self, text: str) -> list[int]:
        """Text -> token ids, no special tokens added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def tokens(self, x_v: Tensor) -> Tensor:
        """x_v float[B, N, D_v] -> what the language model receives for the image, float[B, M, D_t]."""
        return self.connector(x_v.to(self.device, self.dtype))  # type: ignore[no-any-return]

    def image_tokens(self) -> tuple[slice, tuple[int, int]]:
        """Where the image lies in the language model's sequence, and the grid (rows, columns) it spells out."""
        return slice(0, self.grid[0] * self.grid[1]), self.grid

    def loss(self, x_v: Tensor, packed: Packed, rivals: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Tensor]:
        """Next-token loss of packed answers: (weighted mean in nats, float32[L] of each labelled token).

        Runs connector and language model with gradients to whatever is inserted at the seams; PIN, equation 4.
        `rivals` are disjoint sets of token ids, such as the ten digits: a label competes with the rest of its set only,
        as it will under the grammar that decodes it, and labels in no set do not count.
        """
        image = self.tokens(x_v)
        text = self.language_model.get_input_embeddings()(packed.ids.to(self.device)).to(image.dtype)
        mask = torch.zeros(packed.mask.shape, dtype=image.dtype, device=self.device)
        mask.masked_fill_(~packed.mask.to(self.device), torch.finfo(image.dtype).min)
        with eager_attention(self.language_model):
            hidden = self.language_model.get_decoder()(
                inputs_embeds=torch.cat([image, text], dim=1),
                attention_mask=mask,
                position_ids=packed.positions.to(self.device),
                use_cache=False,
            ).last_hidden_state[:, image.shape[1] :]
        labels, weights = packed.labels.to(self.device), packed.weights.to(self.device)
        output = self.language_model.get_output_embeddings().weight
        losses, counted = [], []
        for ids in [None] if rivals is None else [torch.tensor(list(group), device=self.device) for group in rivals]:
            wanted = labels >= 0 if ids is None else torch.isin(labels, ids)
            logits = (hidden[wanted] @ (output if ids is None else output[ids]).T).float()
            target = labels[wanted] if ids is None else (labels[wanted][:, None] == ids).long().argmax(1)
            losses.append(nn.functional.cross_entropy(logits, target, reduction="none"))
            counted.append(weights[wanted])
        each, weight = torch.cat(losses), torch.cat(counted)
        return (each * weight).sum() / weight.sum(), each.detach()

    @torch.inference_mode()
    def prefix(self, x_v: Tensor) -> Prefix:
        """Run images x_v float[B, N, D_v] and the shared text once; every question about them continues from here."""
        return Prefix.run(self.language_model, self.tokens(x_v), self.encode(self.shared_prompt))

    @torch.inference_mode()
    def answer(
        self, prefix: Prefix, rows: Sequence[int], prompts: Sequence[str], grammar: Grammar, refusal: str | None = None
    ) -> list[Written]:
        """Continue image `rows[i]` of the prefix with `prompts[i]` and write an answer that `grammar` accepts.

        The probability of the model beginning the text `refusal` instead is told in each answer's `refusal`.
        """
        ids = [self.encode(prompt) for prompt in prompts]
        return write(self.language_model, self.tokenizer, prefix, rows, ids, grammar, refusal)

    @torch.inference_mode()
    def continue_text(self, x_v: Tensor, prompt: str, max_tokens: int) -> list[str]:
        """Free greedy continuation of one prompt about each image x_v float[B, N, D_v]; nothing is constrained."""
        image = self.tokens(x_v)
        ids = torch.tensor([self.encode(self.shared_prompt + prompt)], device=self.device).expand(len(image), -1)
        text = self.language_model.get_input_embeddings()(ids).to(image.dtype)
        embeds = torch.cat([image, text], dim=1)
        out = self.language_model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=self.device),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(out, skip_special_tokens=True)]

    def caption(self, images: Sequence[NDArray[np.uint8]], max_tokens: int = 40) -> list[str]:
        """A caption of each uint8[H, W, 3] image, greedy."""
        return self.continue_text(self.features(self.prepare(images)[0]), self.caption_prompt, max_tokens)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Plain attention inside the block: with a packed mask, short sequences and a backward pass it beats sdpa."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
