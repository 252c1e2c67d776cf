"""How well a picture shows what a text says: 100 x the cosine of CLIP's two embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein.checkpoints import configuration, device_for, reading
from wherein.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def description(name: str) -> str:
    """The text that X-Paste compares a cut-out with."""
    return f"a photo of {name}"


class Clip:
    """A CLIP of transformers, frozen, in float32."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """`name` is a Hub id or a folder. Raises InputError: there is no such model or device, or it is no CLIP."""
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        self.name, self.device = name, device_for(device)
        kind = configuration(name).model_type
        if kind != "clip":
            raise InputError(f"{name} is a {kind} model, no CLIP: choose one such as openai/clip-vit-large-patch14.")
        images: Any = AutoImageProcessor.from_pretrained  # PIL's on every machine, so that scores are the same
        self._images = reading(name, "image processor", lambda: images(name, backend="pil"))
        self._tokenizer = reading(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(name))
        self.model: Any = reading(name, "weights", lambda: CLIPModel.from_pretrained(name, use_safetensors=True))
        self.model.float().eval().requires_grad_(False).to(self.device)
        self._text = lru_cache(maxsize=4096)(self._embed)

    def scores(self, pictures: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float64]:
        """float64[N, T] of pictures uint8[H, W, 3] and texts, from -100 to 100; a match is about 20 to 35."""
        import torch

        with torch.inference_mode():
            inputs = self._images([Image.fromarray(picture) for picture in pictures], return_tensors="pt")
            seen = self.model.get_image_features(inputs["pixel_values"].to(self.device)).pooler_output
            said = torch.stack([self._text(text) for text in texts])
            cosines = torch.nn.functional.normalize(seen, dim=-1) @ said.T
        return np.asarray(100 * cosines.cpu().double().numpy())

    def _embed(self, text: str) -> Tensor:
        """float32[D] of length one."""
        import torch

        with torch.inference_mode():
            inputs = self._tokenizer([text], truncation=True, return_tensors="pt").to(self.device)
            embedding: Tensor = self.model.get_text_features(**inputs).pooler_output[0]
            return torch.nn.functional.normalize(embedding, dim=-1)
