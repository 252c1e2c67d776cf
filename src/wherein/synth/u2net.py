"""U2-Net (Qin et al., Pattern Recognition 2020): what stands out in a picture, whatever it is called.

Notable choices:
- transformers has no model that finds an object unasked, so the layers are here; parameters have the names of the
  published checkpoints (u2net.pth and the small u2netp.pth, Apache-2.0), which are loaded strictly
- widths are read off the checkpoint: both of them, and one trained at another width, are this one class
- a .pth is read by torch's loader of tensors (weights_only), which runs no code of the file
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from wherein.checkpoints import device_for
from wherein.errors import InputError
from wherein.synth.foreground import CUT

SIDE = 320
"""Pixels that a picture is resized to, both ways, as in training."""
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of a picture whose largest value is 1
_LEVELS = 6
_DEPTHS = (7, 6, 5, 4, 4, 4)  # of the block at each level, down and up
_DILATED = 5  # from this level on, blocks dilate where others shrink: nothing is left to shrink


class U2Net:
    """A finder (see `wherein.synth.foreground`) that finds the same object under every name. Frozen, in float32."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """`name` is a file, .safetensors or .pth. Raises InputError: it is none, or of another model, or no device."""
        self.name, self.device = name, device_for(device)
        self.model = _loaded(Path(name)).eval().requires_grad_(False).to(self.device)

    def mask(self, picture: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
        """bool[H, W]: what stands out in a picture uint8[H, W, 3], relative to its most and least salient pixel."""
        height, width = picture.shape[:2]
        small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        pixels = torch.from_numpy(small / max(1, small.max()))
        with torch.inference_mode():
            given = ((pixels - torch.tensor(_MEAN)) / torch.tensor(_SPREAD)).permute(2, 0, 1)[None]
            salience = self.model(given.to(self.device)).sigmoid()
            low, high = salience.aminmax()
            full = functional.interpolate((salience - low) / (high - low), (height, width), mode="bilinear")[0, 0]
            return np.asarray((full > CUT).cpu().numpy())  # none if all is alike: 0 / 0 is not above anything


class Network(nn.Module):
    """Blocks at six levels down and five up, each half as large as the one above, and a map of each of the last six."""

    def __init__(self, widths: dict[str, tuple[int, int]]) -> None:
        """`widths` are (inside, out) of each block, by its name in a checkpoint: "stage1" to "stage6", "stage5d" up to
        "stage1d"."""
        super().__init__()
        incoming = 3
        for level in range(1, _LEVELS + 1):
            self._add(f"stage{level}", level, incoming, widths)
            incoming = widths[f"stage{level}"][1]
        self.side6 = nn.Conv2d(incoming, 1, 3, padding=1)
        for level in range(_LEVELS - 1, 0, -1):
            self._add(f"stage{level}d", level, incoming + widths[f"stage{level}"][1], widths)
            incoming = widths[f"stage{level}d"][1]
            self.add_module(f"side{level}", nn.Conv2d(incoming, 1, 3, padding=1))
        self.outconv = nn.Conv2d(_LEVELS, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits float[B, 1, H, W] of pixels float[B, 3, H, W]."""
        seen, here = list[Tensor](), pixels
        for level in range(1, _LEVELS + 1):
            here = self.get_submodule(f"stage{level}")(here if level == 1 else _halved(here))
            seen.append(here)
        maps = [self.side6(here)]
        for level in range(_LEVELS - 1, 0, -1):
            here = self.get_submodule(f"stage{level}d")(_joined(here, seen[level - 1]))
            maps.append(self.get_submodule(f"side{level}")(here))
        return self.outconv(torch.cat([_like(one, pixels) for one in reversed(maps)], 1))  # type: ignore[no-any-return]

    def _add(self, name: str, level: int, incoming: int, widths: dict[str, tuple[int, int]]) -> None:
        self.add_module(name, _Block(incoming, *widths[name], _DEPTHS[level - 1], level >= _DILATED))


class _Block(nn.Module):
    """A U-Net of `depth` layers down and one less up, added to what it is given."""

    def __init__(self, incoming: int, inside: int, out: int, depth: int, dilated: bool) -> None:
        super().__init__()
        self.depth, self.dilated = depth, dilated
        self.rebnconvin = _Layer(incoming, out, 1)
        for order in range(1, depth + 1):
            deepest = 1 if order < depth else 2
            self.add_module(
                f"rebnconv{order}",
                _Layer(out if order == 1 else inside, inside, 2 ** (order - 1) if dilated else deepest),
            )
        for order in range(depth - 1, 0, -1):
            self.add_module(
                f"rebnconv{order}d",
                _Layer(2 * inside, out if order == 1 else inside, 2 ** (order - 1) if dilated else 1),
            )

    def forward(self, features: Tensor) -> Tensor:
        """float[B, out, H, W] of float[B, incoming, H, W]."""
        entered = here = self.rebnconvin(features)
        seen = list[Tensor]()
        for order in range(1, self.depth + 1):
            shrinks = not self.dilated and 1 < order < self.depth
            here = self.get_submodule(f"rebnconv{order}")(_halved(here) if shrinks else here)
            seen.append(here)
        for order in range(self.depth - 1, 0, -1):
            here = self.get_submodule(f"rebnconv{order}d")(_joined(here, seen[order - 1]))
        return here + entered  # type: ignore[no-any-return]


class _Layer(nn.Module):
    """A 3 x 3 convolution, normalised, its negative part dropped."""

    def __init__(self, incoming: int, out: int, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(incoming, out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out)

    def forward(self, features: Tensor) -> Tensor:
        """float[B, out, H, W] of float[B, incoming, H, W]."""
        return functional.relu(self.bn_s1(self.conv_s1(features)))


def _halved(features: Tensor) -> Tensor:
    return functional.max_pool2d(features, 2)  # without a rest: SIDE is 10 at the lowest level


def _like(features: Tensor, other: Tensor) -> Tensor:
    """At the height and width of another."""
    return functional.interpolate(features, other.shape[-2:], mode="bilinear")


def _joined(deeper: Tensor, skipped: Tensor) -> Tensor:
    return torch.cat([_like(deeper, skipped), skipped], 1)


def _loaded(file: Path) -> Network:
    """The network of a checkpoint. Raises InputError: the file holds no such thing."""
    if not file.is_file():
        raise InputError(f"There is no file {file}: give the checkpoint of a U2-Net, such as u2net.pth.")
    blocks = [*(f"stage{level}" for level in range(1, _LEVELS + 1)), *(f"stage{level}d" for level in range(1, _LEVELS))]
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        widths = {
            block: (
                len(state[f"{block}.rebnconv1.conv_s1.weight"]),
                len(state[f"{block}.rebnconvin.conv_s1.weight"]),
            )
            for block in blocks
        }
        with torch.device("meta"):
            network = Network(widths)
        network.load_state_dict(state, strict=True, assign=True)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError, UnpicklingError, SafetensorError) as e:
        reason = " ".join(str(e).split())[:200]
        raise InputError(
            f"{file} holds no U2-Net: give the published u2net.pth or u2netp.pth, or their tensors as .safetensors "
            f"({type(e).__name__}: {reason})."
        ) from e
    return network.float()
