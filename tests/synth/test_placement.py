"""Overlaps and offsets of whole-pixel boxes, against the obvious."""

from hypothesis import given
from hypothesis import strategies as st

from wherein.synth.placement import Box, offset, overlap

SIDE = 12


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
    return left, top, draw(st.integers(left + 1, SIDE)), draw(st.integers(top + 1, SIDE))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(boxes(), st.lists(boxes(), max_size=3))
def test_overlap_counts_pixels(box: Box, others: list[Box]) -> None:
    shares = [
        len(pixels(box) & pixels(other)) / size for other in others for size in (len(pixels(box)), len(pixels(other)))
    ]
    assert overlap(box, others) == max(shares, default=0)


@given(boxes(), boxes())
def test_offset_is_along_the_longer_way(box: Box, other: Box) -> None:
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (box, other)]
    assert offset(box, other) == max(abs(centres[0][0] - centres[1][0]), abs(centres[0][1] - centres[1][1]))
