"""A small model learns 32 made-up scenes by heart: captions, the place of each word, and the box of each phrase."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wherein import geometry
from wherein.evaluation.metrics import precision
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.reader import PixelReader, Seen, frame_of

SIDE, SCENES, STEPS = 64, 32, 1000
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "yellow": (240, 220, 40)}


def scenes() -> list[tuple[np.ndarray[Any, Any], list[str], np.ndarray[Any, Any]]]:
    """Images uint8[64, 64, 3] of two coloured boxes, their colours, and where they are, float64[2, 4]."""
    random, made = np.random.default_rng(0), []
    for _ in range(SCENES):
        image = np.full((SIDE, SIDE, 3), 128, np.uint8)
        names = [str(name) for name in random.choice(list(COLOURS), 2, replace=False)]
        boxes = []
        for half, name in enumerate(names):  # one on each side, so that neither covers the other
            width, height = random.integers(14, 30, 2)
            x, y = 32 * half + random.integers(0, 32 - width + 1), random.integers(0, SIDE - height + 1)
            image[y : y + height, x : x + width] = COLOURS[name]
            boxes.append([x, y, x + width, y + height])
        made.append((image, names, np.array(boxes, np.float64)))
    return made


def batch(reader: PixelReader, made: Any, features: list[Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All traces, and all phrases: two for each image."""
    captions = reader.labels([f"{names[0]} and {names[1]}" for _, names, _ in made])
    points = torch.zeros(*captions.shape, 2, 2)
    for row, (_, _, boxes) in enumerate(made):  # colour, "and", colour, end: a token each
        for place, box in ((0, boxes[0]), (2, boxes[1])):
            points[row, place] = torch.from_numpy(box).float().view(2, 2)
    phrases = [name for _, names, _ in made for name in names]
    trace = {"labels": captions, "points": points, "features": features, "tasks": "trace"}
    trace["text"] = reader.texts(["A long image caption: "] * SCENES)
    refer = {"labels": reader.labels(phrases), "features": features, "tasks": "refer"}
    refer["rows"] = torch.arange(SCENES).repeat_interleave(2)
    refer["boxes"] = torch.from_numpy(np.concatenate([boxes for _, _, boxes in made])).float()
    refer["text"] = reader.texts([f"where is {phrase}" for phrase in phrases])
    return trace, refer


@pytest.mark.slow
def test_pl_9_scenes_by_heart(tiny: ModuleType) -> None:
    torch.manual_seed(0)
    tokenizer = tiny.word_tokenizer([*COLOURS, "and", "where", "is", "A", "long", "image", "caption", ":"])
    config = tiny.tiny_config(
        "decoder",
        vocabulary=len(tokenizer),
        begin_token_id=tiny.BEGIN,
        end_token_id=tiny.END,
        tokens=8,
        extractor_dim=64,
        extractor_out=64,
        point_dim=64,
        lora_rank=8,
    )
    model = PixelLM(config)
    with torch.no_grad():  # what nobody trained cannot be frozen here: a language model that knows no word
        model.prompt_encoder.shared_embedding.positional_embedding.normal_()
        for parameter in (*model.encoders[0].parameters(), *model.language_model.parameters()):
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.language_model.requires_grad_(True)
    reader, made = PixelReader(model, tokenizer), scenes()
    seen = [reader.see(image) for image, _, _ in made]
    sam = torch.cat([one.features[0] for one in seen])
    pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _, _ in made])
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        clip = model.encoders[1](pixels.float(), torch.full((SCENES, 2), float(SIDE)))
        trace, refer = batch(reader, made, [sam, clip])
        (model(**trace).loss + model(**refer).loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    ious, errors = [], []
    for image, names, boxes in made:
        view: Seen = reader.see(image)
        assert view.frame == frame_of(SIDE, SIDE, SIDE, "pad")
        caption = reader.caption(view, longest=8)
        assert caption.whole and caption.text == f"{names[0]} and {names[1]}"
        said = [word.box for word in caption.words]
        errors += [np.abs(said[0] - boxes[0]).mean(), np.abs(said[2] - boxes[1]).mean()]
        found = np.concatenate([one.boxes for one in reader.refer(view, names)])
        ious += geometry.paired_iou(found, boxes).tolist()
    share = precision(np.array(ious), 0.5, strict=True)
    print(f"P@0.5 {share:.3f}, {np.mean(errors):.2f} px off")
    assert share is not None and share >= 0.95 and max(errors) < 5
