"""Picture files: what is refused before the work, and that nothing half-written stays behind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein import pictures
from wherein.errors import InputError

PIXELS = np.full((4, 6, 3), 200, np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG"])
def test_written_whole_and_over_an_older_one(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        pictures.write(tmp_path / name, PIXELS)
    with Image.open(tmp_path / name) as picture:
        assert np.array_equal(np.asarray(picture), PIXELS)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "plain").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode  # as readable as any file


def test_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, says in [
        (tmp_path / "a.txt", "must end in"),
        (tmp_path / "a", "must end in"),
        (tmp_path / "missing" / "a.png", "No such file"),
        (tmp_path / "file" / "a.png", "Not a directory"),
        (tmp_path / f"{'a' * 300}.png", "File name too long"),
    ]:
        with pytest.raises(InputError, match=says):
            pictures.check_file(path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        pictures.check_file(tmp_path / "folder.png")


def test_jpeg_takes_only_so_many_pixels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wide = np.zeros((1, 65_501, 3), np.uint8)
    with pytest.raises(InputError, match="JPEG holds at most 65,500 pixels a side; use .png"):
        pictures.write(tmp_path / "a.jpg", wide)
    pictures.write(tmp_path / "a.jpg", wide[:, 1:])
    pictures.write(tmp_path / "a.png", wide)
    assert capfd.readouterr() == ("", "")  # libjpeg writes there by itself


def test_a_failed_write_keeps_the_older_picture_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.write(tmp_path / "a.png", PIXELS)
    before = (tmp_path / "a.png").read_bytes()

    def full(self: Image.Image, stream: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="No space left"):
        pictures.write(tmp_path / "a.png", PIXELS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_folder_is_made_or_refused_in_one_sentence(tmp_path: Path) -> None:
    for _ in range(2):
        pictures.make_folder(tmp_path / "new" / "newer")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "link", tmp_path / ("a" * 300)):
        with pytest.raises(InputError, match=f"^No file can be written in the folder {place}: "):
            pictures.make_folder(place)


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for place in (tmp_path, tmp_path / "empty", tmp_path / "new" / "newer", tmp_path / "empty" / "new"):
        pictures.check_new_folder(place)
    for place in (tmp_path / "file", tmp_path / "file" / "new", tmp_path / "new" / ("a" * 300)):
        with pytest.raises(InputError, match=f"^No file can be written in the folder {place}: [A-Z][a-z ]*[.]$"):
            pictures.check_new_folder(place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]
