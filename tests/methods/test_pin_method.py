"""PIN bound to a model: one encoding for all phrases, readings of an answer, and its going away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein import methods
from wherein.boxtext import CODECS
from wherein.errors import AdapterError
from wherein.methods import adapter
from wherein.methods.insert import ask
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.methods.reading import read
from wherein.training.adapters import NEVER as NEVER_ASKED
from wherein.training.boxes import RECIPES
from wherein.vlm.decoding import Written

PHRASES = ["the cat", "an old red tractor", "x"]
NEVER, ALWAYS = {"absent_scale": 1.0, "absent_shift": -50.0}, {"absent_scale": 1.0, "absent_shift": 50.0}


@pytest.fixture
def pin(tiny_vlm: Any, save_pin: Callable[..., Path]) -> Pin:
    return Pin(tiny_vlm, save_pin(codec="00-99", **NEVER))


def test_all_phrases_share_one_encoding(pin: Pin, image: NDArray[np.uint8]) -> None:
    already = pin.vlm.encoded  # type: ignore[attr-defined]
    assert len(pin.ground(image, PHRASES)) == len(PHRASES)
    assert pin.vlm.encoded == already + 1  # type: ignore[attr-defined]


def test_a_phrase_is_answered_the_same_in_company(pin: Pin, image: NDArray[np.uint8]) -> None:
    for together in pin.ground(image, PHRASES):
        (alone,) = pin.ground(image, [together.phrase])
        assert alone.answer == together.answer
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_grounding_holds(
    tiny_vlm: Any, save_pin: Callable[..., Path], image: NDArray[np.uint8], codec: str
) -> None:
    height, width = image.shape[:2]
    pin = Pin(tiny_vlm, save_pin(codec=codec, **NEVER))
    with pin.install():
        prefix = pin.vlm.prefix(pin.vlm.features(pin.vlm.prepare([image])[0]))
        written = ask(pin.vlm, pin.insert, prefix, [0] * len(PHRASES), PHRASES)
        readings = [read(answer, CODECS[codec], *tiny_vlm.size) for answer in written]
    for phrase, grounding, reading in zip(PHRASES, pin.ground(image, PHRASES), readings, strict=True):
        assert grounding.phrase == phrase and not grounding.absent and not grounding.invalid
        assert grounding.answer is not None and grounding.expected_box is not None
        written = CODECS[codec].decode(grounding.answer, *tiny_vlm.size)
        np.testing.assert_array_equal(written, reading.written)
        scale = np.array([width, height] * 2) / np.array([*tiny_vlm.size] * 2)
        np.testing.assert_allclose(grounding.boxes, [reading.agreed * scale])
        np.testing.assert_allclose(grounding.expected_box, reading.expected * scale)
        assert (grounding.expected_box >= 0).all() and (grounding.expected_box <= [width, height] * 2).all()
        assert (grounding.expected_box[2:] >= grounding.expected_box[:2]).all()
        assert 0 < grounding.scores[0] <= 1 and grounding.score_kind == "token_probability"


def test_absent_phrases(tiny_vlm: Any, save_pin: Callable[..., Path], image: NDArray[np.uint8]) -> None:
    pin = Pin(tiny_vlm, save_pin(codec="00-99", **ALWAYS))
    for grounding in pin.ground(image, PHRASES):
        assert grounding.absent and len(grounding.boxes) == len(grounding.scores) == 0
        assert grounding.absent_probability == pytest.approx(1) and grounding.answer == "not"
        assert grounding.expected_box is None
    for grounding in pin.ground(image, PHRASES, absent=False):
        assert not grounding.absent and len(grounding.boxes) == 1


def test_an_insert_that_was_never_asked_for_the_absent_says_nothing_of_it(
    tiny_vlm: Any, save_pin: Callable[..., Path], image: NDArray[np.uint8]
) -> None:
    scale, shift, _ = NEVER_ASKED
    pin = Pin(tiny_vlm, save_pin(codec="00-99", absent_scale=scale, absent_shift=shift))
    for grounding in pin.ground(image, PHRASES):
        assert grounding.absent_probability is None and not grounding.absent and len(grounding.boxes) == 1


@pytest.mark.parametrize(
    ("scale", "refusal", "wanted"),
    [
        (1.0, 0.3, 1 / (1 + 7 / 3)),
        (2.0, 0.3, 1 / (1 + (7 / 3) ** 2)),
        (1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (1e4, 0.3, 0.0),  # what a calibration gives where present and absent phrases never meet
        (1e4, 0.7, 1.0),
    ],
)
def test_the_absent_probability_is_calibrated(
    tiny_vlm: Any, save_pin: Callable[..., Path], scale: float, refusal: float, wanted: float
) -> None:
    pin = Pin(tiny_vlm, save_pin(codec="00-99", absent_scale=scale, absent_shift=0.0))
    assert pin.absent_probability(Written(refusal=refusal)) == pytest.approx(wanted, abs=1e-6)


def test_outside_the_block_the_model_is_the_base(pin: Pin, image: NDArray[np.uint8]) -> None:
    """PIN-2: bit for bit, also after an error inside."""
    x_v = pin.vlm.features(pin.vlm.prepare([image])[0])
    before = pin.vlm.tokens(x_v)
    with pin.install():
        assert not torch.equal(pin.vlm.tokens(x_v), before)
    with pytest.raises(KeyError), pin.install():
        raise KeyError
    pin.ground(image, PHRASES)
    assert torch.equal(pin.vlm.tokens(x_v), before)


@pytest.fixture(params=["features", "connector_tokens"])
def two(request: pytest.FixtureRequest, tiny_vlm: Any, save_pin: Callable[..., Path], tmp_path: Path) -> list[Pin]:
    """Two inserts for one model: the first at `features`, the second at either seam."""
    config = PinConfig(*tiny_vlm.grid, tiny_vlm.width(request.param), codec="00-99", seam=request.param, **NEVER)
    insert = PositionalInsert(config)
    torch.nn.init.normal_(insert.layers[-1].weight, std=0.2)
    second = adapter.save(tmp_path / "second", "pin", tiny_vlm, config.to_dict(), insert.state_dict(), "")
    return [Pin(tiny_vlm, save_pin(codec="00-99", **NEVER)), Pin(tiny_vlm, second)]


def test_two_adapters_take_turns(two: list[Pin], image: NDArray[np.uint8]) -> None:
    """Each answers as if the other were not there; outside, the model is the base, bit for bit."""
    vlm = two[0].vlm
    x_v = vlm.features(vlm.prepare([image])[0])
    base = vlm.prefix(x_v).last.clone()
    alone = [[grounding.to_dict() for grounding in pin.ground(image, PHRASES)] for pin in two]
    assert alone[0] != alone[1]
    for turn in (0, 1, 1, 0, 1):
        assert [grounding.to_dict() for grounding in two[turn].ground(image, PHRASES)] == alone[turn]
        assert torch.equal(vlm.prefix(x_v).last, base)


def test_one_adapter_inside_the_other(two: list[Pin], image: NDArray[np.uint8]) -> None:
    """Both are added; each goes with its own block, whichever way it ends."""
    first, second = two
    vlm: Any = first.vlm
    x_v = vlm.features(vlm.prepare([image])[0])
    base, a, b = vlm.tokens(x_v), first.pi(), second.pi()
    only = vlm.connector(x_v + a)
    both = vlm.connector(x_v + a + b) if second.config.seam == "features" else only + b
    with first.install():
        with second.install():
            assert torch.equal(vlm.tokens(x_v), both)
        assert torch.equal(vlm.tokens(x_v), only)
        with pytest.raises(KeyError), second.install():
            raise KeyError
        second.ground(image, PHRASES)
        assert torch.equal(vlm.tokens(x_v), only)
    assert torch.equal(vlm.tokens(x_v), base)


def test_auto_is_what_the_adapter_is_for(tiny_vlm: Any, save_pin: Callable[..., Path]) -> None:
    folder = save_pin()
    assert methods.create("auto", tiny_vlm, folder).name == "pin" != methods.create("auto", tiny_vlm).name
    assert methods.takes_adapter("auto") and not methods.takes_adapter("centre")


@pytest.mark.parametrize("method", ["telepathy", "centre"])
def test_auto_and_an_adapter_for_no_method_of_ours(tiny_vlm: Any, save_pin: Callable[..., Path], method: str) -> None:
    folder = save_pin()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"pin"', f'"{method}"'))
    with pytest.raises(AdapterError, match=f"'{method}'"):
        methods.create("auto", tiny_vlm, folder)


def test_another_grid_is_refused(tiny_vlm: Any, save_pin: Callable[..., Path]) -> None:
    folder = save_pin()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"rows": 3', '"rows": 4'))
    with pytest.raises(AdapterError, match="another grid"):
        Pin(tiny_vlm, folder)


def test_weights_of_another_variant_are_refused(tiny_vlm: Any, save_pin: Callable[..., Path]) -> None:
    folder = save_pin()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"released"', '"gated"'))
    with pytest.raises(AdapterError, match="do not fit"):
        Pin(tiny_vlm, folder)


@pytest.mark.parametrize("name", ["tiny", "", ".", "..", "/", "default/.."])
def test_a_model_without_a_built_in_pin_says_so(tiny_vlm: Any, name: str) -> None:
    """Whatever the model is called: its name may be the path of a folder."""
    with pytest.raises(AdapterError, match="--adapter"):
        Pin(type(tiny_vlm)(name=name))


@pytest.mark.parametrize(
    ("preset", "variant"), [("paper", "released"), ("released", "released"), ("split", "split"), ("gated", "gated")]
)
def test_a_preset_says_how_the_network_is_read(tiny_vlm: Any, preset: str, variant: str) -> None:
    insert = Pin.begin(tiny_vlm, preset)
    assert insert.config.variant == variant and (insert.config.code, insert.config.seam) == ("1d", "features")
    assert not insert().any()  # untrained, it leaves the model as it was


def test_every_preset_has_a_recipe() -> None:
    assert set(Pin.rates) == set(RECIPES)
