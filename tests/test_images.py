import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein.errors import ImageError
from wherein.images import MAX_PIXELS, list_images, list_unread, load

RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255, 255, 255]
AVIF = {"AVIF"}.intersection(Image.registered_extensions().values())  # not in every build of Pillow


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def quadrants() -> Image.Image:
    """64 x 32 with a different grey in each quarter, smooth enough for JPEG."""
    quarters = np.array([[0, 80], [160, 240]], dtype=np.uint8)
    return Image.fromarray(np.kron(quarters, np.ones((16, 32), np.uint8))).convert("RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a.swapaxes(0, 1), 2)),
        (8, lambda a: np.rot90(a, 1)),
        (99, lambda a: a),
    ],
)
def test_exif_orientation_is_applied(kind: str, orientation: int, undo) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = load(encoded(quadrants(), kind, exif=exif))
    expected = undo(np.asarray(quadrants()))
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"])
def test_damaged_exif_is_no_reason_to_refuse_a_photo_or_to_warn(kind: str, exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(encoded(quadrants(), kind, exif=exif)).shape == (32, 64, 3)


def palette(transparent: int | bytes | None) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return encoded(image, **({} if transparent is None else {"transparency": transparent}))


def grey16(kind: str, **options: object) -> bytes:
    return encoded(Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16)), kind, **options)


def retagged(tiff: bytes, *changes: tuple[int, int, int]) -> bytes:
    """A TIFF with other values of short tags: the tag, its value, the other value."""
    for tag, *values in changes:
        old, new = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for value in values)
        assert old in tiff
        tiff = tiff.replace(old, new)
    return tiff


def pgm16(maxval: int, *greys: int) -> bytes:
    return b"P5\n%d 1\n%d\n" % (len(greys), maxval) + np.array(greys, dtype=">u2").tobytes()


WHITE_IS_ZERO = (262, 1, 0)
WIDE_FLOATS = (258, 32, 64)  # bits of a grey


def frames(kind: str, **options: object) -> bytes:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    return encoded(first, kind, save_all=True, append_images=[second], duration=50, **options)


@pytest.mark.parametrize(
    ("data", "row"),
    [
        pytest.param(encoded(Image.new("RGB", (1, 1), "red")), [RED], id="1x1"),
        pytest.param(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 0))), [WHITE], id="transparent"),
        pytest.param(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 51))), [[255, 204, 204]], id="alpha"),
        pytest.param(encoded(Image.new("LA", (1, 1), (0, 51))), [[204] * 3], id="grey with alpha"),
        pytest.param(palette(None), [RED, BLUE], id="palette"),
        pytest.param(palette(0), [WHITE, BLUE], id="palette with a transparent colour"),
        pytest.param(palette(bytes([255, 0])), [RED, WHITE], id="palette with alpha"),
        pytest.param(encoded(Image.new("RGB", (1, 1), "red"), transparency=(255, 0, 0)), [WHITE], id="colour key"),
        pytest.param(encoded(Image.new("L", (1, 1), 7)), [[7] * 3], id="grey"),
        pytest.param(encoded(Image.new("1", (1, 1), 1)), [WHITE], id="1 bit"),
        pytest.param(grey16("PNG"), [[0] * 3, WHITE, [128] * 3], id="16 bit PNG"),
        pytest.param(grey16("PNG", transparency=0), [WHITE, WHITE, [128] * 3], id="16 bit PNG with a transparent grey"),
        pytest.param(grey16("TIFF"), [[0] * 3, WHITE, [128] * 3], id="16 bit TIFF"),
        pytest.param(grey16("TIFF", compression="tiff_lzw"), [[0] * 3, WHITE, [128] * 3], id="16 bit TIFF LZW"),
        pytest.param(
            retagged(grey16("TIFF"), WHITE_IS_ZERO), [WHITE, [0] * 3, [127] * 3], id="16 bit TIFF, white is 0"
        ),
        pytest.param(
            retagged(grey16("TIFF", compression="tiff_lzw"), WHITE_IS_ZERO),
            [WHITE, [0] * 3, [127] * 3],
            id="16 bit TIFF LZW, white is 0",
        ),
        pytest.param(pgm16(65535, 0, 65535, 32768), [[0] * 3, WHITE, [128] * 3], id="16 bit PGM"),
        pytest.param(pgm16(1000, 0, 1000, 500), [[0] * 3, WHITE, [128] * 3], id="PGM of 1001 greys"),
        pytest.param(b"P2\n3 1\n1000\n0 1000 500\n", [[0] * 3, WHITE, [128] * 3], id="PGM in plain text"),
        pytest.param(encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [RED], id="CMYK TIFF"),
        pytest.param(encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "JPEG"), [RED], id="CMYK JPEG"),
        pytest.param(frames("GIF"), [RED] * 4, id="animated GIF"),
        pytest.param(frames("WEBP", lossless=True), [RED] * 4, id="animated WebP"),
        pytest.param(frames("PNG"), [RED] * 4, id="animated PNG"),
        pytest.param(frames("TIFF"), [RED] * 4, id="pages of a TIFF"),
        pytest.param(encoded(Image.new("RGB", (1, 1), "red"), "BMP"), [RED], id="BMP"),
    ],
)
def test_every_mode_becomes_rgb(data: bytes, row: list) -> None:
    got = load(data)
    assert got.dtype == np.uint8 and got.flags["C_CONTIGUOUS"] and got.flags["WRITEABLE"]
    assert np.abs(got[0].astype(int) - row).max() <= 2  # JPEG is not exact


@pytest.mark.parametrize(
    ("source", "row"),
    [
        (np.uint8([[[255, 0, 0, 7]]]), [[255, 0, 0, 7]]),
        (np.uint8([[RED]]), [[*RED, 255]]),
        (np.uint8([[9]]), [[9, 9, 9, 255]]),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 51)), [[255, 0, 0, 51]]),
        (palette(0), [[*RED, 0], [*BLUE, 255]]),
        (encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [[*RED, 255]]),
        (grey16("PNG"), [[0, 0, 0, 255], [255] * 4, [128, 128, 128, 255]]),
        (grey16("PNG", transparency=32768), [[0, 0, 0, 255], [255] * 4, [128, 128, 128, 0]]),
    ],
)
def test_alpha_may_be_kept(source: object, row: list) -> None:
    got = load(source, alpha=True)
    assert got.dtype == np.uint8 and got[0].tolist() == row


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", *AVIF])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_files_are_refused(kind: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert load(data).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="the given data"):
        load(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text file\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
        (png_header(30_000, 30_000), "64,000,000"),
        (png_header(8001, 8000), "8001 x 8000.*64,000,000"),
        (png_header(10_000, 10_000), "64,000,000"),
        (png_header(8, 8), "damaged"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "8 bits"),
        (encoded(Image.new("I", (2, 2)), "TIFF"), "8 bits"),
        (
            retagged(encoded(Image.new("F", (2, 2)), "TIFF"), WIDE_FLOATS),
            "begins as TIFF does, but .* kind that is not read",
        ),
    ],
)
def test_unusable_bytes_are_refused_with_one_sentence(data: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own bomb warning must not appear
        with pytest.raises(ImageError, match=reason) as caught:
            load(data)
    assert "\n" not in str(caught.value)


def test_the_pixel_limit_is_ours_and_pillows_own_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encoded(Image.new("RGB", (10, 10)))
    for limit in (99, 60, 40, 1):
        with pytest.raises(ImageError, match=f"the {limit} allowed|the {limit} pixels allowed"):
            load(data, max_pixels=limit)
    assert load(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10 x 10"):
        load(Image.new("RGB", (10, 10)), max_pixels=99)
    with pytest.raises(ImageError, match="10 x 9"):
        load(np.zeros((9, 10, 3), np.uint8), max_pixels=89)
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None and before > MAX_PIXELS


def test_arrays() -> None:
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert load(colour) is colour
    np.testing.assert_array_equal(load(colour[::-1, ::2]), colour[::-1, ::2])
    np.testing.assert_array_equal(load(colour[..., 0]), np.repeat(colour[..., :1], 3, axis=2))
    np.testing.assert_array_equal(load(np.uint8([[[255, 0, 0, 0], [255, 0, 0, 255]]])), [[WHITE, RED]])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), bool),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.array(None),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8"):
        load(array)


def test_pillow_images_are_left_as_they_were(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encoded(quadrants(), "JPEG", exif=exif))
    with Image.open(tmp_path / "a.jpg") as image:
        assert load(image).shape == (64, 32, 3)
        assert image.size == (64, 32)
        np.testing.assert_array_equal(load(image), load(tmp_path / "a.jpg"))


def test_paths(tmp_path: Path) -> None:
    photo = tmp_path / "ein Bild ä.png"
    photo.write_bytes(encoded(Image.new("RGB", (3, 2), "red")))
    assert load(photo).shape == load(str(photo)).shape == (2, 3, 3)
    wrong_suffix = tmp_path / "a.jpg"
    wrong_suffix.write_bytes(photo.read_bytes())
    assert load(wrong_suffix).shape == (2, 3, 3)
    for path, reason in [
        (tmp_path / "none.png", "none.png does not exist"),
        (tmp_path, "not a file"),
        ("/dev/zero", "not a file"),
        ("", "not a file"),
        ("a\0b.png", "does not exist"),
        ("x" * 100_000, "cannot be opened"),
        ("https://example.org/a.png", "URL"),
        (None, "not NoneType"),
    ]:
        with pytest.raises(ImageError, match=reason) as caught:
            load(path)
        assert len(str(caught.value)) < 400


def test_list_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no image"):
        list_images(tmp_path)
    for name in ("b.JPG", "a.png", ".c.png", "notes.txt", "d.webp", "e.jpe", "g.heic", "f.NEF", ".h.heic"):
        (tmp_path / name).touch()
    for name in ("folder.png", "folder.pdf"):
        (tmp_path / name).mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "d.webp", "e.jpe", "gone.jpg"]
    assert [path.name for path in list_unread(tmp_path)] == ["f.NEF", "g.heic"]
    with pytest.raises(ImageError, match="gone.jpg does not exist"):
        load(tmp_path / "gone.jpg")
    for listed in (list_images, list_unread):
        with pytest.raises(ImageError, match="not a folder"):
            listed(tmp_path / "a.png")


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(ImageError, match=f"the folder {tmp_path} cannot be read: Permission denied"):
        list_images(tmp_path)
