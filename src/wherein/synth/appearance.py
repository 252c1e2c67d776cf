"""What is done to objects and composites beyond the paste: mirror, recolour, soften, blur, compress."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from wherein.synth.placement import solid_of


def vary(cutout: Image.Image, rng: np.random.Generator, flip: bool, jitter: float, grayscale: float) -> Image.Image:
    """Mirror half of the objects and recolour them (see ComposeConfig); the alpha stays."""
    if flip and rng.random() < 0.5:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    grey = grayscale > 0 and rng.random() < grayscale
    if not grey and not jitter:
        return cutout
    colour = cutout.convert("RGB")
    if grey:
        colour = colour.convert("L").convert("RGB")
    if jitter:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            colour = enhance(colour).enhance(1 + rng.uniform(-jitter, jitter))
    colour.putalpha(cutout.getchannel("A"))
    return colour


def soften(radius: float, cutout: Image.Image) -> Image.Image:
    """An RGBA cut-out whose alpha fades inwards over about `radius` pixels (standard deviation); it never grows, and
    thin tips that fade beyond its solid pixels are cut off, as they would lie outside its box."""
    if not radius:
        return cutout
    alpha, margin = cutout.getchannel("A"), int(np.ceil(3 * radius))
    around = ImageOps.expand(alpha, margin, 0).filter(ImageFilter.GaussianBlur(radius))  # nothing lies beyond the edge
    blurred = around.crop((margin, margin, margin + alpha.width, margin + alpha.height))
    cutout.putalpha(ImageChops.darker(alpha, blurred))
    return cutout.crop(solid_of(cutout).getbbox())


def degrade(image: Image.Image, rng: np.random.Generator, blur: float, jpeg: int) -> NDArray[np.uint8]:
    """The whole image uint8[S, S, 3], blurred and compressed (see ComposeConfig)."""
    if blur:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0, blur)))
    if jpeg:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(jpeg, 96)))
        image = Image.open(stream)
    return np.asarray(image)
