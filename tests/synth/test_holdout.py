"""Nothing of COCO or VOC may be left in PIN's training names."""

import pytest

from wherein.synth import ObjectBank, category_of, is_held_out, may_be_held_out
from wherein.synth.holdout import COCO, VOC


def test_the_lists_are_whole() -> None:
    assert len(COCO) == len(set(COCO)) == 80
    assert len(set(VOC)) == 20
    assert all(category_of(name) == name for name in COCO)
    assert all(category_of(name) in COCO for name in VOC)


def test_no_kept_name_has_a_category_in_it(bank: ObjectBank) -> None:
    kept = bank.without(is_held_out)
    assert len(kept.names) >= 600
    single = {name for name in (*COCO, *VOC) if " " not in name}
    several = {name for name in COCO if " " in name}
    for name in kept.names:
        words = name.split()
        assert not single & {*words, *(word.removesuffix("s") for word in words)} or name == "glasses", name
        assert not any(category in name for category in several), name


def test_what_is_in_a_glass_is_neither_pasted_nor_asked_for(bank: ObjectBank) -> None:
    either = {name for name in bank.names if may_be_held_out(name) and not is_held_out(name)}
    assert either == {"glass of juice", "glass of milk", "glass of water"}
    assert all(map(may_be_held_out, filter(is_held_out, bank.names))) and not may_be_held_out("pot of stew")


def test_most_categories_can_be_tested_on_composites(bank: ObjectBank) -> None:
    covered = {category_of(name) for name in bank.names} - {None}
    assert len(covered) >= 60


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("puppy", "dog"),
        ("golden retriever", "dog"),
        ("kittens", "cat"),
        ("women", "person"),
        ("police officer", "person"),
        ("red mountain bike", "bicycle"),
        ("taxi", "car"),
        ("jet", "airplane"),
        ("motorbike", "motorcycle"),
        ("fire truck", "truck"),
        ("sailboat", "boat"),
        ("duck", "bird"),
        ("calves", "cow"),
        ("elves", "person"),
        ("men", "person"),
        ("firemen", "person"),
        ("policewomen", "person"),
        ("two businessmen", "person"),
        ("specimen", None),
        ("gloves", None),
        ("lamb", "sheep"),
        ("armchair", "chair"),
        ("sofa", "couch"),
        ("knives", "knife"),
        ("mug", "cup"),
        ("apple slice", "apple"),
        ("laptop computer", "laptop"),
        ("tv_monitor", "tv"),
        ("Potted-Plant", "potted plant"),
        ("camel", None),
        ("glasses", None),
        ("magnifying glass", None),
        ("paper plane", None),
        ("chess king", None),
        ("carpet", None),
        ("wristwatch", None),
    ],
)
def test_category_of(name: str, category: str | None) -> None:
    assert category_of(name) == category
    assert is_held_out(name) is (category is not None)
