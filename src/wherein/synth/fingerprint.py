"""Which pictures a set is made of: what stands for them in caches and in settings that a run must be resumed with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from wherein.errors import ImageError


def fingerprint(pictures: Iterable[tuple[str, bytes | Path]]) -> str:
    """16 hexadecimal digits of names and contents, in their order; where files lie is no part of it.

    Raises:
        ImageError: a file cannot be read.

    >>> fingerprint([("a mug", b"1")]) == fingerprint([("a mug", b"2")])
    False
    """
    digest = hashlib.sha256()
    try:
        for name, source in pictures:
            content = source if isinstance(source, bytes) else source.read_bytes()
            digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    except OSError as error:
        raise ImageError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]
