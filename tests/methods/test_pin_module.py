"""The positional insert itself: sizes, code, start, and where gradients go (PIN-1 to PIN-3 of the published system)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from wherein.errors import AdapterError
from wherein.methods.pin import PinConfig, PositionalInsert
from wherein.methods.pin.config import CODES, VARIANTS
from wherein.methods.pin.module import table
from wherein.vlm.branches import Branch

PUBLISHED_WIDTH = 1024  # the D_v that the published parameter counts are for


def tiny_insert(vlm: Any, variant: str = "released", code: str = "2d") -> PositionalInsert:
    torch.manual_seed(0)
    return PositionalInsert(PinConfig(*vlm.grid, vlm.feature_dim, variant, code))


@pytest.fixture
def x_v(tiny_vlm: Any) -> Tensor:
    rows, columns = tiny_vlm.grid
    return torch.randn(2, rows * columns, tiny_vlm.feature_dim, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(("variant", "count"), [("released", 1_217_280), ("split", 1_199_520), ("gated", 1_158_400)])
def test_as_many_parameters_as_published(variant: str, count: int) -> None:
    """PIN-1."""
    module = PositionalInsert(PinConfig(16, 16, PUBLISHED_WIDTH, variant))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == count
    assert 1_140_000 <= count <= 1_260_000


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("code", CODES)
def test_one_vector_a_cell_and_zero_at_the_start(variant: str, code: str) -> None:
    """PIN-2: pi depends on neither image nor text, because nothing is passed to it."""
    pi = PositionalInsert(PinConfig(3, 5, 12, variant, code))()
    assert pi.shape == (15, 12) and pi.dtype == torch.float32
    assert not pi.any()


def test_an_untrained_insert_changes_no_bit(tiny_vlm: Any, x_v: Tensor) -> None:
    module = tiny_insert(tiny_vlm)
    before = tiny_vlm.tokens(x_v)
    with tiny_vlm.seam("features", lambda x: x + module()):
        assert torch.equal(tiny_vlm.tokens(x_v), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter_and_the_model_stays_frozen(tiny_vlm: Any, x_v: Tensor, variant: str) -> None:
    """PIN-3, and the second half of PIN-1: steps of training through the frozen model, which stays as it was."""
    module = tiny_insert(tiny_vlm, variant)
    torch.nn.init.normal_(module.layers[-1].weight, std=0.02)  # at zero, nothing before the last layer learns
    frozen = [p.clone() for p in tiny_vlm.parameters()]
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    batch = [[Branch((6,), (7, 8))], [Branch((9, 10), (11,)), Branch((12,), (13,))]]
    for _ in range(2):
        with tiny_vlm.seam("features", lambda x: x + module()):
            prefix = tiny_vlm.prefix(x_v)
        tiny_vlm.loss(prefix, batch)[0].backward()
        for name, p in module.named_parameters():
            assert p.grad is not None and p.grad.abs().sum() > 0, name
        optimiser.step()
        optimiser.zero_grad()
    for p, was in zip(tiny_vlm.parameters(), frozen, strict=True):
        assert not p.requires_grad and p.grad is None and torch.equal(p, was)


def test_the_published_code() -> None:
    rows, columns, width = 4, 3, 64
    got = table(PinConfig(rows, columns, 8, code="1d"))
    for i in range(rows * columns):
        for k in range(width // 2):
            angle = i / 10000 ** (2 * k / width)
            assert got[i, 2 * k] == pytest.approx(math.sin(angle), abs=1e-5)
            assert got[i, 2 * k + 1] == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_code_of_two_axes_keeps_rows_and_columns_apart() -> None:
    code = table(PinConfig(4, 3, 8, code="2d")).reshape(4, 3, 64)
    assert (code[:, :, :32] == code[:, :1, :32]).all()  # the first half tells the row only,
    assert (code[:, :, 32:] == code[:1, :, 32:]).all()  # the second the column only,
    assert len({tuple(cell) for cell in code.reshape(-1, 64).tolist()}) == 12  # and together they tell every cell


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "swiglu"},
        {"code": "3d"},
        {"codec": "inches"},
        {"codec": ["00-99"]},
        {"rows": 0},
        {"rows": "many"},
        {"absent_scale": "steep"},
        {"absent_shift": None},
        {"colour": "red"},
    ],
)
def test_settings_from_a_file_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(AdapterError):
        PinConfig.from_dict({"rows": 3, "columns": 3, "feature_dim": 8, **wrong})


def test_settings_come_back_and_missing_ones_are_named() -> None:
    config = PinConfig(3, 4, 8, "gated", "2d", codec="00-99", absent_scale=2.0, absent_shift=-1.5)
    assert PinConfig.from_dict(config.to_dict()) == config
    with pytest.raises(AdapterError, match="feature_dim"):
        PinConfig.from_dict({"rows": 3, "columns": 4})
