"""Decoded pictures, kept while there is room: a bank may be a hundred thousand files, and a photograph may be huge."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from PIL import Image

ROOM = 2**28
"""Bytes that one cache holds."""
_PIXEL = 4  # bytes, in Pillow's memory, of RGB as well


class PictureCache:
    """The pictures used last, up to `room` bytes of them."""

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._taken = room, 0
        self._kept: OrderedDict[Hashable, Image.Image] = OrderedDict()

    def get(self, key: Hashable, decode: Callable[[], Image.Image]) -> Image.Image:
        """The picture of `key`, decoded if it is not kept; not to be changed by the caller."""
        picture = self._kept.pop(key, None)
        if picture is None:
            picture = decode()
            self._taken += _bytes(picture)
        self._kept[key] = picture
        while self._taken > self._room and len(self._kept) > 1:
            self._taken -= _bytes(self._kept.popitem(last=False)[1])
        return picture


def _bytes(picture: Image.Image) -> int:
    return picture.width * picture.height * _PIXEL
