"""FrozenVLM: the one contract every vision-language model meets (batch first, weights never touched).

    images -> prepare -> pixels, frames -> features (x_v) -> [seam "features"] -> connector -> [seam "connector_tokens"]
           -> language model: prefix -> answer (constrained text with token probabilities) | free text | loss

A family says how a `Prefix` is made of an image; all that follows is the same for every model. Precomputed `x_v` stand
in for pixels: an image is encoded once, however often it is asked about.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein.boxtext import Grammar
from wherein.errors import InputError, PhraseError
from wherein.geometry import Frame
from wherein.vlm.branches import Branch, lay_out
from wherein.vlm.decoding import Said, Written, search, write, write_freely
from wherein.vlm.mixing import Mixing
from wherein.vlm.prefix import Continuation, Prefix
from wherein.vlm.seams import Seams

Pixels = Any  # whatever the family's encoder takes, batch first
MATRICES, VALUES = 64, 8  # what the fingerprint reads: this many matrices, spread evenly, and the first values of each


@dataclass(frozen=True)
class Cells:
    """What the rows of x_v see of one image.

    boxes float64[N, 4]: xyxy in pixels of the image; a row that is no patch (CLS) sees all of it · order int64[N]: each
    row's place in raster order, views one after another.
    """

    boxes: NDArray[np.float64]
    order: NDArray[np.int64]

    @classmethod
    def raster(cls, frame: Frame, grid: tuple[int, int]) -> Cells:
        """One view, row by row."""
        return cls(frame.cells(*grid), np.arange(grid[0] * grid[1]))


@dataclass(frozen=True)
class ImageTokens:
    """An image in the language model's sequence.

    positions int64[M]: of the tokens that stand for cells, among the keys of the attention seam · boxes float64[M, 4]:
    what each sees, xyxy in pixels of the image · whole bool[M]: those of the view of the whole image, in raster order
    (none of a model with latents) · grid: (rows, columns) of that view, of latents those of x_v · frame: of as much of
    that view as the grid covers.
    """

    positions: NDArray[np.int64]
    boxes: NDArray[np.float64]
    whole: NDArray[np.bool_]
    grid: tuple[int, int]
    frame: Frame

    @classmethod
    def raster(cls, frame: Frame, grid: tuple[int, int]) -> ImageTokens:
        """One token a cell, row by row, at the beginning of the sequence."""
        count = grid[0] * grid[1]
        return cls(np.arange(count), frame.cells(*grid), np.ones(count, bool), grid, frame)

    @classmethod
    def latent(cls, positions: NDArray[np.int64], frame: Frame, grid: tuple[int, int]) -> ImageTokens:
        """Tokens at `positions` that each see all of the image."""
        count, whole = len(positions), [[0.0, 0.0, frame.width, frame.height]]
        return cls(positions, np.repeat(np.array(whole), count, axis=0), np.zeros(count, bool), grid, frame)


class FrozenVLM(ABC):
    """A frozen VLM: encoder -> connector -> language model, and the seams between them.

    A subclass sets the attributes below and says how images become pixels, pixels x_v, and x_v a prefix.

    name: what the user calls it · size: (width, height) of the model's input, or where that follows the image, of an
    image it is trained with, pixels · grid: (rows, columns) of x_v for such an image · feature_dim: D_v · codec: name
    of the box text format · best_method: the method that measured best · shared_prompt: text behind the image tokens,
    run once for all; caption_prompt and locate_prompt continue it, and `{phrase}` stands for "a cat" · native: the
    box format the model was trained to write itself, if any, and native_prompt: what a user is to say for it, behind
    the image alone, where `{phrase}` stands for "cat" · keeps_cells: the
    connector makes one token of each cell, in order, so an image may be shown through some of its cells only ·
    interleaves: it takes several images with text between them, and example_end ends the text of each ·
    latents: the language model sees latent queries, each of them made of all cells · takes_rows: further rows of x_v,
    behind an image's own, reach the language model · encoder_blocks: the vision encoder's.
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
    keeps_cells: bool
    interleaves: bool = False
    example_end: str = "\n"
    native: str = ""
    native_prompt: str = ""
    latents: bool = False
    takes_rows: bool = False
    encoder_blocks: nn.Module
    language_model: Any
    tokenizer: Any
    seams: Seams

    @abstractmethod
    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Pixels, list[Frame]]:
        """uint8[H, W, 3] images -> pixels as the encoder expects them, and one Frame each."""

    @abstractmethod
    def frame_of(self, width: int, height: int) -> Frame:
        """The Frame of an image of this size, pixels."""

    @abstractmethod
    def features(self, pixels: Pixels) -> Tensor:
        """Pixels -> patch features x_v float[B, N, D_v], exactly as the connector receives them."""

    @abstractmethod
    def prefix(
        self,
        x_v: Tensor,
        frames: Sequence[Frame] | None = None,
        cells: Tensor | None = None,
        bare: bool = False,
        before: Prefix | None = None,
        text: Sequence[int] = (),
    ) -> Prefix:
        """Run images x_v float[B, N, D_v] and the shared text once; every question about them continues from here.

        `frames` are those of the images; None for images of the model's own size, which is what it is trained with.
        `cells` int64[B, n]: x_v float[B, n, D_v] are these of the image's cells (needs `keeps_cells`).
        `bare`: nothing but the image, and what a template puts before a user's words; the caller's text comes next.
        `before`: worked `examples`, the same for each image, that come first (needs `interleaves`).
        `text`: token ids that follow all that, in the same forward pass where the family's attention allows it.
        Under torch.no_grad or inference_mode nothing is kept for a backward pass.
        """

    def check_interleaves(self) -> None:
        """Raise InputError for a model that takes one image only."""
        if not self.interleaves:
            raise InputError(f"{self.name} takes one image at a time here, so it cannot be shown worked examples.")

    @torch.inference_mode()
    def examples(self, shown: Sequence[tuple[Tensor, str]]) -> Prefix:
        """Images x_v float[1, N, D_v], each with the text that continues it, one after another.

        Raises InputError for a model that takes one image only.
        """
        self.check_interleaves()
        before: Prefix | None = None
        for x_v, text in shown:
            continuation = Continuation(self.prefix(x_v, before=before), [0], last_use=True)
            continuation.hidden([self.encode(text)])
            before = continuation.reached()
        if before is None:
            raise InputError("No worked example was given: at least one is needed.")
        return before

    @abstractmethod
    def cells(self, frame: Frame | None = None) -> Cells:
        """What each row of x_v sees of an image with this Frame; None: one of the model's own size."""

    @abstractmethod
    def image_tokens(self, frame: Frame | None = None) -> ImageTokens:
        """Where an image's tokens lie in the language model's sequence, and what each one sees.

        Latent queries see all of the image, each of them: `mixing` says how much of what.
        """

    def mixing(self) -> Mixing:
        """For a model whose language model sees `latents`: watch it while a prefix is run, to know what they hold.

        Raises InputError for a model that keeps its cells apart.
        """
        raise InputError(f"{self.name} mixes no cells: each image token stands for its own.")

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """To be held while a forward pass runs, as something of the model may be switched: one thread at a time."""
        return self.seams.lock

    @property
    def closing(self) -> str:
        """What a template puts behind a user's words, "" without one."""
        return ""

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
    def quantised(self) -> bool:
        """Whether weights are held in few bits instead of floating point."""
        return any(not parameter.is_floating_point() for parameter in self.parameters())

    @property
    def fingerprint(self) -> str:
        """Hash of the geometry, of every parameter's name and shape, and of some values: what an adapter depends on.

        Neither the model's name counts nor the place it was loaded from, nor the device. Values are rounded to
        bfloat16, so that the same weights in float32 and in bfloat16 agree; another fine-tune does not.
        """
        named = sorted(self.named_parameters(), key=lambda pair: pair[0])
        lines = [f"{tuple(self.size)} {tuple(self.grid)} {self.feature_dim}"]
        lines += [f"{name} {tuple(parameter.shape)}" for name, parameter in named]
        digest = hashlib.sha256("\n".join(lines).encode())
        matrices = [parameter for _, parameter in named if parameter.ndim == 2]
        count = min(MATRICES, len(matrices))
        for i in range(count):
            values = matrices[i * len(matrices) // count].detach().reshape(-1)[:VALUES].cpu()
            digest.update(values.to(torch.bfloat16).float().numpy().tobytes())
        return digest.hexdigest()[:16]

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every frozen parameter behind the encoder, by name (none of them requires a gradient)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The same without names."""
        yield from (parameter for _, parameter in self.named_parameters())

    def seam(
        self, name: str, insert: Callable[..., Tensor | None], layers: Sequence[int] | None = None
    ) -> AbstractContextManager[None]:
        """Insert into, or read from, a running forward pass inside the block; see `Seams.open`.

        Raises InputError for a seam this model does not offer.
        """
        if name not in self.seams.names:
            raise InputError(f"{self.name} offers the seams {', '.join(self.seams.names)}, not {name!r}.")
        return self.seams.open(name, insert, layers)

    @property
    def token_dim(self) -> int:
        """D_t, the width of what leaves the connector: that of the language model's words."""
        return int(self.language_model.get_input_embeddings().weight.shape[1])

    def until(self, layer: int) -> AbstractContextManager[None]:
        """Inside the block, what lies behind the attention of `layer` is not worked out; see `Seams.until`."""
        return self.seams.until(layer)

    def width(self, seam: str) -> int:
        """The width of what passes `features` (D_v) or `connector_tokens` (D_t).

        Raises InputError for another seam.
        """
        widths = {"features": self.feature_dim, "connector_tokens": self.token_dim}
        if seam not in widths:
            raise InputError(f"{self.name} takes an insert at the seams {' and '.join(widths)}, not at {seam!r}.")
        return widths[seam]

    def check_phrase(self, phrase: str) -> None:
        """Raise PhraseError if the phrase, as prompts have it, holds a special token of the tokenizer, which would not
        be read as text."""
        spoken = " ".join(phrase.split())
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        for token in sorted(added | set(self.tokenizer.all_special_tokens)):
            if token.strip() and (token in spoken or token in spoken.lower()):
                raise PhraseError(f"The phrase {phrase!r} contains {token!r}, a control token of {self.name}.")

    def encode(self, text: str) -> list[int]:
        """Text -> token ids, no special tokens added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def loss(
        self, prefix: Prefix, batch: Sequence[Sequence[Branch]], rivals: Sequence[Sequence[int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Next-token loss of the answers in `batch[i]`, asked of image i: (weighted mean in nats, float32[L] of each).

        Gradients reach whatever was inserted at the seams; PIN, equation 4.
        `rivals` are disjoint sets of token ids, such as the ten digits: a label competes with the rest of its set only,
        as it will under the grammar that decodes it, and labels in no set do not count.
        """
        rows = [i for i, branches in enumerate(batch) for _ in branches]
        chunks, labels, weights = lay_out([branch for branches in batch for branch in branches])
        continuation = Continuation(prefix, rows)
        start = continuation.last
        states = torch.cat([start[:, None], continuation.hidden(chunks)], dim=1)
        labels, weights = labels.to(states.device), weights.to(states.device)
        wanted = labels >= 0
        logits, target, weight = prefix.head(states[wanted]).float(), labels[wanted], weights[wanted]
        losses, counted = [], []
        for ids in [None] if rivals is None else [torch.tensor(list(group), device=states.device) for group in rivals]:
            mine = target >= 0 if ids is None else torch.isin(target, ids)
            own = logits[mine] if ids is None else logits[mine][:, ids]
            aim = target[mine] if ids is None else (target[mine][:, None] == ids).long().argmax(1)
            losses.append(nn.functional.cross_entropy(own, aim, reduction="none"))
            counted.append(weight[mine])
        each, share = torch.cat(losses), torch.cat(counted)
        return (each * share).sum() / share.sum(), each.detach()

    @torch.inference_mode()
    def answer(
        self,
        prefix: Prefix,
        rows: Sequence[int],
        prompts: Sequence[str],
        grammar: Grammar,
        refusal: str | None = None,
        beams: int = 1,
    ) -> list[Written]:
        """Continue image `rows[i]` of the prefix with `prompts[i]` and write an answer that `grammar` accepts.

        The probability of the model beginning the text `refusal` instead is told in each answer's `refusal`. With more
        than one of the `beams`, it is the likeliest of the answers that a beam search finds.
        """
        ids = [self.encode(prompt) for prompt in prompts]
        rival = None if refusal is None else self.encode(refusal)[0]
        if beams == 1:
            return write(self.tokenizer, prefix, rows, ids, grammar, rival)
        each = zip(rows, ids, strict=True)
        return [search(self.tokenizer, prefix, row, prompt, grammar, rival, beams) for row, prompt in each]

    def continue_text(
        self, prefix: Prefix, rows: Sequence[int], prompts: Sequence[str], most: int, stop: str = ""
    ) -> list[str]:
        """Continue image `rows[i]` of the prefix with `prompts[i]` and up to `most` tokens, greedily and freely.

        A text ends where the model ends it, or before a token of `stop`.
        """
        return [said.text for said in self.say(prefix, rows, prompts, most, stop)]

    @torch.inference_mode()
    def say(self, prefix: Prefix, rows: Sequence[int], prompts: Sequence[str], most: int, stop: str = "") -> list[Said]:
        """The texts of `continue_text`, and which of them came to an end."""
        ends = [*self._ends(), *self.encode(stop)]
        written = write_freely(prefix, rows, [self.encode(prompt) for prompt in prompts], most, ends)
        decode = partial(self.tokenizer.decode, skip_special_tokens=True)
        return [Said(decode(ids).strip(), ended) for ids, ended in written]

    @torch.inference_mode()
    def caption(self, images: Sequence[NDArray[np.uint8]], max_tokens: int = 40) -> list[str]:
        """A caption of each uint8[H, W, 3] image, greedy."""
        captions = []
        for image in images:
            pixels, frames = self.prepare([image])
            with self.lock:
                prefix = self.prefix(self.features(pixels), frames)
                captions += self.continue_text(prefix, [0], [self.caption_prompt], max_tokens)
        return captions

    def _ends(self) -> list[int]:
        """The tokens that end a text."""
        ends = getattr(self.language_model, "generation_config", self.tokenizer).eos_token_id
        known = [ends] if isinstance(ends, int) else list(ends or [])
        return [*known, self.tokenizer.eos_token_id]
