"""Every form of box that models are known to write, and what is none."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.boxforms import CONVENTIONS, PIXELS, THOUSANDTHS, Convention, written

# What a model wrote about a picture of 1000 x 500 pixels, the convention of its bare numbers, form, box in pixels.
KNOWN = {
    "[100, 50, 300, 200]": (PIXELS, "list", [100, 50, 300, 200]),
    "The cat is at [100,50,300,200].": (PIXELS, "list", [100, 50, 300, 200]),
    "(100, 50, 300, 200)": (PIXELS, "list", [100, 50, 300, 200]),
    "[[100, 50, 300, 200]]": (THOUSANDTHS, "list", [100, 25, 300, 100]),
    "[0.100, 0.100, 0.300, 0.400]": (PIXELS, "list", [100, 50, 300, 200]),  # LLaVA, Shikra
    "[.1, .1, .3, .4]": (PIXELS, "list", [100, 50, 300, 200]),
    "[50, 100, 200, 300]": (CONVENTIONS["0-1000-y-first"], "list", [100, 25, 300, 100]),
    "[10, 10, 30, 40]": (CONVENTIONS["0-100"], "list", [100, 50, 300, 200]),
    "[100, 50,\n 300, 200,]": (PIXELS, "list", [100, 50, 300, 200]),
    "[100, 50, 300, 200, 400]": (PIXELS, None, None),
    '```json\n[\n  {"bbox_2d": [100, 50, 300, 200], "label": "cat"}\n]\n```': (PIXELS, "list", [100, 50, 300, 200]),
    '{"bbox_2d": [100, 50, 300, 200], "label": "ca': (PIXELS, "list", [100, 50, 300, 200]),  # cut off
    '{"bbox": ["100", "50", "300", "200"]}': (PIXELS, "list", [100, 50, 300, 200]),
    '{"box_2d": [50, 100, 200, 300]}': (CONVENTIONS["0-1000-y-first"], "box_2d", [100, 25, 300, 100]),  # Gemini
    '{"x_min": 100, "y_min": 50, "x_max": 300, "y_max": 200}': (PIXELS, "named", [100, 50, 300, 200]),
    '{"x1": 100, "y1": 50, "x2": 300, "y2": 200}': (PIXELS, "named", [100, 50, 300, 200]),
    '{"x0": 0.1, "y0": 0.1, "x1": 0.3, "y1": 0.4}': (PIXELS, "named", [100, 50, 300, 200]),
    '{"x": 100, "y": 50, "width": 200, "height": 150}': (PIXELS, "named", [100, 50, 300, 200]),
    '{"ymin": 100, "xmin": 100, "ymax": 400, "xmax": 300}': (
        CONVENTIONS["0-1000-y-first"],  # names are believed, whatever comes first
        "named",
        [100, 50, 300, 200],
    ),
    "left: 100px, top: 50px, right: 300px, bottom: 200px": (PIXELS, "named", [100, 50, 300, 200]),
    "x=100, y=50, w=200, h=150": (PIXELS, "named", [100, 50, 300, 200]),
    "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(300,400)<|box_end|>": (
        PIXELS,
        "marked",
        [100, 50, 300, 200],
    ),
    "<ref>cat</ref><box>[[100, 100, 300, 400]]</box>": (PIXELS, "marked", [100, 50, 300, 200]),  # InternVL
    "<|ref|>cat<|/ref|><|det|>[[100, 100, 300, 400]]<|/det|>": (PIXELS, "marked", [100, 50, 300, 200]),
    "<box>[[0.1, 0.1, 0.3, 0.4]]</box>": (PIXELS, "marked", [100, 50, 300, 200]),
    "cat(100,100),(300,400)": (THOUSANDTHS, "corners", [100, 50, 300, 200]),  # Qwen2-VL, its markers dropped
    "from (100, 50) to (300, 200)": (PIXELS, "corners", [100, 50, 300, 200]),
    "[[100, 50], [300, 200]]": (PIXELS, "corners", [100, 50, 300, 200]),
    "<loc0512><loc0256><loc1023><loc0512> cat": (PIXELS, "loc0000", [250, 250, 500, 499.51171875]),
    "cat<loc_99><loc_199><loc_299><loc_399>": (PIXELS, "loc_0", [99.5, 99.75, 299.5, 199.75]),
    "<object><patch_index_0033><patch_index_0099></object>": (
        PIXELS,
        "patch_index",
        [46.875, 23.4375, 109.375, 54.6875],
    ),
    "<patch_index_0033><patch_index_0035>": (PIXELS, "patch_index", [31.25, 15.625, 125, 31.25]),
    " 100, 50, 300, 200 ": (PIXELS, "numbers", [100, 50, 300, 200]),
    "100 50 300 200.": (PIXELS, "numbers", [100, 50, 300, 200]),
    "[900, 50, 1300, 200]": (PIXELS, "list", [900, 50, 1000, 200]),  # cut to the picture
    "x: 10%, y: 10%, width: 20%, height: 30%": (PIXELS, "named", [100, 50, 300, 200]),
    "x_min=10 %, y_min=10 %, x_max=30 %, y_max=40 %": (THOUSANDTHS, "named", [100, 50, 300, 200]),
    "[10%, 10%, 30%, 40%]": (THOUSANDTHS, "list", [100, 50, 300, 200]),
    '["10%", "10%", "30%", "40%"]': (PIXELS, "list", [100, 50, 300, 200]),
    "[10, 10, 30, 40]%": (PIXELS, "list", [100, 50, 300, 200]),
    "[0.5%, 0.5%, 1%, 1%]": (PIXELS, "list", [5, 2.5, 10, 5]),  # no fractions
    "[10%, 10%, 40%, 30%]": (CONVENTIONS["0-1000-y-first"], "list", [100, 50, 300, 200]),
    "from (10%, 10%) to (30%, 40%)": (PIXELS, "corners", [100, 50, 300, 200]),
    "<box>10% 10% 30% 40%</box>": (PIXELS, "marked", [100, 50, 300, 200]),
    "10 percent, 10 percent, 30 per cent, 40 per cent": (PIXELS, "numbers", [100, 50, 300, 200]),
    "[10%, 10%, 300, 200]": (PIXELS, None, None),  # nothing says what a mixture means
    "The box is 100, 50, 300, 200.": (PIXELS, "numbers", [100, 50, 300, 200]),
    "100, 50, 300 and 200": (PIXELS, "numbers", [100, 50, 300, 200]),
    "bbox: 100 50 300 200": (PIXELS, "numbers", [100, 50, 300, 200]),
    "100, 50, 300, 200, 400": (PIXELS, None, None),
    "[100, 50, 300, 200": (PIXELS, None, None),  # cut off, maybe in the midst of a number
    "[100 50 300 200]": (PIXELS, "list", [100, 50, 300, 200]),
    "<box>0.1 0.1 0.3 0.4</box>": (PIXELS, "marked", [100, 50, 300, 200]),
    "top-left (100, 50), bottom-right (300, 200)": (PIXELS, "corners", [100, 50, 300, 200]),
    "Upper left: 100, 50; lower right: 300, 200.": (PIXELS, "corners", [100, 50, 300, 200]),
    '{"top_left": [100, 50], "bottom_right": [300, 200]}': (PIXELS, "corners", [100, 50, 300, 200]),
    "A cat at (100, 50), and a dog on its right at (300, 200).": (PIXELS, None, None),  # two points
    "x_min is 100, y_min is 50, x_max is 300, y_max is 200": (PIXELS, "named", [100, 50, 300, 200]),
    "- **x_min**: 100\n- **y_min**: 50\n- **x_max**: 300\n- **y_max**: 200": (PIXELS, "named", [100, 50, 300, 200]),
    "**x_min:** 100\n**y_min:** 50\n**x_max:** 300\n**y_max:** 200": (PIXELS, "named", [100, 50, 300, 200]),
    "* `x_min`: 100\n* `y_min`: 50\n* `x_max`: 300\n* `y_max`: 200": (PIXELS, "named", [100, 50, 300, 200]),
    "x_min ≈ 100, y_min ≈ 50, x_max ≈ 300, y_max ≈ 200": (PIXELS, "named", [100, 50, 300, 200]),
    "x_min = ~100, y_min = ~50, x_max: ~300, y_max: ≈200": (PIXELS, "named", [100, 50, 300, 200]),
    "[~100, ~50, ~300, ~200]": (PIXELS, "list", [100, 50, 300, 200]),
    "[**100**, **50**, **300**, **200**]": (PIXELS, "list", [100, 50, 300, 200]),
    "**Top-left corner:** (100, 50)\n**Bottom-right corner:** (300, 200)": (PIXELS, "corners", [100, 50, 300, 200]),
    "Top-left: (x=100, y=50), bottom-right: (x=300, y=200)": (PIXELS, "corners", [100, 50, 300, 200]),
    "Top-left: X: 100, Y: 50; bottom-right: X: 300, Y: 200": (PIXELS, "corners", [100, 50, 300, 200]),
    "A cat at (x=100, y=50), and a dog at (x=300, y=200).": (PIXELS, None, None),  # two points
    "640*480 and 1920 * 1080": (PIXELS, None, None),  # two sizes
    "[0,0,0,0] then [100,50,300,200]": (PIXELS, "list", [100, 50, 300, 200]),
    "x1: 0, y1: 0, x2: 0, y2: 0; no, x1: 100, y1: 50, x2: 300, y2: 200": (PIXELS, "named", [100, 50, 300, 200]),
    "[x_min, y_min, x_max, y_max]": (PIXELS, None, None),
    "2 cats, 1 dog, 4 mice and 3 birds": (PIXELS, None, None),
    "[100, 50, 300": (PIXELS, None, None),
    "": (PIXELS, None, None),
}


@pytest.mark.parametrize("text", KNOWN)
def test_forms(text: str) -> None:
    convention, form, box = KNOWN[text]
    found = written(text)
    assert (found and found.form) == form
    if found is not None:
        np.testing.assert_allclose(found.meaning(convention).box(found.numbers, 1000, 500), box)


@pytest.mark.parametrize(
    "text",
    [
        '{"x_min": 300, "y_min": 50, "x_max": 100, "y_max": 200}',  # corners not in order
        '{"x": 100, "y": 50, "width": 0, "height": 9}',
        "[1100, 50, 1300, 200]",  # beside the picture
        f"[0, 0, {'9' * 400}, 5]",  # no finite number
    ],
)
def test_numbers_that_are_no_box(text: str) -> None:
    found = written(text)
    assert found is None or found.meaning(PIXELS).box(found.numbers, 1000, 500) is None


def test_conventions_by_name() -> None:
    assert list(CONVENTIONS) == ["pixels", "0-1", "0-100", "0-1000", "0-1000-y-first"]
    assert all(str(convention) == name for name, convention in CONVENTIONS.items())


edges = st.tuples(st.integers(0, 999), st.integers(1, 1000)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(edges, edges, st.sampled_from(list(CONVENTIONS.values())), st.integers(1, 2000), st.integers(1, 2000))
def test_what_is_written_by_a_convention_is_read_by_it(
    xs: list[int], ys: list[int], convention: Convention, width: int, height: int
) -> None:
    """Against the slow way: each edge as a share of its side."""
    unit = convention.unit or 1
    shares = [xs[0] / 1000, ys[0] / 1000, xs[1] / 1000, ys[1] / 1000]
    numbers = [s * (unit if convention.unit else side) for s, side in zip(shares, [width, height] * 2, strict=True)]
    order = [1, 0, 3, 2] if convention.y_first else [0, 1, 2, 3]
    box = convention.box(np.array([numbers[i] for i in order]), width, height)
    assert box is not None
    np.testing.assert_allclose(box, np.array(shares) * [width, height, width, height], atol=1e-9)


MARKDOWN = ("*", "9*", "9 * ", "`", "=~", "[1,2,3,4, ", "x=1, y=2 LOWER ", "(x=1, y=2) ")


@pytest.mark.parametrize(
    "piece", ["9", "1 ", "1,2 ", "[1 ", "(1, 2)", "<box>1 ] ", "1, 2 lower ", "x is 1%", *MARKDOWN]
)
def test_a_long_text_is_read_at_once(piece: str) -> None:
    """It takes a tenth of a second; an expression that goes back and forth takes half a minute."""
    start = time.perf_counter()
    written(piece * 20_000)
    assert time.perf_counter() - start < 5


@given(st.text(st.sampled_from("[](){}<>,.:=-%\"' 0123456789xyminbox_loc|patch\n*`~≈"), max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    found = written(text)
    if found is not None:
        box = found.meaning(THOUSANDTHS).box(found.numbers, 640, 480)
        assert box is None or (0 <= box[0] < box[2] <= 640 and 0 <= box[1] < box[3] <= 480)
