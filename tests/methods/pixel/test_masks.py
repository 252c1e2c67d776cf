"""Masks: plain SAM until something is learnt."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers as T

from wherein.geometry import Frame
from wherein.methods.pixel.masks import MaskAdapter, draw, full_size
from wherein.methods.pixel.parts import assemble


def plain(tiny: ModuleType) -> tuple[Any, Any]:
    torch.manual_seed(0)
    sam = T.SamModel(tiny.sam_config()).eval()
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    sizes = {"tokens": 4, "extractor_dim": 32, "extractor_out": 24, "lora_rank": 3}
    language_model = T.T5ForConditionalGeneration(tiny.text_config("seq2seq"))
    return sam, assemble(language_model, sam, side=64, **sizes).eval()


def test_pl_8_an_untrained_adapter_is_plain_sam(tiny: ModuleType) -> None:
    sam, model = plain(tiny)
    image = sam.get_image_embeddings(torch.randn(2, 3, 64, 64))
    features = [image.flatten(2).transpose(1, 2)]
    boxes = torch.tensor([[3.0, 4.0, 30.0, 50.0], [20.5, 1.0, 60.0, 33.0]])
    visual, states = torch.randn(2, 4, 32), torch.randn(2, 6, 32)
    labels = torch.tensor([[3, 4, 1, -100, -100, -100], [3, 4, 5, 6, 7, 1]])
    with torch.inference_mode():
        masks, ious = model.draw(features, torch.tensor([0, 1]), boxes, visual, states, labels)
        wanted = sam(image_embeddings=image, input_boxes=boxes[:, None], multimask_output=False)
        assert torch.equal(masks, wanted.pred_masks[:, 0, 0]) and torch.equal(ious, wanted.iou_scores[:, 0, 0])
        assert masks.shape == (2, 16, 16) and masks.std() > 0.01
        model.mask_adapter.alpha.fill_(0.5)
        moved, _ = model.draw(features, torch.tensor([0, 1]), boxes, visual, states, labels)
        assert (moved - masks).abs().amax((1, 2)).min() > 1e-4


def test_the_adapter_does_not_see_what_fills_up() -> None:
    torch.manual_seed(0)
    adapter = MaskAdapter(16, 32, depth=2)
    torch.nn.init.ones_(adapter.alpha)
    visual, states = torch.randn(1, 4, 16), torch.randn(1, 5, 16)
    said = torch.arange(5)[None] < 3
    torch.testing.assert_close(adapter(visual, states, said), adapter(visual, states[:, :3], said[:, :3]))


def test_gradients_of_the_mask_stage(tiny: ModuleType) -> None:
    _, model = plain(tiny)
    model.train_stage("masks")
    torch.manual_seed(1)
    out = model(
        torch.tensor([[5, 6, 1], [7, 8, 9]]),
        pixels=torch.rand(2, 3, 64, 64) * 255,
        tasks="segment",
        boxes=torch.tensor([[4.0, 4.0, 40.0, 30.0], [9.0, 9.0, 50.0, 60.0]]),
        masks=torch.rand(2, 64, 64) > 0.5,
    )
    assert out.drawn.tolist() == [0] and out.skipped == 1 and out.masks.shape == (1, 16, 16)
    out.loss.backward()
    assert out.mask_loss > 0 and model.mask_adapter.alpha.grad.abs() > 0
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith(("point", "mask_ad")))


def test_drawing_boxes_of_several_pictures_is_drawing_each(tiny: ModuleType) -> None:
    _, model = plain(tiny)
    image, boxes = torch.randn(3, 32, 4, 4), torch.tensor([[3.0, 4.0, 30.0, 50.0]]).expand(3, -1)
    with torch.inference_mode():
        together, _ = draw(model.prompt_encoder, model.mask_decoder, image, boxes)
        alone, _ = draw(model.prompt_encoder, model.mask_decoder, image[1:2], boxes[1:2])
    torch.testing.assert_close(together[1], alone[0], atol=1e-5, rtol=1e-5)


def test_full_size() -> None:
    """A mask over the right half of the picture, whose square has a picture of 64 x 32 pixels above its padding."""
    frame = Frame.identity(200, 100).resize(64, 32).pad(0, 0, 0, 32)
    logits = torch.full((16, 16), -5.0)
    logits[:8, 8:] = 5.0
    logits[8:] = 5.0
    mask = full_size(logits, frame)
    assert mask.shape == (100, 200) and mask.dtype == np.bool_
    assert mask[:90, 105:].all() and not mask[:90, :95].any()
