"""Which pixels of a picture are the object: finders ask a text, refiners ask the box of what a finder found.

Every finder is a candidate for itself and, with each refiner, another one; CLIP chooses among them picture by picture.
What stands out whatever it is called, `wherein.synth.u2net` finds: transformers has no model for it (VitMatte needs a
trimap, and Sapiens mattes people only).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein.checkpoints import configuration, device_for, reading
from wherein.errors import InputError
from wherein.synth.clip import description

CUT = 128 / 255  # a pixel belongs to the object above this, as in X-Paste
FINDERS, REFINERS = ("clipseg", "u2net"), ("sam",)
"""Kinds of foreground segmenters; SAM may be SAM 2."""


class Finder(Protocol):
    """Finds the object that a name says."""

    def mask(self, picture: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
        """bool[H, W] for a picture uint8[H, W, 3]."""
        ...


class Refiner(Protocol):
    """Finds the object in a box: `wherein.segment.Segmenter`."""

    def masks(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """bool[K, H, W] for boxes float64[K, 4], xyxy in pixels of the image uint8[H, W, 3]; and their quality."""
        ...


class ClipSeg:
    """A CLIPSeg of transformers, frozen, in float32."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """`name` is a Hub id or a folder. Raises InputError: there is no such model or device, or it is no CLIPSeg."""
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPSegForImageSegmentation

        self.name, self.device = name, device_for(device)
        kind = configuration(name).model_type
        if kind != "clipseg":
            raise InputError(f"{name} is a {kind} model, no CLIPSeg: choose one such as CIDAS/clipseg-rd64-refined.")
        images: Any = AutoImageProcessor.from_pretrained
        self._images = reading(name, "image processor", lambda: images(name, backend="pil"))
        self._tokenizer = reading(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(name))
        load: Any = CLIPSegForImageSegmentation.from_pretrained
        self.model: Any = reading(name, "weights", lambda: load(name, use_safetensors=True))
        self.model.float().eval().requires_grad_(False).to(self.device)

    def mask(self, picture: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
        """bool[H, W]: where on a picture uint8[H, W, 3] the model sees "a photo of {name}"."""
        import torch

        height, width = picture.shape[:2]
        with torch.inference_mode():
            pixels = self._images(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
            text = self._tokenizer([description(name)], truncation=True, return_tensors="pt")
            seen = self.model(pixel_values=pixels.to(self.device), **text.to(self.device)).logits
            grid = seen.reshape(1, 1, *seen.shape[-2:])
            full = torch.nn.functional.interpolate(grid, (height, width), mode="bilinear")[0, 0]
            return np.asarray((full.sigmoid() > CUT).cpu().numpy())


def parse(given: list[str]) -> list[tuple[str, str]]:
    """(kind, model) of each "kind=model". Raises InputError: another form or kind, or a refiner without a finder."""
    parsed, kinds = [], (*FINDERS, *REFINERS)
    for text in given:
        kind, _, model = text.partition("=")
        if kind not in kinds or not model:
            raise InputError(f"The segmenter {text!r} is not of the form KIND=MODEL with a kind of {', '.join(kinds)}.")
        parsed.append((kind, model))
    if parsed and all(kind in REFINERS for kind, _ in parsed):
        raise InputError(
            "sam is asked with a box, and the box comes from a clipseg or u2net: give --segmenter clipseg=MODEL too."
        )
    return parsed
