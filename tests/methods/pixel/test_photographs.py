"""Training on photographs that people described: readers, lessons, stages and the recipe, on pictures made here."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wherein import geometry
from wherein.data import Complaints, LabelledBox, Sample, open_dataset, read_captions, read_narratives
from wherein.data.mask import NeedsExtra
from wherein.errors import InputError
from wherein.geometry import Frame
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.reader import LONGEST, PixelReader, fitted
from wherein.methods.pixel.scenes import Scene
from wherein.training.lessons import KINDS, REGIONS, Captions, Lesson, Lessons, Narratives, Phrases, Regions, varied
from wherein.training.photographs import PhotographTask, lesson_loss, rows_of
from wherein.training.stages import STAGES
from wherein.training.trainer import TrainConfig, fit

RECIPE = Path(__file__).parents[3] / "recipes" / "pixel_published"
RED, BLUE = [10, 20, 40, 60], [60, 20, 90, 70]  # xyxy on a picture of 100 x 80 pixels
WORDS = ["red", "blue", "left", "right", "and", "the", "box", "where", "is", "A", "photo", "of", "an", "object"]
NAMES = [f"{i:012d}.jpg" for i in range(1, 4)]


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder: images of a red box on the left and a blue one on the right, and all that is said of them."""
    picture = np.full((80, 100, 3), 128, np.uint8)
    for (x0, y0, x1, y1), colour in ((RED, (230, 40, 40)), (BLUE, (50, 70, 230))):
        picture[y0:y1, x0:x1] = colour
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.fromarray(picture).save(tmp_path / "images" / name)
    images = [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(NAMES, 1)]
    said = [{"id": i, "image_id": 1 + i % 3, "caption": text} for i, text in enumerate(["the red box"] * 3 + ["a box"])]
    write(tmp_path / "captions.json", {"images": images, "annotations": said})
    boxes = [(name, box) for name, box in (("red box", RED), ("blue box", BLUE))]
    things = [
        {
            "id": 10 * image["id"] + kind,
            "image_id": image["id"],
            "category_id": kind,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        for image in images
        for kind, (_, (x0, y0, x1, y1)) in enumerate(boxes, 1)
    ]
    kinds = [{"id": i, "name": name} for i, (name, _) in enumerate(boxes, 1)]
    write(tmp_path / "boxes.json", {"images": images, "annotations": things, "categories": kinds})
    with (tmp_path / "narratives.jsonl").open("w") as stream:
        for i in range(1, 4):
            stream.write(json.dumps(narrative(i)) + "\n")
    return tmp_path


def narrative(image: int) -> dict[str, Any]:
    """ "red" while the mouse goes round the red box, then "and" without moving, then "blue"."""
    strokes = []
    for start, (x0, y0, x1, y1) in ((0.0, RED), (2.0, BLUE)):
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        strokes.append([{"x": x / 100, "y": y / 80, "t": start + 0.3 * i} for i, (x, y) in enumerate(corners)])
    times = [("red", 0.0, 0.9), ("and", 1.0, 1.9), ("blue", 2.0, 2.9)]
    return {
        "dataset_id": "mscoco_train2017",
        "image_id": str(image),
        "caption": "red and blue",
        "timed_caption": [{"utterance": text, "start_time": start, "end_time": end} for text, start, end in times],
        "traces": strokes,
    }


def source(kind: str, data: Path) -> Lessons:
    images = data / "images"
    if kind == "narratives":
        return Narratives(read_narratives(data / "narratives.jsonl", images))
    if kind == "captions":
        return Captions(read_captions(data / "captions.json", images))
    samples = open_dataset(data / "boxes.json", images, "auto", None).samples()
    return Regions(samples) if kind == "regions" else Phrases(samples, masks=kind == "masks")


@pytest.fixture(params=["seq2seq", "decoder"])
def reader(request: pytest.FixtureRequest, tiny: ModuleType) -> PixelReader:
    torch.manual_seed(0)
    tokenizer = tiny.word_tokenizer(WORDS)
    config = tiny.tiny_config(request.param, vocabulary=len(tokenizer), proposal_dim=8, end_token_id=tiny.END)
    return PixelReader(tiny.stirred(PixelLM(config)), tokenizer)


def test_captions_of_coco(data: Path) -> None:
    first, *_ = read_captions(data / "captions.json", data / "images")
    assert (first.name, first.captions) == (NAMES[0], ("the red box", "a box"))
    broken = json.loads((data / "captions.json").read_text())
    broken["annotations"][0]["caption"] = None
    broken["images"][1]["file_name"] = "../secret.jpg"
    told: list[str] = []
    kept = list(read_captions(write(data / "broken.json", broken), data / "images", Complaints(told.append)))
    assert [one.name for one in kept] == [NAMES[0], NAMES[2]] and kept[0].captions == ("a box",)
    assert any("annotations[0]" in line for line in told) and any("images[1]" in line for line in told)
    assert any("no image has this id" in line for line in told)  # the caption of the image that was left out
    with pytest.raises(InputError, match="caption"):
        list(read_captions(data / "broken.json", data / "images"))


def test_a_narrative_has_the_mouse_at_its_words(data: Path) -> None:
    lesson = source("narratives", data).lesson(0, np.random.default_rng(0))
    words = {lesson.scene.phrases[0][start:end]: box.tolist() for start, end, box in lesson.trace}
    assert words["red"] == RED and words["blue"] == BLUE
    assert lesson.scene.boxes.tolist() == [[0, 0, 100, 80]] and lesson.share == 1


def test_phrases_have_questions_boxes_and_masks(data: Path) -> None:
    scene = source("masks", data).lesson(0, np.random.default_rng(3)).scene
    assert scene.questions == tuple(f"where is {phrase}" for phrase in scene.phrases)
    assert scene.masks is not None
    for box, mask in zip(scene.boxes, scene.masks, strict=True):
        y, x = mask.nonzero()
        assert np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - box).max() <= 1


def test_regions_are_mirrored_with_their_words() -> None:
    """Half of them: the red box is on the left, or said to be on the right."""
    image = np.zeros((80, 100, 3), np.uint8)
    scene = Scene(image, ("red box on the left",), ("",), np.array([RED], float))
    assert scene.mirror().phrases == ("red box on the right",)


def test_regions_come_both_ways_round(data: Path) -> None:
    """A red box on the left, or on the right, and then its words say so."""
    path = data / "images" / NAMES[0]
    red = LabelledBox("red box on the left", np.array(RED, float))
    regions = Regions([Sample(path.name, path, 100, 80, (red,))])
    seen = set()
    for seed in range(12):
        lesson = varied(regions.lesson(0, np.random.default_rng(seed)), regions, np.random.default_rng(seed))
        (phrase,), ((x0, y0, x1, y1),) = lesson.scene.phrases, lesson.scene.boxes
        r, _, b = lesson.scene.image[int((y0 + y1) / 2), int((x0 + x1) / 2)]
        assert r > b and lesson.scene.questions == ("an object of ",)
        if lesson.scene.image.shape[1] == 100:
            assert phrase == f"red box on the {'left' if x0 < 50 else 'right'}"
        seen.add(phrase)
    assert len(seen) == 2


def test_all_things_of_a_picture_teach_where_there_is_something(
    data: Path, reader: PixelReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only those that are described this time: what is left out would be learnt as background."""
    path, corners = data / "images" / NAMES[0], np.random.default_rng(0).uniform(0, 60, (REGIONS + 8, 2))
    boxes = np.concatenate([corners, corners + [20, 15]], axis=1)
    things = tuple(LabelledBox(f"box {i}", box) for i, box in enumerate(boxes))
    regions = Regions([Sample(path.name, path, 100, 80, things)])
    lesson = regions.lesson(0, np.random.default_rng(0))
    assert len(lesson.scene.phrases) == REGIONS
    taught: list[torch.Tensor] = []

    def proposal_loss(logits: torch.Tensor, _: Any, true: list[torch.Tensor], *__: Any) -> torch.Tensor:
        taught.extend(true)
        return logits.sum()

    monkeypatch.setattr("wherein.training.photographs.proposal_loss", proposal_loss)
    closer: Any = SimpleNamespace(scales=(2.0, 2.0), mirrors=False)  # a window of 50 x 50 pixels
    window = varied(lesson, closer, np.random.default_rng(0))
    lesson_loss(reader, [lesson, window])
    rows, _ = rows_of(reader, [lesson, window])
    assert len(rows["labels"]) == REGIONS + len(window.scene.phrases) < REGIONS * 2  # captions: of some alone
    whole = boxes * ([64 / 100, 51 / 80] * 2)  # 100 x 80 pixels in a square of 64
    np.testing.assert_allclose(by_place(taught[0]), by_place(whole), atol=1e-4)
    draws = np.random.default_rng(0)
    draws.uniform(*closer.scales)
    x, y = draws.integers(0, [51, 31]).tolist()
    inside = geometry.clip(boxes - [x, y, x, y], 50, 50)
    inside = inside[geometry.area(inside) > 0]
    assert len(window.scene.phrases) < len(inside) < len(boxes)
    np.testing.assert_allclose(by_place(taught[1]), by_place(inside * 1.28), atol=1e-4)


def by_place(boxes: Any) -> Any:
    """Boxes in an order that does not depend on the one they come in."""
    return np.array(sorted(np.asarray(boxes, np.float64).tolist()))


def test_a_picture_with_a_trace_stays_as_it_is(data: Path) -> None:
    """The places of its words would be left behind."""
    told = source("narratives", data)
    lesson = told.lesson(0, np.random.default_rng(0))
    assert varied(lesson, told, np.random.default_rng(0)) is lesson
    for scales, mirrors in (((0.5, 0.9), False), ((1.5, 2.0), False), (None, True)):
        moving: Any = SimpleNamespace(scales=scales, mirrors=mirrors)
        with pytest.raises(ValueError, match="do not move with the picture"):
            varied(lesson, moving, np.random.default_rng(0))


def test_what_is_said_must_fit_the_picture(data: Path) -> None:
    path = data / "images" / NAMES[0]
    inside, outside = (
        LabelledBox(f"{name} box", np.array(box, float)) for name, box in (("red", RED), ("far", [90, 0, 140, 9]))
    )
    rng = np.random.default_rng(0)
    both = Regions([Sample(path.name, path, None, None, (inside, outside))])
    assert both.lesson(0, rng).scene.phrases == ("red box",)  # one box too many does not cost the others
    with pytest.raises(InputError, match="inside the image"):
        Regions([Sample(path.name, path, None, None, (outside,))]).lesson(0, rng)
    turned = Regions([Sample(path.name, path, 80, 100, (inside,))])
    with pytest.raises(InputError, match="for 80 x 100 pixels"):
        turned.lesson(0, rng)


def test_a_phrase_means_one_thing(data: Path) -> None:
    path = data / "images" / NAMES[0]
    things = [("box", RED), ("box", BLUE), ("red box", RED), ("nothing", [5, 5, 5, 9]), ("red box", RED)]
    sample = Sample(path.name, path, 100, 80, tuple(LabelledBox(name, np.array(box, float)) for name, box in things))
    assert Phrases([sample]).lesson(0, np.random.default_rng(0)).scene.phrases == ("red box",)
    with pytest.raises(InputError, match="no phrases"):
        Phrases([Sample(path.name, path, 100, 80, sample.objects[:2])])


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 2.0])
def test_a_scale_keeps_words_and_places_together(scale: float) -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:60, 10:40] = 255
    lesson = Lesson("phrases", Scene(image, ("red box",), ("where is red box",), np.array([RED], float)))
    at: Any = SimpleNamespace(scales=(scale, scale), mirrors=False)
    for seed in range(8):
        made = varied(lesson, at, np.random.default_rng(seed))
        assert made.share == min(scale, 1.0)
        square, frame = fitted(made.scene.image, 64, "pad", made.share)
        x0, y0, x1, y1 = np.round(frame.to_model(made.scene.boxes)[0]).astype(int).tolist()
        assert square[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 200  # the box holds the thing, and only it
        beside = square[: max(0, y0 - 2)], square[y1 + 2 :], square[:, : max(0, x0 - 2)], square[:, x1 + 2 :]
        assert all(part.max(initial=0) < 60 for part in beside)


def test_the_square_is_padded_below_and_on_the_right() -> None:
    square, frame = fitted(np.full((50, 100, 3), 255, np.uint8), 64, "pad", 0.5)
    assert square[:16, :32].min() == 255 and square[16:].max() == 0 and square[:, 32:].max() == 0
    assert frame.to_model(np.array([[0.0, 0, 100, 50]])).tolist() == [[0, 0, 32, 16]]
    assert fitted(np.zeros((50, 100, 3), np.uint8), 64, "squash")[1] == Frame.identity(100, 50).resize(64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_teaches_its_task(kind: str, data: Path, reader: PixelReader) -> None:
    lessons = [source(kind, data).lesson(i, np.random.default_rng(i)) for i in range(2)]
    rows, _ = rows_of(reader, lessons)
    count = sum(len(lesson.scene.phrases) for lesson in lessons)
    assert len(rows["labels"]) == len(rows["text"]) == len(rows["rows"]) == count
    assert ("points" in rows, "boxes" in rows, "masks" in rows, "prompts" in rows) == (
        kind == "narratives",
        kind in ("phrases", "masks"),
        kind == "masks",
        kind == "regions",
    )
    reader.model.train_stage("masks" if kind == "masks" else "words")
    loss, skipped = lesson_loss(reader, lessons)
    assert skipped == 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    reached = {name.split(".")[0] for name, p in reader.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert ("point_head" in reached) == (kind in ("narratives", "phrases", "masks"))
    assert ("mask_adapter" in reached) == (kind == "masks") and ("proposals" in reached) == (kind == "regions")


def test_what_is_too_long_is_cut(data: Path, reader: PixelReader) -> None:
    """A narrative loses its end, and a phrase that was cut teaches nothing (PL-5)."""
    image = np.zeros((80, 100, 3), np.uint8)
    scene = Scene(image, ("red " * (LONGEST + 9),), ("where is",), np.array([RED], float))
    rows, _ = rows_of(reader, [Lesson("phrases", scene)])
    assert rows["labels"].shape == (1, LONGEST) and reader.model.config.end_token_id not in rows["labels"]
    out = reader.model(**rows)
    assert out.skipped == 1 and float(out.point_loss.detach()) == 0


def test_phrases_that_were_cut_are_counted(data: Path, tmp_path: Path, reader: PixelReader) -> None:
    """PL-5: over all steps, and told with the figures."""
    path = data / "images" / NAMES[0]
    long = Sample(path.name, path, 100, 80, (LabelledBox("red " * (LONGEST + 9), np.array(RED, float)),))
    short = {"phrases": [source("phrases", data)]}
    task = PhotographTask(reader, {"phrases": [Phrases([long])]}, short, {"phrases": 1}, 3, seed=0)
    counts = [task.evaluate(0, tmp_path)["skipped"]]
    for step in range(2):
        task.loss(step, 2)
        counts.append(task.evaluate(step, tmp_path)["skipped"])
    assert counts == [0, 3, 6]


def test_it_learns_and_is_measured(data: Path, tmp_path: Path, reader: PixelReader) -> None:
    kinds = ("narratives", "captions", "phrases", "regions")
    sources = {kind: [source(kind, data)] for kind in kinds}
    task = PhotographTask(reader, sources, sources, STAGES["joint"].data, 6, seed=0)
    folder = tmp_path / "pictures"
    before = task.evaluate(0, folder)
    phrases = {"phrases_p50", "phrases_p50_centre", "words_off", "words_off_centre"}
    assert set(before) == {f"loss_{kind}" for kind in kinds} | phrases | {"unusable", "skipped"}
    schedule = TrainConfig(40, 3e-3, warmup=5, final=0.0, evaluate_every=40, save_every=40)
    after = fit(task, schedule, tmp_path / "run", pace=STAGES["joint"].pace(reader.model))
    assert all(after[f"loss_{kind}"] < before[f"loss_{kind}"] for kind in kinds)
    assert after["unusable"] == 0 and all(0 <= after[name] <= 1 for name in phrases)
    assert {path.name for path in folder.iterdir()} == {"0000000-narratives.png", "0000000-phrases.png"}


def test_masks_are_measured(data: Path, tmp_path: Path, reader: PixelReader) -> None:
    masks = {"masks": [source("masks", data)]}
    reader.model.train_stage("masks")
    task = PhotographTask(reader, masks, masks, STAGES["segment"].data, 2, seed=0)
    found = task.evaluate(0, tmp_path)
    assert set(found) == {"loss_masks", "masks_p50", "masks_p50_centre", "masks_ciou", "unusable", "skipped"}
    assert 0 <= found["masks_ciou"] <= 1


def test_a_run_goes_on_though_a_part_has_learnt_nothing(data: Path, tmp_path: Path, reader: PixelReader) -> None:
    """No trace teaches proposals, so their parameters have no gradient, nor what Adam keeps of one."""
    sources = {kind: [source(kind, data)] for kind in ("narratives", "captions")}
    steps = []
    for stop in (4, 8):
        task = PhotographTask(reader, sources, {}, STAGES["trace"].data, 2, seed=0)
        schedule = TrainConfig(8, 1e-3, warmup=1, evaluate_every=8, save_every=2)
        loss = task.loss

        def stopping(step: int, of: int, loss: Any = loss, stop: int = stop) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            steps.append(step)
            return loss(step, of)  # type: ignore[no-any-return]

        task.loss = stopping  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            fit(task, schedule, tmp_path, resume=True)
    assert steps == list(range(8))


def test_pictures_that_cannot_be_used_are_drawn_again_and_told(data: Path, tmp_path: Path, reader: PixelReader) -> None:
    (data / "images" / NAMES[1]).write_bytes(b"no image")
    told: list[str] = []
    lessons = {"captions": [source("captions", data)]}
    task = PhotographTask(reader, lessons, lessons, {"captions": 1}, 8, 0, told.append)
    assert all(torch.isfinite(task.loss(step, 4)) for step in range(4))
    assert len(told) == 1 and NAMES[1] in told[0] and task.evaluate(0, tmp_path)["unusable"] == 1
    for name in NAMES:
        (data / "images" / name).write_bytes(b"no image")
    with pytest.raises(InputError, match="none could be used"):
        task.loss(0, 1)
    with pytest.raises(InputError, match="held-out pictures of captions"):
        PhotographTask(reader, lessons, lessons, {"captions": 1}, 8, 0)


def test_a_missing_extra_is_no_bad_picture(data: Path, reader: PixelReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every mask would seem not to fit, and the sentence that says what to install would be lost."""

    def check(*_: Any) -> None:
        raise NeedsExtra("run pip install 'wherein[eval]'")

    monkeypatch.setattr("wherein.data.mask.Mask.check", check)
    reader.model.train_stage("masks")
    task = PhotographTask(reader, {"masks": [source("masks", data)]}, {}, {"masks": 1}, 2, 0)
    with pytest.raises(NeedsExtra, match="pip install"):
        task.loss(0, 1)


def test_a_control_token_in_a_phrase_costs_its_picture(data: Path, reader: PixelReader) -> None:
    path = data / "images" / NAMES[0]
    made = [
        Sample(path.name, path, 100, 80, (LabelledBox(name, np.array(RED, float)),)) for name in ("red </s>", "red box")
    ]
    told: list[str] = []
    task = PhotographTask(reader, {"phrases": [Phrases(made)]}, {}, {"phrases": 1}, 8, 0, told.append)
    assert torch.isfinite(task.loss(0, 1)) and len(told) == 1 and "</s>" in told[0]


def test_a_stage_needs_its_data(data: Path, reader: PixelReader) -> None:
    with pytest.raises(InputError, match="give data of narratives"):
        PhotographTask(reader, {"captions": [source("captions", data)]}, {}, STAGES["trace"].data, 2, seed=0)
    with pytest.raises(InputError, match="no narratives"):
        Narratives([])


def test_the_published_stages(tiny: ModuleType) -> None:
    """SPEC 3.4: steps, rates, and what a block of the vision encoder takes of the rate."""
    assert [(name, stage.batch, stage.steps, stage.warmup, stage.rate) for name, stage in STAGES.items()] == [
        ("captions", 256, 10_000, 250, 5e-5),
        ("trace", 256, 10_000, 250, 5e-5),
        ("refer", 64, 120_000, 1_000, 5e-5),
        ("segment", 64, 60_000, 500, 5e-5),
        ("dense", 64, 40_000, 1_000, 1e-4),
        ("joint", 128, 240_000, 2_000, 1e-4),
    ]
    model = PixelLM(tiny.tiny_config())
    pace = STAGES["dense"].pace(model)
    names = {name: round(pace(name), 9) for name in model.trained()}
    blocks = [{names[name] for name in names if f"encoders/1/model/encoder/layers/{i}/" in name} for i in range(2)]
    assert blocks == [{0.64}, {0.8}]
    assert {names[name] for name in names if "embeddings" in name} == {0.512}
    assert pace("encoders/1/model/pre_layrnorm/weight") == pytest.approx(0.512)  # between the embeddings and block 0
    assert {pace for name, pace in names.items() if not name.startswith("encoders")} == {1.0}
    segment = STAGES["segment"].pace(model)
    assert segment("mask_adapter/alpha") == 10 and segment("point_head/0/weight") == 1
    assert set(STAGES["trace"].pace(model)(name) for name in names) == {1.0}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not RECIPE.is_dir():
        pytest.skip("the recipes are not part of this copy of the source")
    spec = importlib.util.spec_from_file_location("pixel_published", RECIPE / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_stage_begins_where_another_ended(
    recipe: Any, data: Path, tmp_path: Path, reader: PixelReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder to a folder, by the command line; a run that is there is not done again."""
    start = tmp_path / "start"
    reader.model.save_pretrained(start)
    reader.tokenizer.save_pretrained(start)
    images = str(data / "images")
    captions, phrases = str(data / "captions.json"), str(data / "boxes.json")
    common = ["--steps", "2", "--batch", "2", "--device", "cpu"]

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *common])
        recipe.main()

    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    run("--stage", "captions", "--start", str(start), "--data", "captions", captions, images, "--out", first)
    told = ("--data", "phrases", phrases, images, "--held-out", "phrases", phrases, images)
    run("--stage", "refer", "--start", first, *told, "--out", second)
    trained = PixelLM.from_pretrained(second)
    changed = [not torch.equal(p, reader.model.state_dict()[n]) for n, p in trained.state_dict().items()]
    assert any(changed) and not all(changed)
    before = (tmp_path / "second" / "log.jsonl").read_text()
    run("--stage", "refer", "--start", first, *told, "--out", second)
    assert (tmp_path / "second" / "log.jsonl").read_text() == before
    with pytest.raises(InputError, match="resume with the same settings"):
        run("--stage", "refer", "--start", first, *told, "--out", second, "--seed", "1")
    with pytest.raises(InputError, match="KIND ANNOTATIONS IMAGES"):
        run("--stage", "refer", "--start", first, "--data", "phrases", phrases, "--out", first)
    with pytest.raises(InputError, match="captions_or_so"):
        run("--stage", "refer", "--start", first, "--data", "captions_or_so", captions, images, "--out", first)
    with pytest.raises(InputError, match="--start or --parts"):
        run("--stage", "refer", "--out", first)
    with pytest.raises(InputError, match="leave out --depth, --proposals, or begin from --parts"):
        run("--stage", "refer", "--start", first, *told, "--out", first, "--depth", "2", "--proposals", "0")


def test_the_card_says_what_the_model_is(
    recipe: Any, data: Path, tmp_path: Path, reader: PixelReader, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With --start default: not what a model from parts would have been. A tiny model stands for the package's."""
    cards: list[str] = []
    monkeypatch.setattr(recipe, "begun", lambda start, *_: (reader, start))
    monkeypatch.setattr(recipe, "save_adapter", lambda out, model, vlm, card: cards.append(card))
    given = ("--stage", "captions", "--start", "default", "--out", str(tmp_path / "run"), "--device", "cpu")
    held = ("--data", "captions", str(data / "captions.json"), str(data / "images"), "--steps", "1", "--batch", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", *given, *held])
    recipe.main()
    last, config = json.loads(capsys.readouterr().out.splitlines()[-1]), reader.model.config
    said = {"side": 64, "extractor_depth": 2, "proposal_dim": 8, "lora_targets": list(config.lora_targets)}
    assert {name: last[name] for name in said} == said and last["start"] == "default"
    assert f"'side': 64, 'extractor_depth': 2, 'proposal_dim': 8, 'lora_targets': {said['lora_targets']}" in cards[0]


def test_parts_can_be_told_what_to_be(recipe: Any) -> None:
    parts = ["--stage", "captions", "--out", "x", "--parts", "sam", "-", "t5"]
    assert recipe.settings_of(recipe.options().parse_args(parts)) == {
        "side": 384,
        "extractor_depth": 2,
        "proposal_dim": 0,
        "lora_targets": ("q", "v"),
    }
    more = recipe.options().parse_args([*parts, "--depth", "6", "--targets", "q_proj,v_proj"])
    assert recipe.settings_of(more)["extractor_depth"] == 6
    assert recipe.settings_of(more)["lora_targets"] == ("q_proj", "v_proj")
