"""Segmenters: what they are asked, what they answer, and one sentence where that does not work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from wherein.errors import ImageError, InputError
from wherein.segment import PROMPTS, Segmenter
from wherein.segment.segmenter import AT_ONCE, SURE, logits

Picture = NDArray[np.uint8]
Load = Callable[[str], Segmenter]
SIDE = 64
LAYOUTS = ("sam", "sam2", "sam2_video")
BOXES = np.array([[10.0, 5.0, 60.0, 30.0], [30.5, 0.0, 100.0, 40.0], [2.0, 20.0, 25.0, 39.0]])


@pytest.fixture
def heat() -> NDArray[np.float32]:
    """float32[4, 10] over 40 x 100 pixels: cells of 10 pixels, one hot cell in the first two boxes, one in the last."""
    cells = np.linspace(0, 0.1, 40, dtype=np.float32).reshape(4, 10)
    cells[1, 4], cells[3, 1] = 1.0, 0.3
    return cells


@contextmanager
def spied(segmenter: Segmenter) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """What the model is given and what it answers, call by call."""
    calls: list[tuple[dict[str, Any], Any]] = []
    hook = segmenter.model.register_forward_hook(lambda _, __, given, out: calls.append((given, out)), with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


@contextmanager
def encodings(segmenter: Segmenter) -> Iterator[list[int]]:
    """How many images went through the image encoder, run by run."""
    runs: list[int] = []
    hook = segmenter.model.vision_encoder.register_forward_pre_hook(lambda _, given: runs.append(len(given[0])))
    try:
        yield runs
    finally:
        hook.remove()


def asked(segmenter: Segmenter, *arguments: Any) -> tuple[dict[str, Any], Any]:
    """What the model is given for one call of `masks`, and its mask logits float32[K, h, w]."""
    with spied(segmenter) as calls:
        segmenter.masks(*arguments)
    ((given, outputs),) = calls
    return given, outputs.pred_masks[:, 0, 0]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_masks_are_of_the_image(segmenter: Segmenter, picture: Picture, heat: Any, prompt: str) -> None:
    masks, ious = segmenter.masks(picture, BOXES, heat, prompt)
    assert masks.shape == (3, 40, 100) and masks.dtype == np.bool_
    assert ious.shape == (3,) and ious.dtype == np.float64
    assert 0.02 < masks.mean() < 0.98  # else the comparisons below compare nothing
    tall, _ = segmenter.masks(np.ascontiguousarray(picture.transpose(1, 0, 2)), BOXES[:, [1, 0, 3, 2]], heat.T, prompt)
    assert tall.shape == (3, 100, 40)


@pytest.mark.parametrize(("layout", "kind"), [("sam", "sam"), ("sam2", "sam2"), ("sam2_video", "sam2")])
def test_the_kind(segmenters: Load, layout: str, kind: str) -> None:
    segmenter = segmenters(layout)
    assert segmenter.kind == kind
    assert not segmenter.model.training and all(not weight.requires_grad for weight in segmenter.model.parameters())


def test_a_model_for_videos_is_the_same_on_one_image(segmenters: Load, picture: Picture, heat: Any) -> None:
    """That is how SAM 2 is published; the two have the same weights here."""
    (one, ious), (two, same) = (segmenters(layout).masks(picture, BOXES, heat, "box+mask") for layout in LAYOUTS[1:])
    assert np.array_equal(one, two) and np.array_equal(ious, same)


@pytest.mark.parametrize("prompt", ["box", "box+points"])
def test_sam_is_the_plain_pipeline(
    segmenters: Load, folders: Callable[[str], Path], picture: Picture, heat: Any, prompt: str
) -> None:
    """The processor's boxes and points, the image and all boxes in one forward pass, the processor's masks."""
    folder = folders("sam")
    processor, model = T.SamProcessor.from_pretrained(folder), T.SamModel.from_pretrained(folder).eval()
    prompts: dict[str, Any] = {"input_boxes": [BOXES.tolist()]}
    if prompt == "box+points":  # the middles of the hot cells; the last box cuts its cell
        prompts |= {"input_points": [[[[45, 15]], [[45, 15]], [[15, 34.5]]]], "input_labels": [[[1], [1], [1]]]}
    inputs = processor(Image.fromarray(picture), **prompts, return_tensors="pt")
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    with torch.no_grad():
        outputs = model(**inputs, multimask_output=False)
    (expected,) = processor.post_process_masks(outputs.pred_masks, *sizes)
    masks, ious = segmenters("sam").masks(picture, BOXES, heat, prompt)
    low = asked(segmenters("sam"), picture, BOXES, heat, prompt)[1]
    assert torch.allclose(low, outputs.pred_masks[0, :, 0], atol=1e-5)
    assert np.array_equal(masks, expected[:, 0].numpy())
    assert np.allclose(ious, outputs.iou_scores[0, :, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("layout", ["sam2", "sam2_video"])
def test_sam2_is_its_plain_pipeline(
    segmenters: Load, folders: Callable[[str], Path], picture: Picture, layout: str
) -> None:
    """The same, the image processor written out, which transformers has on torchvision only."""
    model = T.Sam2Model.from_pretrained(folders(layout)).eval()
    squashed = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64) / 255
    pixels = torch.tensor((squashed - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]).float().permute(2, 0, 1)[None]
    boxes = torch.tensor(BOXES * np.tile([SIDE / 100, SIDE / 40], 2)).float()[None]
    with torch.no_grad():
        outputs = model(pixel_values=pixels, input_boxes=boxes, multimask_output=False)
    expected = functional.interpolate(outputs.pred_masks[0], (40, 100), mode="bilinear")[:, 0] > 0
    masks, ious = segmenters(layout).masks(picture, BOXES)
    low = asked(segmenters(layout), picture, BOXES)[1]
    assert torch.allclose(low, outputs.pred_masks[0, :, 0], atol=1e-4)
    assert (masks != expected.numpy()).mean() < 1e-3
    assert np.allclose(ious, outputs.iou_scores[0, :, 0].numpy(), atol=1e-5)


def test_the_coordinates_are_those_of_sam2s_processor(segmenters: Load, picture: Picture, heat: Any) -> None:
    segmenter = segmenters("sam2")
    processor = T.Sam2Processor(segmenter._images)
    points: Any = [[[[45.0, 15.0]], [[45.0, 15.0]], [[15.0, 34.5]]]]
    expected = processor(
        original_sizes=[[40, 100]], input_boxes=[BOXES.tolist()], input_points=points, return_tensors="pt"
    )
    given, _ = asked(segmenter, picture, BOXES, heat, "box+points")
    assert torch.allclose(given["input_boxes"][:, 0], expected["input_boxes"][0])
    assert torch.allclose(given["input_points"][:, 0], expected["input_points"][0])
    assert given["input_labels"].tolist() == [[[1]]] * 3


def test_the_encoder_runs_once_for_all_boxes(segmenter: Segmenter, picture: Picture) -> None:
    many = np.random.default_rng(0).uniform(0, 40, (2 * AT_ONCE + 3, 4))
    many[:, 2:] += many[:, :2] + 5
    with encodings(segmenter) as runs:
        masks, ious = segmenter.masks(picture, many)
    assert runs == [1]
    alone = [segmenter.masks(picture, box[None]) for box in many]
    assert (masks != np.concatenate([mask for mask, _ in alone])).mean() < 1e-3
    assert np.allclose(ious, np.concatenate([iou for _, iou in alone]), atol=1e-5)
    assert len(np.unique(ious.round(6))) > AT_ONCE  # each box has an answer of its own


def test_no_box_runs_nothing(segmenter: Segmenter, picture: Picture) -> None:
    with encodings(segmenter) as runs, spied(segmenter) as calls:
        masks, ious = segmenter.masks(picture, np.empty((0, 4)))
    assert masks.shape == (0, 40, 100) and masks.dtype == np.bool_ and ious.shape == (0,)
    assert runs == [] and calls == []


def test_each_prompt_reaches_the_model(segmenter: Segmenter, picture: Picture, heat: Any) -> None:
    given, box = asked(segmenter, picture, BOXES)
    assert {"input_points", "input_masks"}.isdisjoint(given) and given["multimask_output"] is False
    _, moved = asked(segmenter, picture, BOXES + [0, 0, -6, -6])
    given, points = asked(segmenter, picture, BOXES, heat, "box+points")
    assert "input_masks" not in given
    _, other_points = asked(segmenter, picture, BOXES, heat[::-1].copy(), "box+points")
    given, mask = asked(segmenter, picture, BOXES, heat, "box+mask")
    assert "input_points" not in given
    _, other_mask = asked(segmenter, picture, BOXES, heat[:, ::-1].copy(), "box+mask")
    for one, two in [(box, moved), (box, points), (box, mask), (points, other_points), (mask, other_mask)]:
        assert (one - two).abs().amax((1, 2)).min() > 1e-3  # of each of the boxes
    assert torch.equal(asked(segmenter, picture, BOXES, heat)[1], box)  # the heat map is not for this prompt


@pytest.mark.parametrize(("layout", "shown"), [("sam", (26, 64)), ("sam2", (64, 64))])
def test_the_mask_prompt_lies_where_the_picture_lies(
    segmenters: Load, picture: Picture, heat: Any, layout: str, shown: tuple[int, int]
) -> None:
    """Four times the grid of the encoder, over the model's square, of which a picture fills only its part."""
    given, _ = asked(segmenters(layout), picture, np.array([[0, 0, 100, 40], BOXES[0]]), heat, "box+mask")
    whole, part = given["input_masks"][:, 0]
    assert whole.shape == (16, 16)
    row, column = divmod(int(whole.argmax()), 16)
    assert abs((column + 0.5) * 4 - 45 * SIDE / 100) <= 4 and abs((row + 0.5) * 4 - 15 * shown[0] / 40) <= 4
    below = -(-shown[0] // 4)
    assert (whole[below:] == -SURE).all() and (whole[: below - 1, :8] > -SURE).any()
    x0, y0, x1, y1 = BOXES[0] * np.tile([shown[1] / 100, shown[0] / 40], 2) / 4  # in pixels of the prompt
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert (part[~inside] == -SURE).all() and (part[inside] > -SURE).any()
    middle = slice(int(y0) + 1, int(y1)), slice(int(x0) + 1, int(x1))
    assert torch.equal(part[middle], whole[middle])


def test_logits_of_a_heat_map() -> None:
    heat = np.array([[1, 1, 1], [1, 2, 6]], np.float32)  # mean 2
    expected = np.array([[-SURE] * 3, [-SURE, 0, SURE]])
    assert np.allclose(logits(heat), expected) and logits(heat).dtype == np.float32
    assert np.allclose(logits(heat * 1e-6 + 3e-5), expected, atol=1e-3)
    assert (logits(np.full((3, 4), 0.1, np.float32)) == 0).all()


def test_boxes_are_cut_and_widened(segmenter: Segmenter, picture: Picture, heat: Any) -> None:
    wild = np.array([[-20, -5, 500, 20], [100, 40, 100, 40], [30, 12, 20, 18], [7, 8, 7, 8], [200, 60, 300, 90]])
    tidy = np.array([[0, 0, 100, 20], [99, 39, 100, 40], [30, 12, 31, 18], [7, 8, 8, 9], [99, 39, 100, 40]])
    for prompt in PROMPTS:
        given, _ = asked(segmenter, picture, wild.astype(float), heat, prompt)
        expected, _ = asked(segmenter, picture, tidy.astype(float), heat, prompt)
        prompts = [name for name in given if name.startswith("input_")]
        assert prompts and all(torch.equal(given[name], expected[name]) for name in prompts)
    assert (given["input_boxes"][..., 2:] > given["input_boxes"][..., :2]).all()
    with pytest.raises(InputError, match="finite"):
        segmenter.masks(picture, np.array([[0, 0, np.nan, 5]]))


def test_a_heat_map_may_be_as_fine_as_the_image_or_one_cell(segmenter: Segmenter, picture: Picture) -> None:
    fine = np.zeros((40, 100), np.float32)
    fine[12, 33] = 1
    given, _ = asked(segmenter, picture, BOXES[:1], fine, "box+points")
    scale = given["input_boxes"][0, 0] / torch.tensor(BOXES[0])
    assert torch.allclose(given["input_points"][0, 0, 0] / scale[2:], torch.tensor([33.5, 12.5]).double())
    for prompt in PROMPTS:
        assert segmenter.masks(picture, BOXES, np.ones((1, 1), np.float32), prompt)[0].shape == (3, 40, 100)


def test_an_unusable_prompt_is_one_sentence(segmenter: Segmenter, picture: Picture, heat: Any) -> None:
    with encodings(segmenter) as runs:
        with pytest.raises(InputError, match=r"'points'.*box, box\+points, box\+mask"):
            segmenter.masks(picture, BOXES, heat, "points")
        for prompt in ("box+points", "box+mask"):
            with pytest.raises(InputError, match=r"needs a heat map.*choose the prompt box"):
                segmenter.masks(picture, BOXES, None, prompt)
        for heat in (
            np.zeros((2, 3, 1), np.float32),
            np.zeros((0, 3), np.float32),
            np.full((2, 2), np.nan, np.float32),
        ):
            with pytest.raises(InputError, match="heat map must be finite"):
                segmenter.masks(picture, BOXES, heat, "box+mask")
    assert runs == []


def test_an_image_too_thin_for_sam_is_one_sentence(segmenters: Load) -> None:
    thin = np.zeros((1, 500, 3), np.uint8)
    with pytest.raises(ImageError, match="500 x 1 pixels is too long and thin"):
        segmenters("sam").masks(thin, BOXES)
    assert segmenters("sam2").masks(thin, BOXES)[0].shape == (3, 1, 500)


def test_three_rows_are_no_channels(segmenters: Load) -> None:
    frame = segmenters("sam").encode(np.zeros((3, 30, 3), np.uint8)).frame
    assert (frame.model_width, frame.model_height) == (64, 6)


def test_a_model_that_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(InputError, match=r"llava model.*facebook/sam-vit-base.*facebook/sam2"):
        Segmenter(str(tmp_path), "cpu")


def test_a_missing_segmenter_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"configuration of 'nobody/nothing'.*HF_HUB_OFFLINE"):
        Segmenter("nobody/nothing", "cpu")
    with pytest.raises(InputError, match="configuration of .*model_type"):
        Segmenter(str(tmp_path), "cpu")
    with pytest.raises(InputError, match="No device 'gramophone'"):
        Segmenter("nobody/nothing", "gramophone")


def test_pickled_weights_are_not_read(folders: Callable[[str], Path], segmenters: Load, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folders("sam") / name).read_bytes())
    torch.save(segmenters("sam").model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights"):
        Segmenter(str(tmp_path), "cpu")
