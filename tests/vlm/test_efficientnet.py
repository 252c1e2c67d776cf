"""The vision encoder against a plain reading of the published network: convolution, batch norm and activation apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wherein.vlm.efficientnet import CLASSES, HEAD, STAGES, STEM, Encoder, SameConv2d, convert, normalise


def norm(state: dict[str, Tensor], name: str, width: int) -> None:
    state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(width) + 0.5, torch.randn(width) * 0.1
    state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.randn(width) * 0.1, torch.rand(width) + 0.5


def blocks() -> list[tuple[int, int, int, int, int]]:
    """(width in, width out, kernel, stride, expansion) of every block."""
    rows, width = [], STEM
    for repeats, kernel, stride, expansion, out in STAGES:
        for i in range(repeats):
            rows.append((width, out, kernel, stride if i == 0 else 1, expansion))
            width = out
    return rows


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights under the published names."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, inner: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, inner, kernel, kernel) * (2 / (inner * kernel**2)) ** 0.5

    conv("_conv_stem", STEM, 3, 3)
    norm(state, "_bn0", STEM)
    for i, (width, out, kernel, _, expansion) in enumerate(blocks()):
        inner = width * expansion
        if expansion > 1:
            conv(f"_blocks.{i}._expand_conv", inner, width, 1)
            norm(state, f"_blocks.{i}._bn0", inner)
        conv(f"_blocks.{i}._depthwise_conv", inner, 1, kernel)
        norm(state, f"_blocks.{i}._bn1", inner)
        conv(f"_blocks.{i}._project_conv", out, inner, 1)
        norm(state, f"_blocks.{i}._bn2", out)
    conv("_conv_head", HEAD, STAGES[-1][4], 1)
    norm(state, "_bn1", HEAD)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(CLASSES, HEAD) * 0.01, torch.randn(CLASSES)
    return state


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The last feature map float[B, 1280, h, w]."""

    def step(x: Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        for dim in (3, 2):  # "SAME": as many output pixels as strides fit, the odd pixel at the end
            total = max((-(-x.shape[dim] // stride) - 1) * stride + weight.shape[dim] - x.shape[dim], 0)
            pads = (total // 2, total - total // 2)
            x = F.pad(x, (*pads, 0, 0) if dim == 3 else (0, 0, *pads))
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{bn}.{key}"] for key in keys), eps=1e-3)

    x = F.relu6(step(x, "_conv_stem", "_bn0", 2))
    for i, (width, out, _, stride, expansion) in enumerate(blocks()):
        name, y = f"_blocks.{i}", x
        if expansion > 1:
            y = F.relu6(step(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(step(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, y.shape[1]))
        y = step(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and width == out else y
    return F.relu6(step(x, "_conv_head", "_bn1"))


@pytest.mark.parametrize("side", [64, 96])
def test_equals_the_published_network(published: dict[str, Tensor], side: int) -> None:
    encoder = Encoder()
    encoder.load_state_dict(convert(published))
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got, wanted = encoder(pixels), reference(published, pixels)
    assert got.shape == (1, (side // 32) ** 2, HEAD)
    torch.testing.assert_close(got, wanted.flatten(2).transpose(1, 2), atol=1e-3, rtol=1e-3)


def test_a_missing_parameter_is_named(published: dict[str, Tensor]) -> None:
    name = "_blocks.3._bn1.running_var"
    with pytest.raises(KeyError, match=name):
        convert({key: value for key, value in published.items() if key != name})


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 5), (5, 1, 6), (3, 2, 6), (3, 2, 7), (5, 2, 8)])
def test_same_padding_puts_the_odd_pixel_last(kernel: int, stride: int, side: int) -> None:
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    out = -(-side // stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    got = conv(x)[0, 0]
    assert got.shape == (out, out)
    for i in range(out):
        for j in range(out):
            rows = slice(max(i * stride - before, 0), i * stride - before + kernel)
            columns = slice(max(j * stride - before, 0), j * stride - before + kernel)
            assert got[i, j] == x[0, 0, rows, columns].sum()


def test_normalised_pixels() -> None:
    pixels = normalise(torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3))
    assert pixels.shape == (1, 3, 1, 1) and pixels.dtype == torch.float32
    assert pixels.flatten().tolist() == [-127 / 128, 0, 1]
