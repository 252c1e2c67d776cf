"""Decoded pictures, kept while there is room: a bank may be a hundred thousand files, and a photograph may be huge."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from PIL import Image

ROOM = 2**28
"""Bytes that one cache holds."""
_PIXEL = 4  # bytes, in Pillow's memory, of RGB as well


class PictureCache:
    """The pictures used last, up to `room` bytes of them; threads may share it."""

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._taken = room, 0
        self._kept: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], Image.Image]) -> Image.Image:
        """The picture of `key`, decoded if it is not kept; not to be changed by the caller."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = decode()  # by several threads at a time, and now and then by two of them the same
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._taken += _bytes(picture)
            while self._taken > self._room and len(self._kept) > 1:
                self._taken -= _bytes(self._kept.popitem(last=False)[1])
        return picture


def _bytes(picture: Image.Image) -> int:
    return picture.width * picture.height * _PIXEL
