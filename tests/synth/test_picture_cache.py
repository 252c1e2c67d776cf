"""A cache gives what was decoded, keeps what was used last, and no more than it has room for."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wherein.synth.picture_cache import PictureCache


def test_the_picture_used_last_stays() -> None:
    cache, decoded = PictureCache(room=2 * 4 * 100), list[str]()

    def get(key: str) -> Image.Image:
        def decode() -> Image.Image:
            decoded.append(key)
            return Image.new("RGBA", (10, 10))

        return cache.get(key, decode)

    first = get("a")
    get("b")
    assert get("a") is first
    get("c")  # b goes
    get("a")
    get("b")
    assert decoded == ["a", "b", "c", "b"]


@given(st.lists(st.integers(1, 20), max_size=40))
def test_no_more_than_there_is_room_for(sides: list[int]) -> None:
    cache = PictureCache(room=4 * 500)
    for side in sides:
        assert cache.get(side, lambda side=side: Image.new("RGB", (side, side))).width == side  # type: ignore[misc]
        kept = list(cache._kept.values())
        assert len(kept) == 1 or sum(4 * picture.width * picture.height for picture in kept) <= 4 * 500


def test_threads_that_decode_the_same_picture_count_it_once() -> None:
    cache, together = PictureCache(room=4 * 250), Barrier(2, timeout=30)

    def decode() -> Image.Image:
        together.wait()  # both have found that it is not kept
        return Image.new("RGB", (10, 10))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: cache.get("a", decode), range(2)))
    kept = cache.get("a", decode)
    cache.get("b", lambda: Image.new("RGB", (10, 10)))  # there is room for two
    assert cache.get("a", lambda: Image.new("RGB", (10, 10))) is kept
