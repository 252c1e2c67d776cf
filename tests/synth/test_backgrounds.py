"""Backgrounds from the package, from a folder, and made up."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein.errors import ImageError, InputError
from wherein.synth import Backgrounds


@pytest.mark.parametrize("backgrounds", [Backgrounds.load(), Backgrounds.procedural()], ids=["shipped", "procedural"])
def test_square_varied_and_reproducible(backgrounds: Backgrounds) -> None:
    rng = np.random.default_rng(0)
    made = [backgrounds.sample(rng, 96) for _ in range(20)]
    assert all(image.shape == (96, 96, 3) and image.dtype == np.uint8 for image in made)
    assert len({image.tobytes() for image in made}) == 20
    assert (backgrounds.sample(np.random.default_rng(0), 96) == made[0]).all()


def test_the_package_has_at_least_60_crops() -> None:
    assert Backgrounds.load().count >= 60
    assert Backgrounds.procedural().count == 0


def test_a_folder_of_pictures_of_any_shape(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (50, 9), (1, 2, 3)).save(tmp_path / "deep" / "thin.png")
    Image.new("L", (9, 50), 7).save(tmp_path / "grey.jpg")
    (tmp_path / "._grey.jpg").write_bytes(b"what macOS leaves")
    (tmp_path / "shots.jpg").mkdir()
    backgrounds = Backgrounds.from_folder(tmp_path)
    assert backgrounds.count == 2 and backgrounds.complaints(2) == []
    assert backgrounds.sample(np.random.default_rng(0), 64).shape == (64, 64, 3)


def test_an_empty_folder_and_a_broken_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No backgrounds"):
        Backgrounds.from_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ImageError):
        Backgrounds.from_folder(tmp_path).sample(np.random.default_rng(0), 8)
    (complaint,) = Backgrounds.from_folder(tmp_path).complaints(2)
    assert "a.png" in complaint
