"""A vision-language model behind an OpenAI-compatible endpoint, asked in words about one image at a time.

An image is sent as a JPEG in a data URL, scaled down to a stated side; its `Frame` takes boxes back to the original.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein.boxforms import Convention
from wherein.evaluation.connection import Connection
from wherein.evaluation.transcript import Reply
from wherein.geometry import Frame

QUALITY = 95  # of the JPEG
PIXELS_A_TOKEN, CHARACTERS_A_TOKEN = 28 * 28, 4  # rules of thumb: Qwen's blocks of patches, English


@dataclass(frozen=True)
class Limits:
    """How an endpoint is asked.

    side: the longer side of what is sent at most, pixels · tokens: of an answer at most · per_minute: requests; None:
    as many as it answers · seconds: to wait for one answer · body: what else the request's JSON holds, such as
    {"seed": 1}; None as a value leaves a usual key out.
    """

    side: int = 1024
    tokens: int = 128
    per_minute: float | None = None
    seconds: float = 120.0
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Estimate:
    """What asking will take: requests, tokens of text and of images by rules of thumb, tokens of answers at most."""

    requests: int
    text: int
    images: int
    answers: int

    def cost(self, read: float, written: float) -> float:
        """At these prices for a million tokens read and written, in their currency; retries are not foreseen."""
        return ((self.text + self.images) * read + self.answers * written) / 1e6


class Endpoint:
    """Asks a remote model; as a context manager it closes its connection.

    name: of the model · settings: what must be the same for a reply to hold, without the key · has_key: whether one is
    sent · convention: that of the boxes it was trained to write, which nobody tells.
    """

    convention: Convention | None = None

    def __init__(self, url: str, model: str, key: str | None = None, limits: Limits | None = None) -> None:
        """`url` is the base, such as https://api.openai.com/v1, and `key` what it wants, if anything.

        Raises:
            InputError: the URL is unusable or holds a secret, the key is not printable or would travel unencrypted.
        """
        self.name, self.limits, self.has_key = model, limits or Limits(), key is not None
        url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._connection = Connection(url, key, self.limits.per_minute, self.limits.seconds)
        self.settings: dict[str, Any] = {
            "model": model,
            "endpoint": url,
            "side": self.limits.side,
            "tokens": self.limits.tokens,
            "body": dict(self.limits.body or {}),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def check_phrase(self, phrase: str) -> None:
        """Any phrase will do: it travels as text."""

    def frame_of(self, width: int, height: int) -> Frame:
        """The Frame of what is sent of an image of this size, pixels."""
        scale = min(1.0, self.limits.side / max(width, height))
        return Frame.identity(width, height).resize(max(1, round(width * scale)), max(1, round(height * scale)))

    def ask(self, image: NDArray[np.uint8], questions: Sequence[str]) -> Iterator[Reply]:
        """The replies to questions about an image uint8[H, W, 3], one request each.

        Raises:
            InputError: the endpoint refuses, or does not answer however often it is asked.
        """
        picture = self._picture(image)
        for question in questions:
            (text, cut, tokens), seconds = self._connection.post(self._request(question, picture), _read)
            yield Reply(self._connection.hidden(text), seconds, cut, tokens)

    def estimate(self, asked: Sequence[tuple[int, int, Sequence[str]]]) -> Estimate:
        """What it takes to ask the questions about each image, given as (width, height, questions)."""
        requests = text = pictures = 0
        for width, height, questions in asked:
            frame = self.frame_of(width, height)
            requests += len(questions)
            text += sum(-(-len(question) // CHARACTERS_A_TOKEN) for question in questions)
            pictures += len(questions) * -(-frame.model_width * frame.model_height // PIXELS_A_TOKEN)
        return Estimate(requests, text, pictures, requests * self.limits.tokens)

    def _picture(self, image: NDArray[np.uint8]) -> str:
        """The image as a data URL."""
        frame, buffer = self.frame_of(image.shape[1], image.shape[0]), io.BytesIO()
        size = (frame.model_width, frame.model_height)
        Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def _request(self, question: str, picture: str) -> dict[str, Any]:
        said = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
        usual = {"model": self.name, "max_tokens": self.limits.tokens, "temperature": 0}
        chosen = {**usual, **(self.limits.body or {}), "messages": [{"role": "user", "content": said}]}
        return {name: value for name, value in chosen.items() if value is not None}


def _read(content: bytes) -> tuple[str, bool, tuple[int, int] | None] | None:
    """What a chat completion says: its text, whether that was cut off, and the tokens read and written if it counts
    them; None if it is no chat completion."""
    try:
        completion = json.loads(content)
        choice = completion["choices"][0]
        said = choice["message"].get("content") or ""  # nothing where the model refuses
        if not isinstance(said, str):
            said = "".join(part["text"] for part in said if part["type"] == "text")
        cut = choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    match completion.get("usage"):
        case {"prompt_tokens": int(read), "completion_tokens": int(written)}:
            return said, cut, (read, written)
    return said, cut, None
