"""The vision encoder of the default VLM: EfficientNet-Lite2, inference only.

Notable choices:
- Lite variant of Tan & Le (2019): no squeeze-and-excitation, ReLU6, stem and head not scaled.
- Batch norm is folded into the convolutions when the published weights are converted, so one block is three
  convolutions and nothing else.
- Convolutions pad as TensorFlow's "SAME" does, because the published weights were trained that way.
- `Encoder.forward` returns the last feature map as tokens; the classifier's rows are kept beside it, because the
  connector reads each token through them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (repeats, kernel, stride, expansion, width) of each stage of Lite2: width x1.1, depth x1.2, first and last unscaled.
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
STEM, HEAD, CLASSES, STRIDE = 32, 1280, 1000, 32
_BATCH_NORM_EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: the odd pixel goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x`: float[B, C, H, W] -> float[B, C', ceil(H / stride), ceil(W / stride)]."""
        k, s = self.kernel_size[0], self.stride[0]
        if s == 1:
            return F.conv2d(x, self.weight, self.bias, 1, k // 2, 1, self.groups)
        pads = [max((-(-n // s) - 1) * s + k - n, 0) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        return F.conv2d(x, self.weight, self.bias, s, 0, 1, self.groups)


class Block(nn.Module):
    """An inverted residual: expand 1x1, depthwise kxk, project 1x1; the input is added where shapes allow."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = SameConv2d(width_in, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv2d(inner, width_out, 1)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W] -> float[B, C', H', W']."""
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """EfficientNet-Lite2 up to its last feature map.

    `forward` takes pixels float[B, 3, S, S] as `normalise` makes them and returns patch features
    float[B, (S / 32)**2, 1280] in raster order; `classifier` maps one feature row to 1,000 ImageNet logits, so that
    `classifier(features)` is the class activation map of Zhou et al. (2016).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM, 3, 2)
        blocks, width = [], STEM
        for repeats, kernel, stride, expansion, out in STAGES:
            for i in range(repeats):
                blocks.append(Block(width, out, kernel, stride if i == 0 else 1, expansion))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv2d(width, HEAD, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels float[B, 3, S, S] -> patch features float[B, N, 1280], N = (S / 32)**2 in raster order."""
        x = F.relu6(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        x = F.relu6(self.head(self.blocks(x)))
        return x.flatten(2).transpose(1, 2)


def normalise(images: Tensor) -> Tensor:
    """uint8[B, S, S, 3] in 0..255 -> float32[B, 3, S, S] as the published weights expect them."""
    return (images.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 128.0


def convert(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the batch norms of the published state dict and rename it to `Encoder`'s parameters.

    Raises KeyError if a parameter of EfficientNet-Lite2 is missing.
    """
    state: dict[str, Tensor] = {}

    def fold(conv: str, norm: str, name: str) -> None:
        """One convolution and the batch norm behind it."""
        scale = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + _BATCH_NORM_EPS)
        state[f"{name}.weight"] = published[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{name}.bias"] = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale

    fold("_conv_stem", "_bn0", "stem")
    fold("_conv_head", "_bn1", "head")
    for i in range(sum(stage[0] for stage in STAGES)):
        ours, theirs = f"blocks.{i}", f"_blocks.{i}"
        if f"{theirs}._expand_conv.weight" in published:
            fold(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{ours}.expand")
        fold(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{ours}.depthwise")
        fold(f"{theirs}._project_conv", f"{theirs}._bn2", f"{ours}.project")
    state["classifier.weight"], state["classifier.bias"] = published["_fc.weight"], published["_fc.bias"]
    return state
