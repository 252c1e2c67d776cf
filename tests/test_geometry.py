import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.geometry import Frame, area, as_boxes, clip, from_xywh, iou, paired_iou

SIZES = [(1, 1), (1, 777), (4000, 1), (4000, 300), (127, 251), (224, 224), (31, 17)]
coordinates = st.floats(-500, 500).map(lambda value: round(value, 3))
boxes = st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=6).map(as_boxes)
sides = st.integers(1, 400)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame after a chain of up to five steps; crops mostly lie inside and sometimes hang over."""
    frame = Frame.identity(*draw(st.sampled_from(SIZES) | st.tuples(sides, sides)))
    for step in draw(st.lists(st.sampled_from(["resize", "crop", "pad"]), max_size=5)):
        if step == "resize":
            frame = frame.resize(draw(sides), draw(sides))
        elif step == "crop":
            x, y = draw(st.integers(-5, frame.model_width - 1)), draw(st.integers(-5, frame.model_height - 1))
            frame = frame.crop(x, y, draw(st.integers(1, frame.model_width)), draw(st.integers(1, frame.model_height)))
        else:
            frame = frame.pad(*draw(st.tuples(*[st.integers(0, 50)] * 4)))
    return frame


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    def slow_area(box: list[float]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1]) if box[2] > box[0] and box[3] > box[1] else 0.0

    shared = slow_area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = slow_area(list(a)) + slow_area(list(b)) - shared
    return shared / union if union > 0 else 0.0


@given(boxes, boxes)
def test_iou_equals_a_naive_loop(a: np.ndarray, b: np.ndarray) -> None:
    expected = np.array([[slow_iou(first, second) for second in b] for first in a]).reshape(len(a), len(b))
    assert iou(a, b).dtype == np.float64
    np.testing.assert_allclose(iou(a, b), expected, atol=1e-12)
    np.testing.assert_array_equal(iou(a, b), iou(b, a).T)
    assert ((iou(a, b) >= 0) & (iou(a, b) <= 1)).all()
    count = min(len(a), len(b))
    np.testing.assert_array_equal(paired_iou(a[:count], b[:count]), np.diagonal(iou(a[:count], b[:count])))


def test_iou_by_hand() -> None:
    box = [[0, 0, 10, 10]]
    assert iou(box, [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [9, 9, 1, 1], [3, 3, 3, 3]]).tolist() == [
        [1, 1 / 3, 0, 0, 0]
    ]
    assert iou([[3, 3, 3, 3]], [[3, 3, 3, 3]]).tolist() == [[0]]
    assert iou([], box).shape == (0, 1)
    assert iou([], []).shape == (0, 0)
    with pytest.raises(ValueError, match="as many boxes"):
        paired_iou(box, [])


def test_area_and_clip_by_hand() -> None:
    assert area([[1, 2, 4, 8], [4, 8, 1, 2], [0, 0, 0, 5]]).tolist() == [18, 0, 0]
    assert clip([[-5, -1, 50, 3], [90, 90, 95, 99]], 20, 10).tolist() == [[0, 0, 20, 3], [20, 10, 20, 10]]


def test_xywh_by_hand() -> None:
    assert from_xywh([[1, 2, 3, 6], [0, 0, 5, 0.5]]).tolist() == [[1, 2, 4, 8], [0, 0, 5, 0.5]]
    assert from_xywh([]).shape == (0, 4)


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]]])
def test_boxes_of_another_shape_are_refused(wrong: list) -> None:
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        area(wrong)


@given(frames(), st.data())
def test_image_to_model_and_back(frame: Frame, data: st.DataObject) -> None:
    fractions = data.draw(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4))
    inside = np.array(fractions) * [frame.width, frame.height, frame.width, frame.height]
    np.testing.assert_allclose(frame.to_image(frame.to_model(inside)), inside, atol=1e-6)


@given(frames())
def test_back_projected_boxes_stay_inside_the_image(frame: Frame) -> None:
    whole = frame.to_model([[0, 0, frame.width, frame.height]])  # where a picture is enlarged much, far away itself
    far = frame.to_image(whole + [-1e6, -1e6, 1e6, 1e6])
    np.testing.assert_array_equal(far, [[0, 0, frame.width, frame.height]])
    x0, y0, x1, y1 = frame.visible
    assert 0 <= x0 <= x1 <= frame.width and 0 <= y0 <= y1 <= frame.height


@given(frames())
def test_the_visible_part_lies_inside_the_picture_of_the_model(frame: Frame) -> None:
    x0, y0, x1, y1 = frame.visible
    if x1 > x0 and y1 > y0:
        seen = frame.to_model([frame.visible])[0]
        assert (seen >= -1e-6).all()
        assert seen[2] <= frame.model_width + 1e-6 and seen[3] <= frame.model_height + 1e-6
        assert not frame.truncated([frame.visible]).any()


@given(frames(), st.integers(1, 7), st.integers(1, 7))
def test_cells_tile_the_visible_part(frame: Frame, rows: int, cols: int) -> None:
    cells = frame.cells(rows, cols)
    assert cells.shape == (rows * cols, 4)
    assert (cells[:, 2:] >= cells[:, :2]).all()
    np.testing.assert_allclose(area(cells).sum(), area([frame.visible])[0], atol=1e-3)
    grid = cells.reshape(rows, cols, 4)
    np.testing.assert_allclose(grid[:, 1:, 0], grid[:, :-1, 2], atol=1e-6)  # raster order: x runs fastest
    np.testing.assert_allclose(grid[1:, :, 1], grid[:-1, :, 3], atol=1e-6)


@given(st.sampled_from(SIZES), sides, sides)
def test_uncropped_boxes_are_never_truncated(size: tuple[int, int], width: int, height: int) -> None:
    frame = Frame.identity(*size).resize(width, height).pad(3, 0, 7, 11)
    assert not frame.truncated([[0, 0, *size], [-9, -9, size[0] + 9, size[1] + 9]]).any()


def test_squash_letterbox_and_centre_crop_by_hand() -> None:
    squash = Frame.identity(400, 300).resize(224, 224)
    np.testing.assert_allclose(squash.to_model([[100, 75, 400, 300]]), [[56, 56, 224, 224]])

    letterbox = Frame.identity(400, 200).resize(200, 100).pad(0, 50, 0, 50)
    np.testing.assert_allclose(letterbox.to_model([[0, 0, 400, 200]]), [[0, 50, 200, 150]])
    np.testing.assert_allclose(letterbox.to_image([[0, 0, 100, 100]]), [[0, 0, 200, 100]])
    np.testing.assert_allclose(letterbox.cells(2, 1), [[0, 0, 400, 100], [0, 100, 400, 200]])
    assert area(letterbox.cells(4, 1)).tolist() == [0, 40000, 40000, 0]

    centre = Frame.identity(400, 200).resize(200, 100).crop(50, 0, 100, 100)
    assert centre.visible == (100, 0, 300, 200)
    boxes = [[90, 0, 200, 50], [100, 0, 300, 200], [150, 0, 301, 9], [0, 0, 50, 50], [120, -4, 200, 250]]
    assert centre.truncated(boxes).tolist() == [True, False, True, True, False]
    np.testing.assert_allclose(centre.to_model([[100, 0, 300, 200]]), [[0, 0, 100, 100]])


def test_a_crop_of_padding_alone_sees_nothing() -> None:
    frame = Frame.identity(10, 10).pad(0, 0, 20, 0).crop(15, 0, 10, 10)
    assert area([frame.visible]).tolist() == [0]
    assert area(frame.cells(2, 2)).tolist() == [0] * 4
    assert frame.truncated([[0, 0, 10, 10]]).all()


def test_impossible_frames_are_refused() -> None:
    frame = Frame.identity(5, 5)
    for action in (lambda: Frame.identity(0, 5), lambda: frame.resize(5, 0), lambda: frame.crop(0, 0, -1, 5)):
        with pytest.raises(ValueError, match="at least 1 pixel"):
            action()
    with pytest.raises(ValueError, match="negative"):
        frame.pad(0, -1, 0, 0)
