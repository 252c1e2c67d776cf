"""Vision encoders: pictures to patch features, and the features of several encoders on one grid.

Notable choices:
- Each encoder is given the whole square, resized to a side that its patches fill. So every grid covers the same
  pixels, and a cell of one lies where the resized map of another says. (Patches of 14 on 384 pixels leave 6 of them
  unseen, and a map laid over one of 16 is then up to 6 pixels off.)
- What is padding is zero after the pixels were normalised, as SAM was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wherein.errors import InputError
from wherein.methods.pixel.config import LITE_MEAN, LITE_STD, LiteConfig, PixelLMConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VisionEncoder(nn.Module):
    """A vision model, with how it wants its pixels; features in raster order, without CLS and registers.

    side: of its input, pixels · grid: rows and columns of its features · width: C, of each.
    Raises InputError where its patches do not fill its input, and when it is run, if it has no feature for each patch.
    """

    def __init__(self, model: nn.Module, side: int, patch: int, width: int, mean: Any, std: Any) -> None:
        super().__init__()
        if side % patch:
            raise InputError(
                f"A vision encoder's patches of {patch} pixels do not fill a picture of {side}: set its image_size to "
                f"{side // patch * patch}, or another multiple."
            )
        self.model, self.side, self.width = model, side, width
        self.grid = (side // patch, side // patch)
        self.mean, self.std = list(mean), list(std)

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """Pixels float[B, 3, S, S], 0..255, and the pictures' sizes float[B, 2] in them -> float[B, N, C]."""
        mean, std = (pixels.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        x = (pixels / 255 - mean) / std * inside(sizes, pixels.shape[-1])[:, None]
        if x.shape[-1] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True)
        out = self.model(x.to(next(self.model.parameters()).dtype))
        features = out if isinstance(out, Tensor) else out.last_hidden_state
        rows: Tensor = features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
        cells = self.grid[0] * self.grid[1]
        if rows.shape[1] < cells or rows.shape[2] != self.width:
            raise InputError(
                f"The vision encoder {type(self.model).__name__} gives {rows.shape[1]} features of {rows.shape[2]} "
                f"values, not {cells} of {self.width}, one a patch: choose a plain one, such as CLIP's or DINOv2's."
            )
        return rows[:, rows.shape[1] - cells :]


def inside(sizes: Tensor, side: int) -> Tensor:
    """bool[B, side, side]: the pixels of the square that the picture, of sizes float[B, 2], covers."""
    place = torch.arange(side, device=sizes.device) + 0.5
    return (place < sizes[:, 1:])[:, :, None] & (place < sizes[:, :1])[:, None]


def align(features: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> tuple[Tensor, tuple[int, int]]:
    """Features float[B, N_i, C_i] of grids over the same pixels -> float[B, N, sum of C_i] on the finest, and its grid.

    Coarser maps are resized bicubically.
    """
    finest = max(grids, key=lambda grid: grid[0] * grid[1])
    maps = [x.transpose(1, 2).reshape(len(x), -1, *grid) for x, grid in zip(features, grids, strict=True)]
    resized = [x if x.shape[-2:] == finest else F.interpolate(x.float(), finest, mode="bicubic") for x in maps]
    return torch.cat([x.flatten(2).transpose(1, 2).float() for x in resized], dim=-1), finest


def build(config: PixelLMConfig) -> list[VisionEncoder]:
    """The encoders of a configuration, with first values for weights: SAM's first, where it is one of them."""
    made = []
    if config.sam_encodes:
        from transformers.models.sam.modeling_sam import SamVisionEncoder

        sam = config.sam_config.vision_config
        made.append(
            VisionEncoder(
                SamVisionEncoder(sam), sam.image_size, sam.patch_size, sam.output_channels, IMAGENET_MEAN, IMAGENET_STD
            )
        )
    if config.vision_config is not None:
        made.append(_further(config))
    return made


def _further(config: PixelLMConfig) -> VisionEncoder:
    vision = config.vision_config
    if isinstance(vision, LiteConfig):
        from wherein.vlm.efficientnet import Encoder

        return VisionEncoder(Encoder(), vision.image_size, vision.patch_size, vision.hidden_size, LITE_MEAN, LITE_STD)
    from transformers import AutoModel

    sizes: list[Any] = [getattr(vision, name, None) for name in ("image_size", "patch_size", "hidden_size")]
    if not all(isinstance(size, int) for size in sizes) or hasattr(vision, "depths"):  # of stages, each coarser
        raise InputError(
            f"A {vision.model_type} cannot be a vision encoder here: its configuration must have image_size, "
            "patch_size and hidden_size as whole numbers, and no stages of coarser and coarser grids."
        )
    side, patch, width = sizes
    model = AutoModel.from_config(vision)  # type: ignore[no-untyped-call]
    return VisionEncoder(model, side, patch, width, config.vision_mean, config.vision_std)
