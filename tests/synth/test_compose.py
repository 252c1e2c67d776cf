"""Composites keep what the paper states (PIN-6) and their boxes are exact."""

import io

import numpy as np
import pytest
from PIL import Image

from wherein.errors import InputError
from wherein.synth import AUGMENTED, PAPER, ComposeConfig, Cutout, ObjectBank, compose

SIDE = 112


def plain(value: int, side: int = SIDE) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return max(shared / ((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))


def test_the_paper_s_constraints_over_2000_composites(bank: ObjectBank) -> None:
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(2000):
        made = compose(plain(128), bank, rng)
        counts.add(len(made.objects))
        assert len({placed.name for placed in made.objects}) == len(made.objects)
        for order, placed in enumerate(made.objects):
            width, height = placed.box[2:] - placed.box[:2]
            assert placed.box.min() >= 0 and placed.box.max() <= SIDE and min(width, height) >= 1
            assert PAPER.s_min[order] * SIDE - 1 <= max(width, height) <= PAPER.s_max[order] * SIDE
            assert bank[placed.cutout].name == placed.name
            assert 0 <= placed.visible <= 1
            assert all(overlap(placed.box, earlier.box) <= 0.5 for earlier in made.objects[:order])
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("size", [(150, 50), (40, 160), (90, 90)])
def test_the_aspect_ratio_is_kept(size: tuple[int, int]) -> None:
    stream = io.BytesIO()
    Image.new("RGBA", size, (10, 200, 10, 255)).save(stream, "PNG")
    bar = ObjectBank([Cutout("bar", stream.getvalue(), "made here", "CC0", False)])
    rng = np.random.default_rng(1)
    for _ in range(100):
        (placed,) = compose(plain(0, 256), bar, rng).objects
        width, height = placed.box[2:] - placed.box[:2]
        assert min(abs(width - height * size[0] / size[1]), abs(height - width * size[1] / size[0])) <= 1


@pytest.mark.parametrize("config", [ComposeConfig(max_objects=1), ComposeConfig(max_objects=1, flip=True)])
def test_the_box_is_the_tight_box_of_the_alpha(bank: ObjectBank, config: ComposeConfig) -> None:
    for seed in range(100):
        black, white = (compose(plain(value), bank, np.random.default_rng(seed), config) for value in (0, 255))
        alpha = 255 - (white.image.astype(int) - black.image).max(2)
        outer, inner = (tight(alpha >= level) for level in (126, 130))  # blending rounds by one level
        box = black.objects[0].box
        assert (outer[:2] <= box[:2]).all() and (box[:2] <= inner[:2]).all()
        assert (inner[2:] <= box[2:]).all() and (box[2:] <= outer[2:]).all()


def tight(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("config", [PAPER, AUGMENTED])
def test_a_seed_gives_the_same_composite(bank: ObjectBank, config: ComposeConfig) -> None:
    first, second = (compose(plain(90), bank, np.random.default_rng(7), config) for _ in range(2))
    assert (first.image == second.image).all()
    assert [placed.name for placed in first.objects] == [placed.name for placed in second.objects]
    assert all((a.box == b.box).all() for a, b in zip(first.objects, second.objects, strict=True))


def test_options_change_the_picture_and_not_the_background_given(bank: ObjectBank) -> None:
    background = plain(90)
    grey = compose(background, bank, np.random.default_rng(3), ComposeConfig(grayscale=1.0)).image
    assert (grey[..., 0] == grey[..., 2]).all()
    assert (background == 90).all()
    assert compose(background, bank, np.random.default_rng(3), AUGMENTED).image.shape == (SIDE, SIDE, 3)


def test_a_later_object_reduces_what_is_visible_but_not_the_box(bank: ObjectBank) -> None:
    rng = np.random.default_rng(5)
    hidden = [
        placed.visible
        for _ in range(200)
        for placed in compose(plain(0), bank, rng, ComposeConfig(min_objects=3)).objects[:-1]
    ]
    assert min(hidden) < 1 and max(hidden) == 1


def test_a_bank_with_fewer_names_than_objects(bank: ObjectBank) -> None:
    camels = bank.keep(lambda cutout: cutout.name == "camel")
    assert len(compose(plain(0), camels, np.random.default_rng(0), ComposeConfig(min_objects=3)).objects) == 1


def test_bad_arguments_are_one_sentence(bank: ObjectBank) -> None:
    with pytest.raises(InputError, match="square RGB"):
        compose(np.zeros((4, 6, 3), np.uint8), bank, np.random.default_rng(0))
    with pytest.raises(InputError, match="not empty"):
        compose(plain(0), ObjectBank([]), np.random.default_rng(0))
    with pytest.raises(InputError, match="one s_min and s_max per object"):
        ComposeConfig(max_objects=4)
