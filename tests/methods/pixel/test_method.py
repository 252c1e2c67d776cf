"""The method on the default VLM: shares its parts, leaves it as it was, saves and loads what was trained."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wherein import images, methods
from wherein.errors import AdapterError, InputError
from wherein.geometry import iou
from wherein.methods.pixel.method import Pixel, begin, save
from wherein.methods.pixel.reader import LEAST, MOST

SMALLER = {"tokens": 4, "extractor_dim": 32, "extractor_out": 32, "point_dim": 16, "lora_rank": 2}


@pytest.fixture(scope="module")
def adapter(default_vlm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained one whose updates do something."""
    torch.manual_seed(0)
    reader = begin(default_vlm, **SMALLER)
    with torch.no_grad():
        for name, parameter in reader.model.trained().items():
            if "lora_up" in name:
                parameter.normal_(std=0.02)
    return save(tmp_path_factory.mktemp("pixel") / "adapter", reader.model, default_vlm, "Made by a test.")


@pytest.fixture
def image() -> Any:
    return np.random.default_rng(3).integers(0, 255, (90, 70, 3), np.uint8)


def test_the_vlm_stays_as_it_was(default_vlm: Any, adapter: Path, image: Any) -> None:
    def said() -> Any:
        pixels, _ = default_vlm.prepare([image])
        with torch.inference_mode():
            return default_vlm.prefix(default_vlm.features(pixels)).last

    before, fingerprint = said(), default_vlm.fingerprint
    method = Pixel(default_vlm, adapter)
    method.ground(image, ["a cat"])
    assert torch.equal(said(), before) and default_vlm.fingerprint == fingerprint
    assert not any(parameter.requires_grad for parameter in default_vlm.parameters())
    table = method.reader.model.language_model.get_input_embeddings().weight
    assert table.data_ptr() == default_vlm.language_model.get_input_embeddings().weight.data_ptr()  # no second copy


def test_saved_and_loaded(default_vlm: Any, adapter: Path, image: Any) -> None:
    """Two methods of one adapter say the same, and not what an untrained model of another seed says."""
    first, second = (Pixel(default_vlm, adapter).ground(image, ["a cat", "two dogs"]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
        assert a.boxes.shape == (1, 4) and a.score_kind == Pixel.score_kind and 0 <= a.scores[0] <= 1
    torch.manual_seed(9)
    other = begin(default_vlm, **SMALLER)
    assert not np.array_equal(other.refer(other.see(image), ["a cat"])[0].boxes, first[0].boxes)


def test_its_features_are_the_vlms(default_vlm: Any, adapter: Path, image: Any) -> None:
    method = Pixel(default_vlm, adapter)
    ours, theirs = method.reader.see(image), method.see(image)
    assert ours.frame == theirs.frame
    torch.testing.assert_close(ours.features[0], theirs.features[0], rtol=1e-4, atol=1e-4)  # in float32, rounded


def test_a_step_of_training(default_vlm: Any) -> None:
    """From precomputed features; gradients reach what is trained and nothing else."""
    torch.manual_seed(0)
    reader = begin(default_vlm, **SMALLER)
    model = reader.model
    out = model(
        reader.labels(["a red ball", "two cats"]),
        features=[torch.randn(1, 196, 1280, dtype=torch.bfloat16)],
        rows=torch.tensor([0, 0]),
        text=reader.texts(["where is a red ball", "where is two cats"]),
        tasks="refer",
        boxes=torch.tensor([[10.0, 20.0, 200.0, 300.0], [50.0, 20.0, 90.0, 80.0]]),
    )
    out.loss.backward()
    assert torch.isfinite(out.loss) and out.skipped == 0
    trained = model.trained()
    assert all(parameter.grad is not None for parameter in trained.values())
    assert sum(parameter.grad is not None for parameter in model.parameters()) == len(trained)


def test_what_does_not_work(default_vlm: Any, tiny_vlm: Any, adapter: Path) -> None:
    with pytest.raises(InputError, match="tiny is another"):
        Pixel(tiny_vlm)
    with pytest.raises(AdapterError, match="made for another model"):
        Pixel(tiny_vlm, adapter)


def test_without_weights_it_says_so(default_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.methods.pixel.method.built_in", lambda *_: None)
    with pytest.raises(AdapterError, match="No pixel is built in for default: name one with --adapter"):
        Pixel(default_vlm)


def test_the_one_that_ships_names_a_cup_and_says_where(default_vlm: Any) -> None:
    """On a real photograph: a caption with its trace, the caption of a place, dense captions, a phrase."""
    photo = images.load(Path(str(files("wherein"))) / "examples" / "coffee.jpg")
    truth, method = np.array([173.0, 18.0, 409.0, 308.0]), Pixel(default_vlm)
    (cup,) = [word for word in method.caption(photo).trace if word.text == "cup"][:1]
    (found,) = method.ground(photo, ["the cup"])
    for box in (cup.box, found.boxes[0]):
        assert box is not None and iou(box[None], truth[None])[0, 0] > 0.3
    (asked,) = method.describe(photo, [truth])
    assert "cup" in asked.caption.text
    assert any("cup" in region.caption.text for region in method.dense(photo))


def test_the_built_in_one_is_found_by_its_name(
    default_vlm: Any, adapter: Path, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def built_in(*names: str) -> Path:
        asked.append(names)
        return adapter

    monkeypatch.setattr("wherein.methods.pixel.method.built_in", built_in)
    found, same = (methods.create("pixel", default_vlm, given).ground(image, ["a cat"]) for given in (None, adapter))
    assert asked == [("pixel", "default")] and np.array_equal(found[0].boxes, same[0].boxes)


def test_places_are_described_in_the_order_given(default_vlm: Any, adapter: Path, image: Any) -> None:
    method = Pixel(default_vlm, adapter)
    box, point = [10.0, 20, 60, 95], [35.0, 40]
    regions = method.describe(image, [point, box, point])
    assert [region.point is None for region in regions] == [False, True, False]
    assert regions[1].box is not None and regions[1].box.tolist() == [10, 20, 60, 90]  # cut to the image
    seen = method.see(image)
    (boxed,), (pointed,) = method.reader.captions_of(seen, [box]), method.reader.captions_at(seen, [point])
    same = [pointed.score, boxed.score, pointed.score]  # but for the rounding of a batch of other size
    assert [region.caption.score for region in regions] == pytest.approx(same, rel=1e-5)
    assert boxed.score != pytest.approx(pointed.score, rel=1e-5)
    with pytest.raises(InputError, match="70 x 90 pixels"):
        method.describe(image, [[80.0, 0, 90, 10]])


@pytest.mark.parametrize(
    "places",
    [[[1, 2, 3]], [5], [[[0, 0, 9, 9]]], 5.0, [10.0, 20, 60, 90], [[1, 2], [1, 2, 3]], ["here"], [[]], [None], "12"],
)
def test_what_is_no_place(image: Any, places: Any) -> None:
    """Refused in one sentence, before anything is looked at: the method has no model here."""
    with pytest.raises(InputError, match="list of boxes") as raised:
        Pixel.__new__(Pixel).describe(image, places)
    assert "\n" not in str(raised.value)


def test_dense_captions_are_of_proposals(default_vlm: Any, adapter: Path, image: Any, tmp_path: Path) -> None:
    assert not Pixel(default_vlm, adapter).proposes
    with pytest.raises(InputError, match="proposes no boxes"):
        Pixel(default_vlm, adapter).dense(image)
    torch.manual_seed(0)
    reader = begin(default_vlm, **SMALLER, proposal_dim=8)
    with torch.no_grad():
        reader.model.proposals.say.bias[0] = 5.0
    method = Pixel(default_vlm, save(tmp_path / "adapter", reader.model, default_vlm, "Made by a test."))
    regions = method.dense(image)
    assert method.proposes and 2 <= len(regions) <= MOST
    scores = [region.score for region in regions]
    assert scores == sorted(scores, reverse=True) and min(scores) >= LEAST
    boxes = np.stack([region.place for region in regions])
    assert ((boxes >= 0) & (boxes <= [70, 90, 70, 90])).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    overlaps = iou(boxes, boxes) - np.eye(len(boxes))
    assert overlaps.max() < 0.5
    assert method.reader.propose(method.see(image), least=1.0)[0].shape == (0, 4)
