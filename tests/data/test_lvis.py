"""LVIS: images named by address, categories by plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints, open_dataset, read_lvis
from wherein.errors import InputError

ADDRESS = "http://images.cocodataset.org/{}"
NAMES = ["aerosol_can", "bow_(weapon)", "Flip-flop_(sandal)", "hot_dog"]
LVIS: dict[str, Any] = {
    "images": [
        {
            "id": n,
            "coco_url": ADDRESS.format(f"{'train' if n else 'val'}2017/{n:012}.jpg"),
            "width": 20,
            "height": 10,
            "neg_category_ids": [1],
            "not_exhaustive_category_ids": [99],
        }
        for n in range(2)
    ],
    "categories": [{"id": n, "name": name, "synonyms": [], "frequency": "c"} for n, name in enumerate(NAMES)],
    "annotations": [{"id": n, "image_id": n // 3, "category_id": n, "bbox": [1, 2, 3, 4]} for n in range(4)],
}


def write(root: Path, content: Any = LVIS, name: str = "lvis_v1_val.json") -> Path:
    path = root / name
    path.write_text(json.dumps(content))
    return path


def test_names(tmp_path: Path) -> None:
    first, second = read_lvis(write(tmp_path), tmp_path)
    assert (first.name, first.path) == ("val2017/000000000000.jpg", tmp_path / "val2017" / "000000000000.jpg")
    assert second.name == "train2017/000000000001.jpg"
    assert [one.phrase for one in first.objects] == ["aerosol can", "bow", "flip-flop"]
    assert [one.phrase for one in second.objects] == ["hot dog"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("coco_url", "000000000000.jpg", "must end in a folder and a file"),
        ("coco_url", "http://x/../000.jpg", "must end in a folder and a file"),
        ("coco_url", 7, "has coco_url 7"),
        ("name", "_(nothing)", r"categories\[0\] has name '_\(nothing\)', of which nothing can be asked"),
    ],
)
def test_a_wrong_name_is_told(tmp_path: Path, field: str, value: Any, message: str) -> None:
    content = json.loads(json.dumps(LVIS))
    content["categories" if field == "name" else "images"][0][field] = value
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message):
        list(read_lvis(path, tmp_path))
    complaints = Complaints(lambda line: None)
    assert [sample.name for sample in read_lvis(path, tmp_path, complaints)] == ["train2017/000000000001.jpg"]


def test_the_layout(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    path = write(tmp_path / "annotations")
    for place in (tmp_path, path):
        lvis = open_dataset(place)
        assert (lvis.format, lvis.name, lvis.categories) == ("lvis", "lvis_v1_val", True)
        assert next(lvis.samples()).path == tmp_path / "val2017" / "000000000000.jpg"
    write(tmp_path / "annotations", name="lvis_v1_train.json")
    assert open_dataset(tmp_path, split="train").name == "lvis_v1_train"
    with pytest.raises(InputError, match="has the splits 'train', 'val', and none was chosen"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="lvis_v1_val.json has no splits"):
        open_dataset(path, split="val")
