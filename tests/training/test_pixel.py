"""What a pixel-aligned model is taught of composites, how that is measured, and that it learns by it."""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T
from PIL import Image

from wherein.boxtext import CODECS
from wherein.errors import InputError
from wherein.geometry import iou, paired_iou
from wherein.grounding import Grounding
from wherein.methods.centre import BOX
from wherein.methods.pixel.config import PixelLMConfig
from wherein.methods.pixel.language import IGNORED
from wherein.methods.pixel.losses import POINT_WEIGHT
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.reader import PixelReader, Seen, frame_of
from wherein.synth import ObjectBank, is_held_out, may_be_held_out
from wherein.training.one_pass import losses_together
from wherein.training.pixel import (
    FIXED,
    SHOWN,
    Described,
    PixelRecipe,
    PixelTask,
    described,
    located,
    measure,
    phrase_rows,
    region_rows,
    trace_rows,
)
from wherein.training.store import FeatureStore, Labelled
from wherein.training.trainer import TrainConfig, fit

SIDE, CELL = 64, 16
SMALL = PixelRecipe(images=4, regions=3, phrases=5)
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pixel_small"


class Eyes:
    """What a store asks of a VLM, answered by a model's own encoder; `encoded` counts images."""

    fingerprint, size = "eyes", (SIDE, SIDE)

    def __init__(self, model: PixelLM) -> None:
        self.model, self.encoded = model, 0

    def prepare(self, images: list[Any]) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), None

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        self.encoded += len(pixels)
        with torch.no_grad():
            return self.model.features(pixels)[0]


def build(tokenizer: Any, proposal_dim: int = 0) -> PixelReader:
    """Two small layers of a language model, and of a vision encoder that sees cells of 16 pixels."""
    torch.manual_seed(0)
    vision = T.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=CELL,
    )
    text = T.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    prompts = {"hidden_size": 32, "image_size": SIDE, "patch_size": CELL, "mask_input_channels": 8}
    config = PixelLMConfig(
        sam_config=T.SamConfig(vision_config={"num_pos_feats": 16}, prompt_encoder_config=prompts),
        vision_config=vision,
        text_config=text,
        sam_encodes=False,
        vision_trains=False,
        fit="squash",
        tokens=4,
        extractor_dim=32,
        extractor_out=32,
        point_dim=32,
        lora_rank=4,
        lora_targets=("q_proj", "v_proj"),
        proposal_dim=proposal_dim,
    )
    return PixelReader(PixelLM(config), tokenizer)


@pytest.fixture
def reader(tiny_vlm: Any) -> PixelReader:
    return build(tiny_vlm.tokenizer)


@pytest.fixture
def make_task(
    reader: PixelReader, source: Callable[[int], Labelled], tmp_path: Path
) -> Callable[..., tuple[PixelTask, Eyes]]:
    """Images 0 to 11 to train on; others to measure on."""

    def make(recipe: PixelRecipe = SMALL, seed: int = 0, own: PixelReader = reader) -> tuple[PixelTask, Eyes]:
        eyes: Any = Eyes(own.model)
        splits = {"train": (12, 0), "held out": (8, 100), "known": (8, 200)}
        stores = [
            FeatureStore(tmp_path / "cache", eyes, lambda i, s=start: source(i + s), count, {"split": name}).build()
            for name, (count, start) in splits.items()
        ]
        return PixelTask(own, recipe, *stores, seed), eyes

    return make


@pytest.fixture
def images(make_task: Any) -> list[Described]:
    return [described(objects, SIDE) for objects in make_task()[0].train.objects]


def texts(reader: PixelReader, labels: torch.Tensor) -> list[str]:
    return [reader.tokenizer.decode(row[row != IGNORED], skip_special_tokens=True) for row in labels]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_token_of_an_object_s_word_is_in_its_box_and_no_other_token_is_anywhere(
    reader: PixelReader, images: list[Described]
) -> None:
    rows, ends = trace_rows(reader, images, rng())
    assert rows["tasks"] == "trace" and len(rows["labels"]) == len(images)
    several = 0
    for i, (text, image) in enumerate(zip(texts(reader, rows["labels"]), images, strict=True)):
        tokens = [token for token in rows["labels"][i].tolist() if token != IGNORED][:-1]
        pieces = [reader.tokenizer.decode([token]) for token in tokens]
        assert "".join(pieces) == text
        placed: dict[str, list[list[float]]] = {}
        start = 0
        for place, piece in enumerate(pieces):
            before, within = text[:start].rpartition(" ")[2], piece.strip(" ,.")
            after = text[start + len(piece) :]
            word = (before if not piece.startswith(" ") else "") + within + (after.split(" ")[0] if within else "")
            word = word.strip(" ,.")
            point = rows["points"][i, place].flatten().tolist()
            if within and word not in ("a", "an", "and", "then", "on", "at", "in", "the"):
                placed.setdefault(word, []).append(point)
                assert bool(ends[i, place]) == (not after or after[0] in " ,.")
            else:
                assert point == [0, 0, 0, 0] and not ends[i, place], piece
            start += len(piece)
        for name, box in zip(image.names, image.boxes.tolist(), strict=True):
            for word in name.split():
                assert all(point == pytest.approx(box) for point in placed[word])
                several += len(placed[word]) > 1
        assert not rows["points"][i, len(tokens) :].any() and not ends[i, len(tokens) :].any()
    assert several  # some words are of several tokens


def test_regions_have_the_names_and_phrases_the_boxes_of_their_images(
    reader: PixelReader, images: list[Described]
) -> None:
    regions, phrases = region_rows(reader, images, 7, rng()), phrase_rows(reader, images, 40, rng())
    assert (regions["tasks"], phrases["tasks"]) == ("caption", "refer")
    for rows, boxes in ((regions, regions["prompts"].boxes), (phrases, phrases["boxes"])):
        asked = texts(reader, rows["labels"])
        assert len(asked) == len(boxes) == len(rows["rows"]) == len(rows["text"])
        for row, text, box in zip(rows["rows"].tolist(), asked, boxes.tolist(), strict=True):
            (thing,) = np.flatnonzero(np.isclose(images[row].boxes, box).all(1))
            if rows is regions:
                assert text == images[row].names[thing]
            else:
                bare = text.removeprefix("the ").removeprefix("a ")
                assert {text, bare, f"the {bare}"} & set(images[row].phrases[thing])
    count = sum(len(image.names) for image in images)
    every = region_rows(reader, images, count, rng())
    pairs = list(zip(every["rows"].tolist(), texts(reader, every["labels"]), strict=True))
    assert len(set(pairs)) == count  # none twice while another waits


def test_a_region_can_be_given_by_a_point_in_it(reader: PixelReader, images: list[Described]) -> None:
    boxes, points = (region_rows(reader, images, 7, rng(), pointed) for pointed in (False, True))
    assert torch.equal(boxes["labels"], points["labels"]) and torch.equal(boxes["rows"], points["rows"])
    low, high = boxes["prompts"].boxes.view(7, 2, 2).unbind(1)
    share = (points["prompts"].points[:, 0] - low) / (high - low)
    assert ((share >= 0.25) & (share <= 0.75)).all() and len(set(share.flatten().tolist())) > 1


def test_a_phrase_is_asked_for_in_the_text_before_it(reader: PixelReader, images: list[Described]) -> None:
    rows = phrase_rows(reader, images, 6, rng())
    questions = [reader.tokenizer.decode(row[row >= 0]) for row in rows["text"]]
    assert questions == [f"where is {text}" for text in texts(reader, rows["labels"])]


def test_boxes_can_be_written_behind_the_question(
    reader: PixelReader, images: list[Described], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = CODECS["0-100"]
    spoken, written = (phrase_rows(reader, images, 6, rng(), given) for given in (None, codec))
    assert written["tasks"] == "caption" and torch.equal(spoken["text"], written["text"])
    for text, box in zip(texts(reader, written["labels"]), spoken["boxes"].numpy(), strict=True):
        found = codec.decode(text, SIDE, SIDE)
        assert found is not None and np.abs(found - box).max() <= SIDE / 100
    asked: list[str] = []

    def caption(seen: Any, longest: int, lead: str) -> Any:
        asked.append(lead)
        return SimpleNamespace(text="it is [25, 0, 50, 100]" if "cat" in lead else "[1, 2", score=0.5)

    monkeypatch.setattr(reader, "caption", caption)
    found, unread = located(reader, Seen(frame_of(128, 64, SIDE, "squash"), []), ["a cat", "a dog"], codec)
    assert asked == ["where is a cat", "where is a dog"]
    assert found.boxes.tolist() == [[32, 0, 64, 64]] and unread.invalid and unread.answer == "[1, 2"


def test_written_boxes_are_learnt_and_measured_in_place_of_the_points(make_task: Any) -> None:
    task, _ = make_task()
    task.codec = CODECS["ranges"]
    task.loss(0, 10).backward()
    assert task.reader.model.extractor.tokens.grad.abs().sum() > 0
    figures = measure(task.reader, task.held_out, 2, seed=0, codec=task.codec)
    assert figures["invalid"] == 1 and figures["p50"] == figures["miou"] == 0  # an untrained model writes no box


def test_a_step_teaches_what_proposes(make_task: Any, tiny_vlm: Any) -> None:
    task, _ = make_task(own=build(tiny_vlm.tokenizer, proposal_dim=8))
    task.loss(0, 10).backward()
    grads = [parameter.grad for parameter in task.reader.model.proposals.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    assert any(grad.abs().sum() > 0 for grad in grads)
    figures = measure(task.reader, task.held_out, 2, seed=0)
    assert 0 <= figures["proposed"] <= 1
    boxes = np.stack([box for objects in task.held_out.objects[:2] for _, box in objects])
    fixed = iou(boxes, FIXED * task.reader.model.config.side).max(1) > 0.5
    names = [name for objects in task.held_out.objects[:2] for name, _ in objects]
    assert figures["proposed_fixed"] == fixed.mean()
    assert figures["names_commonest"] == max(map(names.count, names)) / len(names)


def test_a_step_is_a_function_of_its_number_and_runs_no_encoder(make_task: Any) -> None:
    (a, eyes), (b, _), (other, _) = make_task(), make_task(), make_task(seed=1)
    before = eyes.encoded
    assert torch.equal(a.loss(3, 10), b.loss(3, 10))
    assert not torch.equal(a.loss(3, 10), a.loss(4, 10)) and not torch.equal(a.loss(3, 10), other.loss(3, 10))
    assert eyes.encoded == before > 0


def test_without_dense_traces_nothing_but_the_places_of_words_is_missing(
    make_task: Any, monkeypatch: pytest.MonkeyPatch, reader: PixelReader
) -> None:
    outs, real = [], reader.model.forward

    def forward(**given: Any) -> Any:
        outs.append(real(**given))
        return outs[-1]

    monkeypatch.setattr(reader.model, "forward", forward)
    dense, sparse = make_task()[0].loss(0, 10), make_task(replace(SMALL, dense=False))[0].loss(0, 10)
    with_traces, without = outs[0], outs[3]
    assert len(outs) == 6 and with_traces.point_loss > 0 == without.point_loss
    torch.testing.assert_close(with_traces.text_loss, without.text_loss)
    torch.testing.assert_close(dense - sparse, POINT_WEIGHT * with_traces.point_loss)
    torch.testing.assert_close(dense, torch.stack([out.loss for out in outs[:3]]).sum())


def test_a_run_that_was_killed_ends_as_one_that_was_not(make_task: Any, tiny_vlm: Any, tmp_path: Path) -> None:
    schedule = TrainConfig(steps=6, learning_rate=3e-3, warmup=1, evaluate_every=3, save_every=2)
    whole, first, second = (make_task(own=build(tiny_vlm.tokenizer))[0] for _ in range(3))
    frozen = {name: p.clone() for name, p in whole.reader.model.named_parameters() if not p.requires_grad}
    figures = fit(whole, schedule, tmp_path / "whole")
    first.evaluate = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(first, schedule, tmp_path / "parts")
    assert fit(second, schedule, tmp_path / "parts", resume=True) == figures
    for (name, a), b in zip(whole.module.named_parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b), name
    untrained, _ = make_task(own=build(tiny_vlm.tokenizer))
    assert whole.loss(0, 6) < untrained.loss(0, 6)
    now = dict(whole.reader.model.named_parameters())
    assert frozen and all(torch.equal(now[name], was) for name, was in frozen.items())
    assert {"p50", "miou", "words_inside", "names", "p50_centre", "known_p50", "known_names"} <= set(figures)
    with Image.open(tmp_path / "whole" / "pictures" / "0000006.png") as sheet:
        assert sheet.size == (SHOWN * 320, 640)


def answering(reader: PixelReader, store: FeatureStore, monkeypatch: pytest.MonkeyPatch, right: bool) -> None:
    """Have a reader answer all that `measure` asks, by heart: all of it right, or none."""
    current: list[int] = []
    real = store.features

    def features(indices: list[int]) -> torch.Tensor:
        current[:] = indices
        return real(indices)

    def refer(seen: Any, phrases: list[str]) -> list[Grounding]:
        things = dict(store.objects[current[0]])
        found = []
        for phrase in phrases:
            words = phrase.split()
            (name,) = (name for name in things if any(word in words for word in name.split()))
            box = things[name][None] if right else np.zeros((0, 4))
            found.append(Grounding(phrase, box, np.ones(len(box)), "by_heart", False, None))
        return found

    def captions_of(seen: Any, given: Any, longest: int) -> list[Any]:
        names = [name for name, _ in store.objects[current[0]]]
        return [SimpleNamespace(text=name if right else f"{name} {name}") for name in names]

    def forward(features: Any, points: torch.Tensor, **rest: Any) -> Any:
        return SimpleNamespace(points=points if right else points + SIDE)

    monkeypatch.setattr(store, "features", features)
    monkeypatch.setattr(reader, "refer", refer)
    monkeypatch.setattr(reader, "captions_of", captions_of)
    monkeypatch.setattr(reader.model, "forward", forward)


@pytest.mark.parametrize("right", [True, False])
def test_figures_of_one_who_knows_and_of_one_who_does_not(
    make_task: Any, reader: PixelReader, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    task, _ = make_task()
    store = task.held_out
    answering(reader, store, monkeypatch, right)
    figures = measure(reader, store, 5, 0)
    assert [figures[name] for name in ("p50", "miou", "words_inside", "names")] == [float(right)] * 4
    true = np.stack([box for objects in store.objects[:5] for _, box in objects])
    ious = paired_iou(np.array([BOX] * len(true)) * SIDE, true)
    assert figures["miou_centre"] == pytest.approx(ious.mean())
    assert figures["p50_centre"] == pytest.approx((ious > 0.5).mean())
    assert figures["invalid"] == 1 - float(right) and not {"proposed", "proposed_fixed"} & set(figures)


def test_images_without_a_phrase_are_refused(make_task: Any, reader: PixelReader) -> None:
    task, _ = make_task()
    twins = [[("cat", np.array([0.0, 0, 20, 20])), ("cat", np.array([2.0, 2, 22, 22]))]]  # nothing tells them apart
    task.train.objects = task.held_out.objects = twins * 8
    with pytest.raises(InputError, match="No training image"):
        PixelTask(reader, SMALL, task.train, task.held_out, task.known, 0)
    with pytest.raises(InputError, match="No phrase tells"):
        measure(reader, task.held_out, 2, 0)


def test_categories_that_are_held_out_are_never_trained_on(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not RECIPE.is_dir():
        pytest.skip("the recipes are not part of this copy of the source")
    monkeypatch.syspath_prepend(str(RECIPE))
    composed = importlib.import_module("composed")
    monkeypatch.setattr(composed, "HELD_OUT", 24)
    train, held_out, known, _, licences = composed.stores(tiny_vlm, tmp_path, 32, None, None).build()
    names = [{name for objects in store.objects for name, _ in objects} for store in (train, held_out, known)]
    assert [store.count for store in (train, held_out, known)] == [32, 24, 24]
    assert licences == ObjectBank.load().without(may_be_held_out).licences and "MIT" in licences
    assert not any(map(may_be_held_out, names[0] | names[2])) and all(map(is_held_out, names[1]))
    assert not torch.equal(train.features([0]), known.features([0]))
    again = composed.stores(tiny_vlm, tmp_path / "again", 32, None, None).train.build()
    assert torch.equal(again.features([0, 31]), train.features([0, 31]))


@pytest.mark.slow
def test_twelve_images_by_heart(make_task: Any, reader: PixelReader, tmp_path: Path) -> None:
    """What was taught is what is measured: on the images it was trained on the model is nearly always right."""
    reader.model.language_model.requires_grad_(True)  # nobody has trained it: it knows no word
    with torch.no_grad():  # of their first size, such features say little
        for parameter in reader.model.encoders[0].parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    task, _ = make_task(PixelRecipe(images=12, regions=24, phrases=24))
    schedule = TrainConfig(steps=500, learning_rate=2e-3, evaluate_every=500, save_every=500)
    fit(task, schedule, tmp_path / "run")
    figures = measure(reader, task.train, 12, 0)
    assert figures["p50"] >= 0.9 and figures["words_inside"] >= 0.9 and figures["names"] >= 0.9


@pytest.mark.parametrize("pointed", [False, True])
def test_kinds_of_rows_read_in_one_pass_have_the_losses_they_have_on_their_own(
    reader: PixelReader, make_task: Callable[..., tuple[PixelTask, Eyes]], pointed: bool
) -> None:
    task, model = make_task()[0], reader.model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):  # or a gradient would be zero
                parameter.normal_(std=0.1)
    images = [described(objects, SIDE) for objects in task.train.objects[:4]]
    features = [task.train.features([0, 1, 2, 3])]
    kinds = [
        trace_rows(reader, images, rng())[0],
        region_rows(reader, images, 7, rng(), pointed),
        phrase_rows(reader, images, 9, rng()),
    ]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = [model(features=features, **kind).loss for kind in kinds]
    gradients = torch.autograd.grad(torch.stack(own).sum(), trained, allow_unused=True)
    together = losses_together(model, features, kinds)
    assert len({kind["labels"].shape[1] for kind in kinds}) == len({kind["text"].shape[1] for kind in kinds}) == 3
    torch.testing.assert_close(together, own, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(torch.stack(together).sum(), trained, allow_unused=True), gradients, strict=True
    ):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6


def test_a_language_model_of_fewer_layers_trains(
    reader: PixelReader, make_task: Callable[..., tuple[PixelTask, Eyes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not RECIPE.is_dir():
        pytest.skip("the recipes are not part of this copy of the source")
    monkeypatch.syspath_prepend(str(RECIPE))
    shorten = runpy.run_path(str(RECIPE / "train.py"))["shorten"]
    task, _ = make_task()
    whole = float(task.loss(0, 1).detach())
    with pytest.raises(InputError, match="has 2 layers"):
        shorten(reader, 3)
    shorten(reader, 1)
    loss = task.loss(0, 1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and float(loss.detach()) != whole
    assert 0 <= measure(reader, task.held_out, 4, 0)["miou"] <= 1  # it is decoded, too
