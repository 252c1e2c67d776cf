"""Visual Genome's region descriptions."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints, open_dataset, read_genome
from wherein.errors import InputError


def region(phrase: Any = "a red cup ", **changes: Any) -> dict[str, Any]:
    return {"region_id": 1, "image_id": 1, "phrase": phrase, "x": 1, "y": 2, "width": 3, "height": 4, **changes}


def write(folder: Path, content: Any) -> Path:
    path = folder / "region_descriptions.json"
    path.write_text(json.dumps(content))
    return path


def test_regions(tmp_path: Path) -> None:
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K_2" / "2.jpg").write_bytes(b"")
    (tmp_path / "VG_100K" / "1.jpg").write_bytes(b"")
    path = write(tmp_path, [{"id": n, "regions": [region(), region("sky", x=-1)]} for n in (1, 2, 3)])
    for place in (path, tmp_path):
        genome = open_dataset(place)
        assert (genome.format, genome.categories) == ("genome", False)
        samples = list(genome.samples())
        assert [sample.name for sample in samples] == ["VG_100K/1.jpg", "VG_100K_2/2.jpg", "3.jpg"]
        assert [one.phrase for one in samples[0].objects] == ["a red cup", "sky"]
        assert samples[0].objects[1].box.tolist() == [-1, 2, 2, 6]
        assert samples[1].path == tmp_path / "VG_100K_2" / "2.jpg"
    with pytest.raises(InputError, match="has no splits"):
        open_dataset(path, split="val")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, r"image\[1\] is 7"),
        ({"regions": []}, r"image\[1\] has no 'id'"),
        ({"id": "../1", "regions": []}, "must stay inside the images folder"),
        ({"id": 2}, "has no 'regions'"),
        ({"id": 2, "regions": [3]}, r"regions\[0\] is 3"),
        ({"id": 2, "regions": [region("")]}, r"regions\[0\] has phrase ''"),
        ({"id": 2, "regions": [region(width=-3)]}, r"regions\[0\] has bbox \[1.0, 2.0, -3.0, 4.0\]"),
        ({"id": 2, "regions": [region(x="1")]}, r"regions\[0\] has x '1', but it must be a finite number"),
        ({"id": 2, "regions": [region(x=-9)]}, r"regions\[0\] has the box \[-9"),
    ],
)
def test_a_wrong_entry_is_told_and_costs_its_image(tmp_path: Path, entry: Any, message: str) -> None:
    path = write(tmp_path, [{"id": 1, "regions": [region()]}, entry])
    with pytest.raises(InputError, match=message):
        list(read_genome(path, tmp_path))
    complaints = Complaints(lambda line: None)
    assert [sample.name for sample in read_genome(path, tmp_path, complaints)] == ["1.jpg"]
    assert len(complaints.sentences) == 1


def test_an_image_that_is_there_twice_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": 1, "regions": [region()]}] * 2)
    complaints = Complaints(lambda line: None)
    assert not list(read_genome(path, tmp_path, complaints)) and "repeats the id 1" in complaints.sentences[0]
    with pytest.raises(InputError, match="is no list"):
        list(read_genome(write(tmp_path, {}), tmp_path))


def test_an_id_that_is_no_name_of_a_file_is_read(tmp_path: Path) -> None:
    """What lacks is told where the image is looked for."""
    (tmp_path / "VG_100K").mkdir()
    (sample,) = read_genome(write(tmp_path, [{"id": "x" * 300, "regions": [region()]}]), tmp_path)
    assert sample.name == "x" * 300 + ".jpg"


def test_what_was_read_is_not_kept_beside_the_samples(tmp_path: Path) -> None:
    images = [{"id": n, "width": 9, "regions": [region(names=[m / 7 for m in range(1000)])]} for n in range(100)]
    path = write(tmp_path, images)
    tracemalloc.start()
    try:
        samples = read_genome(path, tmp_path)
        assert next(samples).width == 9
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < path.stat().st_size / 2
