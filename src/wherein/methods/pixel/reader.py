"""Pictures and words in, words and places out: a `PixelLM` with its tokenizer, in pixels of the caller's image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from wherein import geometry
from wherein.errors import InputError, PhraseError
from wherein.geometry import Frame
from wherein.grounding import Grounding
from wherein.methods.pixel.captions import Caption, PlacedWord, Region
from wherein.methods.pixel.language import FILLER, IGNORED, Reading
from wherein.methods.pixel.masks import full_size
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.points import boxes_between
from wherein.methods.pixel.prompts import Prompts
from wherein.methods.pixel.proposals import distinct
from wherein.methods.pixel.words import words
from wherein.methods.pixel.writing import Written, write

CAPTION = "A long image caption: "
REGION = "an object of "
REFER = "where is {phrase}"
LONGEST, LONGEST_REGION = 128, 40  # tokens, as published
SCORE = "phrase_probability"
MOST, LEAST = 10, 0.2  # proposals of an image, and how sure the model is of each


@dataclass(frozen=True, eq=False)
class Seen:
    """An image as the model has seen it: its Frame, and the features of each encoder."""

    frame: Frame
    features: list[Tensor]


class PixelReader:
    """A pixel-aligned model and its tokenizer, ready to be asked; the model is put into its evaluation mode."""

    def __init__(self, model: PixelLM, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = sorted(added | set(tokenizer.all_special_tokens))
        model.train(False)

    @torch.inference_mode()
    def see(self, image: NDArray[np.uint8]) -> Seen:
        """Run the encoders on uint8[H, W, 3], once for all that is asked about it."""
        square, frame = fitted(image, self.model.config.side, self.model.config.fit)
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
        return Seen(frame, self.model.features(pixels, torch.tensor([shown(frame)])))

    def caption(self, seen: Seen, beams: int = 1, longest: int = LONGEST, lead: str = CAPTION) -> Caption:
        """A caption of the whole image, with a place for each word, in one pass; `lead`: the text before it.

        Raises InputError for fewer than one beam or token, and a lead with a control token.
        """
        return self._captions(seen, None, lead, beams, longest)[0]

    def captions_of(self, seen: Seen, boxes: ArrayLike, beams: int = 1, longest: int = LONGEST_REGION) -> list[Caption]:
        """A caption of what each box float64[K, 4], xyxy in pixels of the image, shows.

        Raises InputError for a box that is not finite or holds nothing of the image.
        """
        given = geometry.clip(boxes, seen.frame.width, seen.frame.height)
        if not np.isfinite(given).all() or (geometry.area(given) == 0).any():
            size = f"{seen.frame.width} x {seen.frame.height}"
            raise InputError(
                f"A box to be described must hold some of the image of {size} pixels: {np.asarray(boxes).tolist()}."
            )
        if not len(given):
            return []
        inside = torch.from_numpy(seen.frame.to_model(given)).float().to(self.model.device)
        return self._captions(seen, Prompts(boxes=inside), REGION, beams, longest)

    def captions_at(
        self, seen: Seen, places: ArrayLike, beams: int = 1, longest: int = LONGEST_REGION
    ) -> list[Caption]:
        """A caption of what is at each point float64[K, 2], x and y in pixels of the image.

        Raises InputError for a point outside the image, and for what is no point.
        """
        given = np.asarray(places, dtype=np.float64)
        if given.size and given.shape[-1:] != (2,):
            raise InputError(f"A point is x and y: give points [K, 2], not {list(given.shape)}.")
        given = given.reshape(-1, 2)
        size = (seen.frame.width, seen.frame.height)
        if not ((given >= 0) & (given <= size)).all():
            raise InputError(f"Points must be inside the image of {size[0]} x {size[1]} pixels: {given.tolist()}.")
        if not len(given):
            return []
        inside = torch.from_numpy(seen.frame.to_model(np.tile(given, 2))[:, :2]).float().to(self.model.device)
        return self._captions(seen, Prompts(points=inside[:, None]), REGION, beams, longest)

    def dense(self, seen: Seen, most: int = MOST, least: float = LEAST, longest: int = LONGEST_REGION) -> list[Region]:
        """Captions of the boxes that the model itself proposes; see `propose`."""
        boxes, scores = self.propose(seen, most, least)
        captions = self.captions_of(seen, boxes, longest=longest)
        return [
            Region(caption, box, proposal_score=float(score))
            for caption, box, score in zip(captions, boxes, scores, strict=True)
        ]

    @torch.inference_mode()
    def propose(
        self, seen: Seen, most: int = MOST, least: float = LEAST
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Boxes float64[K, 4] of what may be things, in pixels of the image, and how sure each is float64[K], 0..1.

        At most so many, the surest first, none below `least`; of boxes that overlap by half or more, one.
        Raises InputError for a model that proposes none.
        """
        logits, said = self.model.propose(seen.features)
        scores = logits[0].cpu().double().sigmoid().numpy()
        boxes = seen.frame.to_image(said[0].cpu().double().numpy())
        some = (scores >= least) & (geometry.area(boxes) > 0)
        kept = np.flatnonzero(some)[distinct(boxes[some], scores[some], most)]
        return boxes[kept], scores[kept]

    @torch.inference_mode()
    def refer(self, seen: Seen, phrases: Sequence[str], masks: bool = False) -> list[Grounding]:
        """Where each phrase is: one box, and a mask if asked for; never absent, but invalid, with neither, where the
        box that was said holds nothing of the image.

        The phrase is given, not written, and the place is read behind its last word. The score is the mean probability
        of its words for this image.
        Raises InputError for a model of one point a token, a phrase without words, with a control token or too long,
        and where masks are asked of a model without SAM's image encoder.
        """
        if self.model.config.points_per_token != 2:
            raise InputError("A box needs two points: this model has one for each word.")
        if not phrases:
            return []
        labels = self.labels(phrases)
        rows = torch.zeros(len(phrases), dtype=torch.long, device=labels.device)
        sizes = self._sizes(seen, len(phrases))
        visual = self.model.visual(seen.features, rows, Prompts.whole(sizes))
        text = self.texts([REFER.format(phrase=phrase) for phrase in phrases])
        states, logits, said = self.model.behind(visual, text, labels, sizes)
        last = (labels != IGNORED).sum(1) - 2  # the end stands behind it
        found = boxes_between(said)[torch.arange(len(labels), device=last.device), last]
        worth = _probability(logits, labels, self.model.config.end_token_id)
        drawn: list[NDArray[np.bool_] | None] = [None] * len(phrases)
        if masks:
            low, _ = self.model.draw(seen.features, rows, found, visual, states, labels)
            drawn = [full_size(mask, seen.frame) for mask in low]
        image = seen.frame.to_image(found.cpu().double().numpy())
        holds = geometry.area(image) > 0
        return [
            Grounding(
                phrase,
                image[i : i + 1] if holds[i] else np.zeros((0, 4)),
                worth[i : i + 1] if holds[i] else np.zeros(0),
                SCORE,
                absent=False,
                absent_probability=None,
                mask=drawn[i] if holds[i] else None,
            )
            for i, phrase in enumerate(phrases)
        ]

    @torch.inference_mode()
    def _captions(self, seen: Seen, prompts: Prompts | None, lead: str, beams: int, longest: int) -> list[Caption]:
        if min(beams, longest) < 1:
            raise InputError(f"A caption needs at least one beam and one token, not {beams} and {longest}.")
        count = 1 if prompts is None else len(prompts)
        sizes = self._sizes(seen, count)
        rows = torch.zeros(count, dtype=torch.long, device=self.model.device)
        visual = self.model.visual(seen.features, rows, Prompts.whole(sizes) if prompts is None else prompts)
        visual = visual.repeat_interleave(beams, dim=0)
        reading = Reading(self.model.language_model, visual, self.texts([lead] * len(visual)))
        config = self.model.config
        written = write(reading, config.begin_token_id, config.end_token_id, longest, beams)
        return [self._placed(one, seen, sizes[:1]) for one in written]

    def _placed(self, written: Written, seen: Seen, size: Tensor) -> Caption:
        """A caption with a place for each word: that behind its last token, when it has been read to its end."""
        text, found = words(self.tokenizer, written.tokens)
        said = self.model.point_head(written.states[None], size)[0].cpu().double().numpy()
        boxes = seen.frame.to_image(np.concatenate([said.min(1), said.max(1)], axis=1).reshape(-1, 4))
        middle = seen.frame.to_image(np.tile(said.mean(1).reshape(-1, 2), 2))[:, :2]
        corners = self.model.config.points_per_token == 2
        placed = [
            PlacedWord(word.text, word.start, word.end, middle[word.last], boxes[word.last] if corners else None)
            for word in found
        ]
        score = float(written.scores.mean().exp()) if len(written.scores) else 0.0
        return Caption(text, placed, score, written.ended)

    def labels(self, phrases: Sequence[str]) -> Tensor:
        """Phrases or captions as `PixelLM.forward` takes them: int64[R, T], each with its end.

        Raises PhraseError for one without words, with a control token or too long.
        """
        ids = [self._encode(phrase) for phrase in phrases]
        for phrase, own in zip(phrases, ids, strict=True):
            if not own or not phrase.strip():
                raise PhraseError("A phrase must have a word.")
            if len(own) > LONGEST:
                raise PhraseError(
                    f"The phrase {phrase!r} has {len(own)} tokens and may have {LONGEST}: make it shorter."
                )
        return self._table([[*own, self.model.config.end_token_id] for own in ids], IGNORED)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts before a caption as `PixelLM.forward` takes them: int64[R, S], for an encoder each with its end.

        Raises PhraseError for one with a control token.
        """
        closing = [self.model.config.end_token_id] if self.model.config.text_config.is_encoder_decoder else []
        return self._table([[*self._encode(text), *closing] for text in texts], FILLER)

    def _table(self, rows: Sequence[Sequence[int]], filler: int) -> Tensor:
        longest = max(len(row) for row in rows)
        filled = [[*row, *[filler] * (longest - len(row))] for row in rows]
        return torch.tensor(filled, dtype=torch.long, device=self.model.device)

    def _encode(self, text: str) -> list[int]:
        for token in self._control:
            if token in text:  # its end, for one: a phrase of it alone has no word that a place could be read behind
                raise PhraseError(f"The text {text!r} holds {token!r}, a control token of the model: leave it out.")
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _sizes(self, seen: Seen, count: int) -> Tensor:
        return torch.tensor([shown(seen.frame)] * count, device=self.model.device)


def frame_of(width: int, height: int, side: int, fit: str) -> Frame:
    """How an image comes into a square of `side` pixels: by `squash`, or by `pad`ding below and on the right."""
    frame = Frame.identity(width, height)
    if fit == "squash":
        return frame.resize(side, side)
    scale = side / max(width, height)
    small = [max(1, round(length * scale)) for length in (width, height)]
    return frame.resize(*small).pad(0, 0, side - small[0], side - small[1])


def fitted(image: NDArray[np.uint8], side: int, fit: str, share: float = 1.0) -> tuple[NDArray[np.uint8], Frame]:
    """uint8[H, W, 3] in a square uint8[side, side, 3], and how it lies there; `share`: of the side that it takes."""
    inner = max(1, round(side * share))
    frame = frame_of(image.shape[1], image.shape[0], inner, fit).pad(0, 0, side - inner, side - inner)
    width, height = (max(1, round(length)) for length in shown(frame))
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    return square, frame


def shown(frame: Frame) -> tuple[float, float]:
    """Width and height of the picture inside the square, model pixels: all of it, without the padding."""
    return frame.width * frame.scale_x, frame.height * frame.scale_y


def _probability(logits: Tensor, labels: Tensor, end: int) -> NDArray[np.float64]:
    """The mean probability (geometric) float64[R] of each row's labels but the end."""
    counted = (labels != IGNORED) & (labels != end)
    each = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    mean = (each * counted).sum(1) / counted.sum(1)
    return np.asarray(mean.exp().cpu().double().numpy())
