"""Safe loading: whatever the caller calls an image becomes upright 8-bit RGB, or one clear `ImageError`."""

import io
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from wherein.errors import ImageError

MAX_PIXELS = 64_000_000
_SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2",),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}  # formats outside this list are refused: some of Pillow's other readers start programs (EPS starts Ghostscript)
_UNREAD = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".svg", ".pdf"}
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # EXIF orientation -> what undoes it
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_pillow_globals = threading.Lock()  # its limit of pixels, and Python's filters of its warnings


def load(
    source: str | Path | bytes | Image.Image | NDArray[Any], max_pixels: int = MAX_PIXELS, *, alpha: bool = False
) -> NDArray[np.uint8]:
    """The image as uint8[H, W, 3]: RGB, upright (EXIF), transparency on white, the first frame of an animation.

    Args:
        source: path of an image file, the bytes of one, a Pillow image (its current frame), or a uint8 array
            [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA. An RGB array is returned as it is, not copied.
        max_pixels: images with more pixels than this are refused before they are decoded.
        alpha: give uint8[H, W, 4], RGBA, instead; opaque where the image has no transparency.

    Raises:
        ImageError: missing, empty, damaged, too large, not an image, a URL (none is ever followed), or pixels
            without a defined 8-bit meaning (floats, 32-bit greys, an array of another type or shape).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels, alpha)
    if isinstance(source, Image.Image):
        with _decoding("the given image"):
            _check_size(source, "the given image", max_pixels)
            return _to_array(source, "the given image", alpha)
    if isinstance(source, bytes):
        return _from_stream(io.BytesIO(source), "the given data", max_pixels, alpha)
    if isinstance(source, str | Path):
        return _from_path(source, max_pixels, alpha)
    raise ImageError(f"an image must be a path, bytes, a Pillow image or an array, not {type(source).__name__}")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, known by their suffix, sorted by name; hidden files are left out.

    A link whose file is gone is one of them, to be complained of as a missing image when it is loaded.

    Raises:
        ImageError: `folder` is no folder, cannot be read, or holds no image.
    """
    known = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
    found = _list(folder, known)
    if not found:
        raise ImageError(f"{folder} holds no image; the suffixes looked for are {' '.join(sorted(known))}")
    return found


def list_unread(folder: Path) -> list[Path]:
    """What `list_images` passes over though it is a picture, such as HEIC or a camera's raw file, sorted by name.

    Raises:
        ImageError: `folder` is no folder, or cannot be read.
    """
    return _list(folder, _UNREAD)


def _list(folder: Path, suffixes: Collection[str]) -> list[Path]:
    try:
        if not folder.is_dir():
            raise ImageError(f"{folder} is not a folder; give a folder that holds images")
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(path for path in visible if path.suffix.lower() in suffixes and not path.is_dir())
    except OSError as error:
        raise ImageError(f"the folder {folder} cannot be read: {error.strerror or error}") from error


def _from_path(source: str | Path, max_pixels: int, alpha: bool) -> NDArray[np.uint8]:
    name = f"image {source!s:.200}"  # cut: base64 text is sometimes given by mistake
    if "://" in str(source):
        raise ImageError(f"{name} is a URL, and none is ever followed; download it and give the path of the file")
    path = Path(source)
    try:
        if not path.is_file():  # a pipe or device is refused too: reading it might never end
            raise ImageError(f"{name} {'is not a file' if path.exists() else 'does not exist'}; give an image file")
        stream = path.open("rb")
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}") from error
    with stream:
        return _from_stream(stream, name, max_pixels, alpha)


def _from_stream(stream: IO[bytes], name: str, max_pixels: int, alpha: bool) -> NDArray[np.uint8]:
    if not stream.read(1):
        raise ImageError(f"{name} is empty (0 bytes)")
    with _decoding(name), _open_header(stream, name, max_pixels) as image:
        _check_size(image, name, max_pixels)
        return _to_array(image, name, alpha)


def _from_array(array: NDArray[Any], max_pixels: int, alpha: bool) -> NDArray[np.uint8]:
    shape = f"{array.dtype}{list(array.shape)}"
    if array.dtype != np.uint8:
        raise ImageError(f"an image array must be uint8 with values 0..255, not {shape}; scale and convert it first")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)) or array.size == 0:
        raise ImageError(f"an image array must be uint8[H, W], [H, W, 3] or [H, W, 4], not {shape}")
    if array.shape[2:] == (3,) and not alpha:
        if array.shape[0] * array.shape[1] > max_pixels:
            raise _too_large("the given array", array.shape[1], array.shape[0], max_pixels)
        return np.ascontiguousarray(array)
    return load(Image.fromarray(array), max_pixels, alpha=alpha)


def _open_header(stream: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """Read the header only, with our limit in the place of Pillow's own.

    Pillow's limit is a global; some of its readers need it, because they allocate the picture with the header.
    """
    Image.init()
    readable = [name for name in _SUFFIXES if name in Image.OPEN]  # AVIF is not in every build
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(stream, formats=readable)
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name} has more than the {max_pixels:,} pixels allowed; make it smaller") from error
        except UnidentifiedImageError as error:
            raise _unidentified(stream, name, readable) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _unidentified(stream: IO[bytes], name: str, readable: Collection[str]) -> ImageError:
    """Pillow does not tell what is no image from what is damaged, or has pixels that it cannot read, such as floats."""
    stream.seek(0)
    head = stream.read(16)
    for kind in readable:
        begins_so = Image.OPEN[kind][1]
        if begins_so is not None and begins_so(head):
            return ImageError(
                f"{name} begins as {kind} does, but is damaged or has pixels of a kind that is not read; "
                "convert it to 8 bits a colour first"
            )
    return ImageError(f"{name} is not an image in a known format ({', '.join(_SUFFIXES)})")


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(name, image.width, image.height, max_pixels)


def _too_large(name: str, width: int, height: int, max_pixels: int) -> ImageError:
    return ImageError(f"{name} has {width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller")


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError`: on damaged bytes they raise nearly every type there is."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name} is damaged or cut short and cannot be decoded ({error})") from error


def _to_array(image: Image.Image, name: str, alpha: bool) -> NDArray[np.uint8]:
    image.load()
    undo = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):  # of which Pillow makes 0..65535
        image = _to_8_bits(image)
    if undo is not None:
        image = image.transpose(undo)
    if image.mode in ("I", "F"):
        raise ImageError(f"{name} holds 32-bit greys, whose range is not known; convert it to 8 bits first")
    if not image.has_transparency_data:
        image = image.convert("RGB")
    elif not alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGBA" if alpha else "RGB"))


def _orientation(image: Image.Image) -> Any:
    """What EXIF says; 1, upright, where that is damaged: the pixels are not."""
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return image.getexif().get(_EXIF_ORIENTATION, 1)
        except Exception:  # nearly every type there is, as of decoders
            return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit greys as 8-bit ones with alpha; Pillow would clip them, and lose which grey is transparent."""
    values = np.asarray(image)
    grey = (values.astype(np.uint32) + 128) // 257  # 65535 -> 255, rounded
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # as Pillow itself does where greys have 8 bits
    alpha = np.where(values == image.info.get("transparency", -1), 0, 255)
    return Image.fromarray(np.dstack([grey, alpha]).astype(np.uint8))
