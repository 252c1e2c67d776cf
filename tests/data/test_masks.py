"""Masks: what each way of writing one means, and that no annotation can ask for more than its image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wherein.data import Mask, read_coco, read_pairs
from wherein.errors import InputError

RECTANGLE = [1, 1, 4, 1, 4, 3, 1, 3]  # columns 1, 2, 3 of rows 1, 2
RUNS = {"size": [2, 3], "counts": [1, 2, 3]}


def decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    mask = Mask(segmentation, "a.json, annotations[7]").decode(height, width)
    assert mask.dtype == np.bool_ and mask.shape == (height, width)
    return mask


def test_polygons_are_filled_and_joined() -> None:
    pytest.importorskip("pycocotools")
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:3, 1:4] = True
    assert (decode([RECTANGLE], 6, 8) == expected).all()
    expected[2:5, 3:8] = True
    assert (decode([RECTANGLE, [3.0, 2.0, 8, 2, 8, 5, 3, 5]], 6, 8) == expected).all()


def test_what_hangs_over_the_image_is_cut_off() -> None:
    pytest.importorskip("pycocotools")
    mask = decode([[-5, -4, 3, -4, 3, 2, -5, 2]], 6, 8)
    assert mask[:2, :3].all() and mask.sum() == 6


@pytest.mark.parametrize("extra", [[], [1, 2], [1, 2, 3, 4]])
def test_a_polygon_without_area_encloses_nothing(extra: list[float]) -> None:
    """Four numbers are a box to pycocotools, and a list whose first polygon has four numbers a list of boxes."""
    pytest.importorskip("pycocotools")
    assert not decode([extra], 6, 8).any()
    assert decode([extra, RECTANGLE], 6, 8).sum() == decode([RECTANGLE, extra], 6, 8).sum() == 6


def test_run_lengths_go_down_the_columns() -> None:
    assert decode(RUNS, 2, 3).tolist() == [[False, True, False], [True, False, False]]
    assert decode([RUNS, {"size": [2, 3], "counts": [5, 1]}], 2, 3).tolist() == [
        [False, True, False],
        [True, False, True],
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_text_is_read_as_pycocotools_reads_it(seed: int, height: int, width: int, share: float) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((height, width)) < share
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (decode({"size": [height, width], "counts": encoded["counts"].decode()}, height, width) == mask).all()


def test_long_runs_in_text() -> None:
    """Runs of several characters, and of each sign of the difference to the one two before."""
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((700, 900), dtype=bool)
    mask[30:, 100:300], mask[:20, 300:], mask[500:510, 800:] = True, True, True
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert (decode({"size": [700, 900], "counts": counts}, 700, 900) == mask).all()


NOT_SEGMENTATIONS: list[Any] = [
    "0150",
    7,
    [1, 2, 3, 4, 5, 6],
    [[1, 2, 3, 4, 5]],
    [["1", "2", "3", "4", "5", "6"]],
    [[1, 2, 3, 4, 5, True]],
    [[1, 2, 3, 4, 5, None]],
    [[1, 2, 3, 4, 5, float("nan")]],
    [[1, 2, 3, 4, 5, float("inf")]],
    [[1, 2, 3, 4, 5, 10**400]],
    [[RECTANGLE]],
    {"size": [2, 3]},
    {"counts": [1, 2, 3]},
    {"size": 6, "counts": [6]},
    {"size": [2, 3], "counts": [1, 2, 3.0]},
    {"size": [2, 3], "counts": None},
]


@pytest.mark.parametrize("segmentation", NOT_SEGMENTATIONS)
def test_what_is_no_segmentation_is_told(segmentation: Any) -> None:
    mask = Mask(segmentation, "a.json, annotations[7]")
    for use in (mask.check, lambda: mask.decode(2, 3)):
        with pytest.raises(InputError, match=r"^a.json, annotations\[7\] has segmentation .* but it must be polygons"):
            use()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [3, 2], "counts": [1, 2, 3]}, r"of size \[3, 2\], \[height, width\], but its image has 3 x 2 pixels"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "but its image has 3 x 2"),
        ({"size": [2, 3], "counts": [1, 2, 4]}, "run lengths that do not fill its image of 3 x 2 pixels"),
        ({"size": [2, 3], "counts": []}, "do not fill"),
        ({"size": [2, 3], "counts": [-1, 7]}, "do not fill"),
        ({"size": [2, 3], "counts": [10**30]}, "do not fill"),
        ({"size": [2, 3], "counts": ""}, "do not fill"),
        ({"size": [2, 3], "counts": "7"}, "do not fill"),  # one run too many
        ({"size": [2, 3], "counts": "6\x00"}, "do not fill"),
        ({"size": [2, 3], "counts": "6o"}, "do not fill"),  # cut off within a number: pycocotools reads on in memory
        ({"size": [2, 3], "counts": "6é"}, "do not fill"),
        ({"size": [2, 3], "counts": "O7"}, "do not fill"),  # -1 and 7
        ({"size": [2, 3], "counts": "o" * 10**6}, "do not fill"),  # one number of 5,000,000 bits
    ],
)
def test_run_lengths_for_something_else_are_told(segmentation: Any, message: str) -> None:
    for use in (Mask.check, Mask.decode):
        with pytest.raises(InputError, match=r"^a.json, annotations\[7\] has .*" + message):
            use(Mask(segmentation, "a.json, annotations[7]"), 2, 3)


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([[0, 0, 1e9, 0, 0, 1e9]], "far outside its image of 100 x 80 pixels"),
        ([[1e12, 0, 1e12 + 1, 0, 1e12, 1]], "far outside"),
        ([[0, 0, 5, 0, 5, -81]], "far outside"),
        ([[0, 0, 5, 0, 5, 161]], "far outside"),
        ([[0, 0, 201, 0, 5, 5]], "far outside"),
        ([[0, 0, 99, 79] * 60], "outline of 12000 pixels, but in an image of 100 x 80 pixels it may have 11449"),
        ([[0, 0, 99, 0, 99, 79]] * 50, "outline of 14000 pixels"),
        ([[1, 1] * 12_000], "outline of 12000 pixels"),
    ],
)
def test_polygons_cannot_ask_for_memory(polygons: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pycocotools takes 80 bytes for each pixel of an outline, and overflows on large coordinates: it sees none."""
    coco = pytest.importorskip("pycocotools.mask")
    monkeypatch.setattr(coco, "frPyObjects", lambda *_: pytest.fail("pycocotools was given the polygons"))
    with pytest.raises(InputError, match=r"^a.json, annotations\[7\] has .*" + message):
        Mask(polygons, "a.json, annotations[7]").check(80, 100)
    with pytest.raises(InputError, match=message):
        decode(polygons, 80, 100)


def test_outlines_of_people_are_short_enough() -> None:
    pytest.importorskip("pycocotools")
    angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    star = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (40 + 9 * np.cos(40 * angles))[:, None] + 50
    assert 0.4 < decode([star.ravel().tolist()], 100, 100).mean() < 0.6


def test_polygons_need_the_extra_and_run_lengths_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    mask = Mask([RECTANGLE], "a.json, annotations[7]")
    for use in (mask.check, lambda: mask.decode(6, 8)):
        with pytest.raises(InputError, match=r"annotations\[7\] .*pip install 'wherein\[eval\]'"):
            use()
    assert decode(RUNS, 2, 3).sum() == 2


def coco_file(segmentations: list[Any]) -> dict[str, Any]:
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "segmentation": value, "iscrowd": 0}
        for n, value in enumerate(segmentations)
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}]
    return {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}


def test_coco_masks_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    content = coco_file([[RECTANGLE], RUNS, "nonsense"])  # read, because whoever wants boxes only need not care
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1})
    path.write_text(json.dumps(content))
    (sample,) = read_coco(path, tmp_path)
    masks = [labelled.mask for labelled in sample.objects]
    assert [mask and mask.segmentation for mask in masks] == [[RECTANGLE], RUNS, "nonsense"]
    assert masks[1] is not None and masks[1].decode(2, 3).sum() == 2
    assert masks[2] is not None
    with pytest.raises(InputError, match=r"annotations\.json, annotations\[2\] has segmentation 'nonsense'"):
        masks[2].check()


@pytest.mark.parametrize("nothing", [None, [], [[]], {}])
def test_an_empty_segmentation_is_no_mask(tmp_path: Path, nothing: Any) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco_file([nothing])))
    (sample,) = read_coco(path, tmp_path)
    assert sample.objects[0].mask is None


def test_pairs_may_have_masks(tmp_path: Path) -> None:
    pair = {"file_name": "a.jpg", "phrase": "cat", "bbox": [0, 0, 1, 1]}
    (tmp_path / "pairs.json").write_text(json.dumps([pair, {**pair, "segmentation": RUNS}]))
    (sample,) = read_pairs(tmp_path / "pairs.json", tmp_path)
    first, second = sample.objects
    assert first.mask is None and second.mask is not None and second.mask.segmentation == RUNS
    assert second.mask.where.endswith("pairs.json, pair[1]")
