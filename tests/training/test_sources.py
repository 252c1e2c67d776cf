"""Where training images come from: composed on the way, written as shards, or a folder of the user's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wherein.errors import InputError
from wherein.methods.in_context.examples import composites
from wherein.methods.pin import Pin
from wherein.synth import PAPER, Backgrounds, ObjectBank, Plan, Scenes, Shards, compose, is_held_out
from wherein.synth.scene import PRESETS
from wherein.synth.shards import write_shards
from wherein.synth.workers import on_this_machine
from wherein.training.adapters import card, split, train
from wherein.training.boxes import BoxTask, Recipe
from wherein.training.sources import Material, composed, labelled, sources
from wherein.training.store import FeatureStore
from wherein.training.trainer import TrainConfig


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    plan = Plan(count=12, preset="referral", side=64, per_shard=6)
    list(write_shards(plan, tmp_path / "shards", on_this_machine, 1))
    return tmp_path / "shards"


def test_composite_i_of_a_seed_is_one_wherever_it_is_asked_for() -> None:
    """Of scenes, of training and of worked examples: what a generator of the seed and the index draws first."""
    bank, grounds = ObjectBank.load().without(is_held_out), Backgrounds.load()
    trained, examples = composed(bank, grounds, 96, 3, PAPER), composites(4, 96, 3)
    scenes = Scenes(bank, grounds, 96, 3, PRESETS["paper"])
    for i, example in enumerate(examples):
        rng = np.random.default_rng([3, i])
        made = compose(grounds.sample(rng, 96), bank, rng, PAPER)
        thing = made.objects[rng.integers(len(made.objects))]
        assert (example.image == made.image).all() and (example.box == thing.box).all()
        assert example.phrase == thing.name
        assert (trained(i).image == made.image).all() and (scenes[i].composite.image == made.image).all()
        for (name, box), one, placed in zip(trained(i).objects, scenes[i].composite.objects, made.objects, strict=True):
            assert name == one.name == placed.name and (box == one.box).all() and (box == placed.box).all()


def test_shards_are_asked_for_by_a_phrase_that_is_true_of_one_object(shards: Path) -> None:
    source, count, names = labelled(shards)
    assert count == 12 and names == Shards(shards).names and not any(map(is_held_out, names))
    for i in range(count):
        scene, found = Shards(shards)[i], source(i)
        assert (found.image == scene.composite.image).all()
        asked = [
            (phrases, thing) for phrases, thing in zip(scene.phrases, scene.composite.objects, strict=True) if phrases
        ]
        assert len(found.objects) == len(asked) and found.absent == scene.absent
        for (phrase, box), (phrases, thing) in zip(found.objects, asked, strict=True):
            assert phrase in phrases and (box == thing.box).all()
        assert found.objects[0][0] == source(i).objects[0][0]


def test_what_a_composite_says_is_absent_is_asked_for(tiny_vlm: Any, shards: Path, tmp_path: Path) -> None:
    """The hard negative of each, kept beside its features, and nothing drawn at random; no image without a question."""
    source, count, names = labelled(shards)
    sources = [source(i) for i in range(count)]
    some = [sources[0], replace(sources[1], objects=()), *sources[2:]]
    store = FeatureStore(tmp_path / "cache", tiny_vlm, some.__getitem__, count, {}).build()
    assert store.absent == [each.absent for each in some] and any(store.absent)
    task = BoxTask(tiny_vlm, Pin.begin(tiny_vlm), Recipe(batch=8), store, store, names, 0)
    asked: list[int] = []
    features = task.features
    task.features = lambda store, indices: (asked.extend(indices), features(store, indices))[1]  # type: ignore[method-assign]
    for step in range(8):
        task.loss(step, 8)
    assert 1 not in asked and len(set(asked)) > 6
    for i in set(asked):
        rows = task._branches(store.objects[i], store.absent[i], 1.0, np.random.default_rng(i))
        last = tiny_vlm.tokenizer.decode(list(rows[-1].context))
        assert store.absent[i] is None or store.absent[i] in last
    with pytest.raises(InputError, match="nothing to ask"):
        empty = FeatureStore(tmp_path / "e", tiny_vlm, lambda i: replace(sources[i], objects=()), 2, {}).build()
        BoxTask(tiny_vlm, Pin.begin(tiny_vlm), Recipe(), empty, empty, names, 0)


def test_composites_are_known_by_what_they_are(shards: Path, tmp_path: Path) -> None:
    """Other shards in the same place are not taken for those that were encoded; their held-out names are told."""
    from wherein.training.sources import _kept_with

    first = _kept_with(shards, ("bolt",))
    (shards / "index.jsonl").write_text((shards / "index.jsonl").read_text() + "\n")
    assert first != _kept_with(shards, ("bolt",)) and "keep_held_out" not in first
    (tmp_path / "annotations.json").write_text("{}")
    mine = _kept_with(tmp_path, ("bolt", "dog"))
    assert mine["keep_held_out"]
    (tmp_path / "annotations.json").write_text("[]")
    others = _kept_with(tmp_path, ("bolt", "dog"))
    assert mine["listed"] != others["listed"]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "a.png")
    listed = {others["listed"], _kept_with(tmp_path, ("bolt", "dog"))["listed"]}
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    assert _kept_with(tmp_path, ("bolt", "dog"))["listed"] not in listed and len(listed) == 2  # pictures count as well


def test_backgrounds_are_looked_through_before_there_is_a_model(tmp_path: Path) -> None:
    Image.new("RGB", (90, 90)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"1 of 2 backgrounds cannot be used, remove them; the first: .*cut.png"):
        Material.found(backgrounds=tmp_path)


def test_another_picture_of_the_same_name_is_another_set(tmp_path: Path) -> None:
    """A cache of features must not outlive the cut-outs and backgrounds it was made of, nor mind where they lie."""
    for folder in ("mine", "elsewhere"):
        for name in ("anvil", "tent"):
            (tmp_path / folder / name).mkdir(parents=True)
            Image.new("RGBA", (40, 40), (200, 30, 30, 255)).save(tmp_path / folder / name / "1.png")
        Image.new("RGB", (90, 90)).save(tmp_path / folder / "ground.png")

    def about(folder: str) -> dict[str, Any]:
        material = Material.found(objects=tmp_path / folder, backgrounds=tmp_path / folder)
        return sources(material, 64, 1, 4, 0).about

    first = about("mine")
    assert first == about("elsewhere") and json.dumps(first)
    Image.new("RGB", (90, 90), "white").save(tmp_path / "elsewhere" / "ground.png")
    other = about("elsewhere")
    assert other["objects"] == first["objects"] and other["backgrounds"] != first["backgrounds"]
    Image.new("RGBA", (40, 40), (30, 200, 30, 255)).save(tmp_path / "mine" / "tent" / "1.png")
    assert about("mine")["objects"] != first["objects"]


def test_a_folder_of_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "Bolt"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "iscrowd": 0}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    source, count, names = labelled(tmp_path)
    assert (count, names) == (1, ("bolt",))
    ((phrase, box),) = source(0).objects
    assert phrase == "bolt" and box.tolist() == [1, 2, 11, 22]
    content["annotations"][0]["segmentation"] = [[1, 2, 11, 2, 11, 22]]  # boxes are learnt: no mask is looked at
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert len(labelled(tmp_path)[0](0).objects) == 1
    line = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 0], "iscrowd": 0}
    content["annotations"].append(line)  # as people leave them in COCO; there is no box to learn
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert len(labelled(tmp_path)[0](0).objects) == 1
    Image.new("RGB", (20, 15)).save(tmp_path / "images" / "a.png")  # made smaller, and its boxes were not
    with pytest.raises(InputError, match="a.png"):
        labelled(tmp_path)[0](0)
    content["annotations"] = []
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no labelled image"):
        labelled(tmp_path)


def test_what_a_phrase_contains_is_not_called_absent(tiny_vlm: Any, make_store: Any) -> None:
    """A tennis ball is a ball; a left apple is an apple. "ape" is no part of "grape"."""
    store = make_store(4)
    objects = [
        ("tennis ball", np.array([0.0, 0, 9, 9])),
        ("left apple", np.array([0.0, 0, 9, 9])),
        ("grape", np.ones(4) * [0, 0, 9, 9]),
    ]
    asked: set[str] = set()
    for name in ("ball", "apple", "ape", "tennis"):
        task = BoxTask(tiny_vlm, Pin.begin(tiny_vlm), Recipe(), store, store, (name,), 0)
        rows = task._branches(objects, None, 1.0, np.random.default_rng(0))
        asked |= {name} if len(rows) > len(objects) else set()
    assert asked == {"ape"}


def test_categories_of_coco_and_voc_are_pasted_when_asked_for(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, tuple[str, ...]] = {}
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: tiny_vlm)
    for keep in (False, True):

        def stop(
            vlm: Any,
            insert: Any,
            recipe: Any,
            train: Any,
            held_out: Any,
            names: tuple[str, ...],
            seed: int,
            keep: bool = keep,
        ) -> Any:
            seen[keep] = names
            raise KeyboardInterrupt

        monkeypatch.setattr("wherein.training.adapters.BoxTask", stop)
        with pytest.raises(KeyboardInterrupt):
            train(
                *("pin", tmp_path / str(keep)),
                **{"model": "tiny", "device": "cpu", "dtype": "auto", "bits": None, "size": None, "preset": "auto"},
                **{
                    "rate": None,
                    "steps": 1,
                    "images": 16,
                    "batch": None,
                    "seed": 0,
                    "resume": False,
                    "cache": tmp_path / "cache",
                },
                keep_held_out=keep,
            )  # type: ignore[arg-type]
    assert not any(map(is_held_out, seen[False])) and any(map(is_held_out, seen[True]))
    assert set(seen[False]) < set(seen[True])


def test_a_batch_comes_in_equal_parts() -> None:
    assert split(Recipe(batch=64), None) == (Recipe(batch=64), 1)
    assert split(Recipe(batch=64), 16) == (Recipe(batch=16), 4)
    with pytest.raises(InputError, match="64 images does not come in parts of 6"):
        split(Recipe(batch=64), 6)


@pytest.mark.parametrize(("about", "said"), [({}, "no category of COCO"), ({"keep_held_out": True}, "also categories")])
def test_the_card_says_what_was_pasted(about: dict[str, object], said: str) -> None:
    text = card("coop", "tiny", about, "4 MIT", TrainConfig(1), {"miou": 0.5}, 60.0)
    assert said in text and "# coop for tiny" in text and "| miou | 0.500 |" in text
