"""U2-Net: its layers and names, and the mask that is made of its answer."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from wherein.errors import InputError
from wherein.synth.u2net import Network, U2Net

TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_objects.py"))
DEPTHS = {"1": 7, "2": 6, "3": 5, "4": 4, "5": 4, "6": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = TINY["u2net"](tmp_path_factory.mktemp("u2net") / "u2net.safetensors")
    return file


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """uint8[40, 100, 3], a bright disc on a dark ramp."""
    y, x = np.mgrid[:40, :100]
    disc = (y - 20) ** 2 + (x - 60) ** 2 < 150
    return np.stack([x, 2 * y, np.where(disc, 220, 30)], axis=-1).astype(np.uint8)


class Reference:
    """The drawing in the paper, said by recursion on tensors of a checkpoint."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def layer(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        part = {key.removeprefix(f"{name}."): value for key, value in self.state.items() if key.startswith(f"{name}.")}
        x = functional.conv2d(x, part["conv_s1.weight"], part["conv_s1.bias"], padding=dilation, dilation=dilation)
        statistics = part["bn_s1.running_mean"], part["bn_s1.running_var"]
        return functional.batch_norm(x, *statistics, part["bn_s1.weight"], part["bn_s1.bias"]).relu()

    def block(self, stage: str, x: Tensor) -> Tensor:
        name, depth, flat = f"stage{stage}.rebnconv", DEPTHS[stage[0]], stage[0] in "56"

        def below(order: int, x: Tensor) -> Tensor:
            rate = 2 ** (order - 1) if flat else 2 if order == depth else 1
            here = self.layer(f"{name}{order}", x, rate)
            if order == depth:
                return here
            deeper = below(order + 1, here if flat or order == depth - 1 else self.pooled(here))
            return self.layer(f"{name}{order}d", self.beside(deeper, here), rate)

        entered = self.layer(f"{name}in", x)
        return below(1, entered) + entered

    def salience(self, x: Tensor) -> Tensor:
        maps: dict[int, Tensor] = {}

        def below(level: int, x: Tensor) -> Tensor:
            here = self.block(str(level), x)
            if level < 6:
                here = self.block(f"{level}d", self.beside(below(level + 1, self.pooled(here)), here))
            side = functional.conv2d(
                here, self.state[f"side{level}.weight"], self.state[f"side{level}.bias"], padding=1
            )
            maps[level] = functional.interpolate(side, (320, 320), mode="bilinear")
            return here

        below(1, x)
        together = torch.cat([maps[level] for level in range(1, 7)], 1)
        return functional.conv2d(together, self.state["outconv.weight"], self.state["outconv.bias"]).sigmoid()

    @staticmethod
    def pooled(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2, 2, ceil_mode=True)

    @staticmethod
    def beside(deeper: Tensor, here: Tensor) -> Tensor:
        return torch.cat([functional.interpolate(deeper, here.shape[2:], mode="bilinear"), here], 1)


def test_a_mask_is_the_reference_s_scaled_and_cut_at_a_half(checkpoint: Path, picture: NDArray[np.uint8]) -> None:
    small = np.asarray(Image.fromarray(picture).resize((320, 320), Image.Resampling.BILINEAR), np.float32)
    pixels = (small / small.max() - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    answer = Reference(load_file(checkpoint)).salience(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert answer.std() > 0.01
    scaled = (answer - answer.min()) / (answer.max() - answer.min())
    full = functional.interpolate(scaled, (40, 100), mode="bilinear")[0, 0].numpy()
    mask, certain = U2Net(str(checkpoint), "cpu").mask(picture, "disc"), np.abs(full - 128 / 255) > 1e-4
    assert mask.shape == (40, 100) and 0.05 < mask.mean() < 0.95 and certain.mean() > 0.99
    np.testing.assert_array_equal(mask[certain], (full > 128 / 255)[certain])


def test_what_it_is_called_makes_no_difference(checkpoint: Path, picture: NDArray[np.uint8]) -> None:
    model = U2Net(str(checkpoint), "cpu")
    np.testing.assert_array_equal(model.mask(picture, "disc"), model.mask(picture, "ramp"))


def test_nothing_stands_out_where_all_is_alike(checkpoint: Path, picture: NDArray[np.uint8]) -> None:
    model = U2Net(str(checkpoint), "cpu")
    for side in range(1, 7):
        model.model.get_submodule(f"side{side}").weight.data.zero_()
    assert not model.mask(picture, "disc").any()


def test_both_ways_to_save_it_are_read(checkpoint: Path, picture: NDArray[np.uint8], tmp_path: Path) -> None:
    old = U2Net(str(TINY["u2net"](tmp_path / "u2net.pth")), "cpu")
    np.testing.assert_array_equal(old.mask(picture, "x"), U2Net(str(checkpoint), "cpu").mask(picture, "x"))


@pytest.mark.parametrize(("small", "parameters"), [(False, 44_009_869), (True, 1_131_181)])
def test_it_is_as_large_as_published(small: bool, parameters: int) -> None:
    widths = dict.fromkeys([*(f"stage{n}" for n in range(1, 7)), *(f"stage{n}d" for n in range(1, 6))], (16, 64))
    shapes = TINY["u2net_shapes"](16, 64)
    if not small:
        down = [(32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)]
        up = [(16, 64), (32, 64), (64, 128), (128, 256), (256, 512)]
        widths = {**{f"stage{n}": w for n, w in enumerate(down, 1)}, **{f"stage{n}d": w for n, w in enumerate(up, 1)}}
    with torch.device("meta"):
        network = Network(widths)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    named = {name: tuple(value.shape) for name, value in network.state_dict().items() if "num_batches" not in name}
    assert len(named) == 686 and named.keys() == shapes.keys()
    assert not small or named == shapes


def test_another_checkpoint_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    state = load_file(checkpoint)
    save_file({**state, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    save_file({name: v for name, v in state.items() if name != "side3.bias"}, tmp_path / "less.safetensors")
    save_file({**state, "side1.weight": torch.zeros(1, 4, 3, 3)}, tmp_path / "wide.safetensors")
    save_file({"side1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    torch.save([1], tmp_path / "list.pth")
    torch.save({"code": Path("code")}, tmp_path / "code.pth")  # what only running code would read
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("not found")
    (tmp_path / "text.safetensors").write_text("not found")
    files = sorted(path for path in tmp_path.iterdir())
    assert len(files) == 9
    for file in files:
        with pytest.raises(InputError, match="holds no U2-Net: give the published") as error:
            U2Net(str(file), "cpu")
        assert "\n" not in str(error.value)
    for file in (tmp_path, tmp_path / "gone.pth"):
        with pytest.raises(InputError, match="There is no file"):
            U2Net(str(file), "cpu")
