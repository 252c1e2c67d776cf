"""The object bank in the package, and banks from folders."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein import images
from wherein.errors import ImageError, InputError
from wherein.synth import Cutout, ObjectBank


def png(alpha: int = 255) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (30, 20), (200, 10, 10, alpha)).save(stream, "PNG")
    return stream.getvalue()


def test_it_is_large_enough_and_permissive(bank: ObjectBank) -> None:
    assert len(bank.names) >= 700
    assert len(bank) >= 2000
    assert {cutout.licence for cutout in bank} == {"MIT", "public domain"}
    assert all(cutout.source for cutout in bank)


def test_names_are_clean_lower_case_ascii(bank: ObjectBank) -> None:
    assert [name for name in bank.names if not re.fullmatch(r"[a-z][a-z'-]*( [a-z'-]+)*", name)] == []


def test_every_cutout_has_a_transparent_background_and_is_tight(bank: ObjectBank) -> None:
    for cutout in bank:
        solid = cutout.rgba[..., 3] >= 128
        assert cutout.rgba.dtype == np.uint8
        assert max(solid.shape) <= 192
        assert 0.05 < solid.mean() < 0.99, cutout.source
        tight = Image.fromarray(solid).getbbox()
        assert tight is not None
        width, height = tight[2] - tight[0], tight[3] - tight[1]
        assert width >= solid.shape[1] - 4 and height >= solid.shape[0] - 4, cutout.source


def test_indices_without_keep_and_plus(bank: ObjectBank) -> None:
    camels = [bank[index] for index in bank.indices("camel")]
    assert len(camels) >= 2 and {camel.name for camel in camels} == {"camel"}
    rest = bank.without(lambda name: name == "camel")
    assert "camel" not in rest.names and len(rest) == len(bank) - len(camels)
    assert len(rest + bank.keep(lambda cutout: cutout.name == "camel")) == len(bank)


def test_an_unknown_name_is_one_sentence(bank: ObjectBank) -> None:
    with pytest.raises(InputError, match="no 'gryphon'"):
        bank.indices("gryphon")


def test_a_folder_with_one_sub_folder_per_name(tmp_path: Path) -> None:
    for name in ("tea_pot", "lamp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png())
    bank = ObjectBank.from_folder(tmp_path)
    assert bank.names == ("lamp", "tea pot")
    assert bank[0].rgba.shape == (20, 30, 4)


def test_a_folder_with_an_index(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png())
    row = {"file": "0.png", "name": "lamp", "source": "mine", "licence": "CC0", "photographic": True}
    (tmp_path / "index.json").write_text(json.dumps([row]))
    bank = ObjectBank.from_folder(tmp_path)
    assert bank.names == ("lamp",) and bank[0].photographic
    (tmp_path / "index.json").write_text(json.dumps([{"name": "lamp"}]))
    with pytest.raises(InputError, match="index.json is no list of cut-outs"):
        ObjectBank.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": 5}, "is no list of cut-outs"),
        ({"source": None}, "is no list of cut-outs"),
        ({"photographic": "yes"}, "is no list of cut-outs"),
        ({"name": ""}, "A name in .*index.json is ''"),
        ({"name": "a\x1b[31m"}, "A name in .*index.json"),
        (None, "lists no cut-outs"),
    ],
)
def test_a_strange_index_is_one_sentence(change: dict[str, object] | None, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png())
    row = {"file": "0.png", "name": "lamp", "source": "mine", "licence": "CC0", "photographic": True}
    (tmp_path / "index.json").write_text(json.dumps([] if change is None else [{**row, **change}]))
    with pytest.raises(InputError, match=sentence):
        ObjectBank.from_folder(tmp_path)


def test_names_are_made_tidy_and_what_is_hidden_is_no_cutout(tmp_path: Path) -> None:
    for file in ("Tea_Pot/a.png", "tea  pot/b.png", "bow_(weapon)/a.png", "lamp/._a.png", ".trash/x.png", "lamp/a.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(png())
    bank = ObjectBank.from_folder(tmp_path)
    assert bank.names == ("bow", "lamp", "tea pot") and len(bank) == 4
    row = {"file": "lamp/a.png", "name": "Desk\nLamp", "source": "mine", "licence": "CC0", "photographic": True}
    (tmp_path / "index.json").write_text(json.dumps([row]))
    assert ObjectBank.from_folder(tmp_path).names == ("desk lamp",)
    (tmp_path / "index.json").unlink()
    (tmp_path / "lamp").rename(tmp_path / "a#b")
    with pytest.raises(InputError, match="The folder .*a#b"):
        ObjectBank.from_folder(tmp_path)


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "bank").mkdir()
    for file in ("../secret.png", str(tmp_path / "secret.png"), "none.png"):
        row = {"file": file, "name": "lamp", "source": "mine", "licence": "CC0", "photographic": True}
        (tmp_path / "bank/index.json").write_text(json.dumps([row]))
        with pytest.raises(InputError, match="in the folder"):
            ObjectBank.from_folder(tmp_path / "bank")


def test_files_are_read_when_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "lamp").mkdir()
    file = tmp_path / "lamp" / "a.png"
    file.write_bytes(png())
    (cutout,) = ObjectBank.from_folder(tmp_path)
    file.write_bytes(png(alpha=9))
    assert cutout.rgba[0, 0].tolist() == [200, 10, 10, 9]
    file.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        _ = cutout.rgba


def test_a_picture_is_loaded_upright_with_its_alpha() -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 4), np.uint8)
    Image.fromarray(picture).save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(images.load(stream.getvalue(), alpha=True), np.rot90(picture, -1))
    stream = io.BytesIO()
    Image.fromarray(picture[..., :3]).save(stream, "PNG")
    np.testing.assert_array_equal(images.load(stream.getvalue(), alpha=True)[..., 3], 255)


def test_metadata_that_cannot_be_written_again_is_no_reason_to_refuse_a_cutout() -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 20
    broken = exif.tobytes().replace(b"\x01\x0e\0\x02", b"\x01\x00\0\x02")  # a text as the width, a number
    assert broken != exif.tobytes()
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 4), np.uint8)
    Image.fromarray(picture).save(stream, "PNG", exif=broken)
    cutout = Cutout("lamp", stream.getvalue(), "mine", "CC0", False)
    np.testing.assert_array_equal(cutout.rgba, np.rot90(picture, -1))


def test_the_limits_of_images_hold_for_cutouts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.images.load.__defaults__", (100,))
    with pytest.raises(ImageError, match="more than the 100 pixels allowed"):
        _ = Cutout("lamp", png(), "mine", "CC0", False).rgba


def test_an_empty_folder_and_a_broken_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No cut-outs"):
        ObjectBank.from_folder(tmp_path)
    with pytest.raises(ImageError, match="not a readable image"):
        _ = Cutout("lamp", b"nothing", "mine", "CC0", False).rgba
