"""Drawings: what is painted where, on images of every size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wherein import drawing, geometry
from wherein.drawing import draw, shorten
from wherein.grounding import Grounding

SIZES = [(1, 1), (5, 300), (32, 32), (64, 48), (640, 480), (1600, 60), (3000, 2000)]


def grounding(
    phrase: str,
    boxes: Sequence[Sequence[float]] = (),
    absent: bool = False,
    mask: NDArray[np.bool_] | None = None,
) -> Grounding:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Grounding(phrase, array, np.linspace(0.87, 0.1, len(array)), "fake", absent, None, mask=mask)


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def filled(width: int, height: int, box: Sequence[int]) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((before != after).any(axis=2))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size_keeps_its_shape_and_the_given_image(width: int, height: int) -> None:
    image = grey(width, height)
    boxes = [[0, 0, width, height], [width * 0.2, height * 0.3, width * 0.7, height * 0.9], [-9, -9, 9999, 9999]]
    drawn = draw(image, [grounding("a very long phrase " * 9, boxes), grounding("unicorn", absent=True)])
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and drawn.flags.writeable
    assert (image == 128).all()
    assert changed(image, drawn).any()


def test_nothing_to_draw_changes_nothing() -> None:
    assert (draw(grey(40, 30), []) == 128).all()


def test_the_lines_follow_the_box() -> None:
    image = grey(400, 300)
    painted = changed(image, draw(image, [grounding("cat", [[100, 120, 300, 250]])]))
    assert painted[180, 100] and painted[180, 300] and painted[120, 200] and painted[250, 200]
    assert not painted[180, 110:290].any() and not painted[:, :97].any() and not painted[254:].any()


def test_the_lines_of_the_whole_image_are_seen() -> None:
    image = grey(32, 32)
    painted = changed(image, draw(image, [grounding("cat", [[0, 0, 32, 32]])]))
    assert painted[31].all() and painted[:, 31].all() and painted[:, 0].all()


def test_a_colour_for_each_phrase() -> None:
    image = grey(400, 300)
    boxes = [[20, 60, 80, 120], [120, 60, 180, 120]]
    drawn = draw(
        image,
        [grounding("cat", boxes), grounding("dog", [[220, 60, 280, 120]]), grounding("cat", [[320, 60, 380, 120]])],
    )
    first, second, dog, again = (tuple(drawn[90, x]) for x in (20, 120, 220, 320))
    assert first == second == again != dog


def test_more_phrases_than_colours() -> None:
    draw(grey(200, 200), [grounding(f"phrase {n}", [[n, n, n + 50, n + 60]]) for n in range(20)])


def test_what_has_no_box_is_listed_at_the_top_left() -> None:
    image = grey(400, 300)
    for missing in (grounding("unicorn", absent=True), grounding("unicorn")):
        painted = changed(image, draw(image, [missing]))
        rows, columns = np.nonzero(painted)
        assert rows.min() == 0 and columns.min() == 0 and rows.max() < 40 and columns.max() < 250


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_masks_of_every_size(width: int, height: int) -> None:
    image = grey(width, height)
    masks = [np.ones((height, width), bool), np.zeros((height, width), bool), filled(width, height, (0, 0, 1, 1)), None]
    drawn = draw(image, [grounding(f"phrase {n}", absent=True, mask=mask) for n, mask in enumerate(masks)], masks=True)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and drawn.flags.writeable
    assert (image == 128).all() and changed(image, drawn).any()


def test_masks_are_drawn_only_if_asked_for() -> None:
    image, cat = grey(400, 300), grounding("cat", [[100, 120, 300, 250]], mask=filled(400, 300, (120, 140, 280, 230)))
    without = draw(image, [cat])
    assert (without == draw(image, [grounding("cat", [[100, 120, 300, 250]])])).all()
    painted = changed(without, draw(image, [cat], masks=True))
    assert (painted == cat.mask).all()  # every pixel of the mask, and none beside it


def test_a_mask_is_half_transparent_in_a_solid_outline() -> None:
    image, mask = grey(400, 300), filled(400, 300, (120, 140, 280, 230))
    image[180, 200] = 255
    drawn = draw(image, [grounding("cat", [[100, 120, 300, 250]], mask=mask)], masks=True)
    colour = drawn[200, 100].astype(int)  # of the box
    for outline in (drawn[140, 120:280], drawn[229, 120:280], drawn[140:230, 120], drawn[140:230, 279]):
        assert (outline == colour).all()
    inside = drawn[200, 200].astype(int)
    assert (inside == drawn[150, 130]).all() and (np.abs(inside - colour)[[0, 2]] > 20).all()
    assert np.abs(inside - (128 + colour) / 2).max() < 15
    assert (drawn[180, 200].astype(int) - inside > 50).all()  # what is under the mask is still seen


def test_a_mask_has_the_colour_of_its_phrase_and_boxes_lie_on_it() -> None:
    image, everything = grey(400, 300), np.ones((300, 400), bool)
    boxes = [[20, 60, 80, 120]], [[220, 60, 280, 120]]
    cat, dog = (grounding(phrase, own) for phrase, own in zip(("cat", "dog"), boxes, strict=True))
    plain = draw(image, [cat, dog])
    for masked, x in ((0, 20), (1, 220)):
        masks = [everything if n == masked else None for n in range(2)]
        pair = [grounding(p, b, mask=m) for p, b, m in zip(("cat", "dog"), boxes, masks, strict=True)]
        drawn = draw(image, pair, masks=True)
        assert (drawn[90, [20, 220]] == plain[90, [20, 220]]).all()
        assert (drawn[0, 399] == plain[90, x]).all()  # the outline, at the image's corner
        text = (plain[42:58, 20:80] == 255).all(axis=2)
        assert text.any() and (drawn[42:58, 20:80][text] == 255).all()  # labels are as readable as ever


def test_the_outlines_lie_on_all_masks() -> None:
    image = grey(400, 300)
    first, second = filled(400, 300, (100, 100, 200, 200)), filled(400, 300, (150, 150, 300, 280))
    drawn = draw(image, [grounding("a", absent=True, mask=first), grounding("b", absent=True, mask=second)], masks=True)
    assert (drawn[199, 180] == drawn[110, 100]).all()


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(300, 400\), not \(30, 40\)"):
        draw(grey(400, 300), [grounding("cat", absent=True, mask=np.ones((30, 40), bool))], masks=True)


def test_a_line_as_thin_as_asked_for() -> None:
    scene = Image.fromarray(grey(400, 300))
    drawing.draw_boxes(scene, np.array([[100.0, 120, 300, 250]]), "#FFFFFF", 1)
    assert np.flatnonzero(changed(grey(400, 300), np.array(scene))[200]).tolist() == [100, 300]


def places(width: int, height: int, boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    labels = drawing._Labels(Image.fromarray(grey(width, height)), 15)
    for box in boxes:
        labels.add("a phrase", " 0.50", np.array(box, dtype=np.float64), "#000000", "#FFFFFF")
    return labels._taken


def test_labels_stay_inside_and_off_each_other() -> None:
    boxes = [[0, 0, 640, 480]] * 4 + [[600, 2, 640, 100], [0, 470, 9, 480], [-50, -50, 700, 700], [630, 470, 640, 480]]
    taken = places(640, 480, boxes)
    assert (taken[:, :2] >= 0).all() and (taken[:, 2:] <= [640, 480]).all()
    assert np.count_nonzero(geometry.iou(taken, taken)) == len(boxes)


def test_a_label_stands_on_its_box() -> None:
    ((left, _, _, bottom),) = places(640, 480, [[100, 200, 300, 400]])
    assert (left, bottom) == (100, 200)


def test_more_labels_than_room_still_stay_inside() -> None:
    taken = places(120, 60, [[0, 0, 120, 60]] * 30)
    assert (taken[:, :2] >= 0).all() and (taken[:, 2:] <= [120, 60]).all()


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (20, "elephant 0.87"),
        (13, "elephant 0.87"),
        (12, "elepha… 0.87"),
        (9, "ele… 0.87"),
        (8, "elephan…"),
        (4, "ele…"),
    ],
)
def test_shorten(room: int, expected: str) -> None:
    assert shorten("elephant", " 0.87", lambda text: len(text) <= room) == expected


def test_shorten_leaves_no_space_before_the_ellipsis() -> None:
    assert shorten("a red mug", " 0.87", lambda text: len(text) <= 12) == "a red… 0.87"


def test_shorten_gives_up() -> None:
    assert shorten("elephant", " 0.87", lambda text: False) == "ele"


def test_many_scripts_have_letters() -> None:
    font = drawing.load_font(20)
    unknown = bytes(font.getmask("\U0010fffd"))
    assert all(bytes(font.getmask(letter)) != unknown for letter in "aéßжΩא")


def test_drawing_works_without_opencv() -> None:
    program = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np; from wherein.drawing import draw; from wherein.grounding import Grounding\n"
        "g = Grounding('cat', np.array([[2, 9, 50, 40]]), np.ones(1), 'fake', False, None)\n"
        "print((draw(np.zeros((64, 64, 3), np.uint8), [g]) > 0).any())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_importing_draws_in_nothing_heavy() -> None:
    program = "import sys, wherein.drawing; print({'supervision', 'matplotlib', 'torch'} & set(sys.modules) or 'light')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "light", done.stderr
