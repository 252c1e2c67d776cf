"""Encoded images on disk: the same features as encoding directly gives, whatever happened to the build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from wherein.errors import InputError
from wherein.training import store as stores
from wherein.training.store import FeatureStore, Labelled

Source = Callable[[int], Labelled]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SHARD", 5)
    monkeypatch.setattr(stores, "CHUNK", 2)


def shards(store: FeatureStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_features_and_boxes_are_those_of_the_image(tiny_vlm: Any, make_store: Any, source: Source) -> None:
    store = make_store(12)
    assert len(store.objects) == 12
    for i in (0, 4, 5, 11):
        image = source(i)
        pixels, (frame,) = tiny_vlm.prepare([image.image])
        assert torch.equal(store.features([i]), tiny_vlm.features(pixels).to(torch.bfloat16))
        assert [name for name, _ in store.objects[i]] == [name for name, _ in image.objects]
        boxes = np.stack([box for _, box in store.objects[i]])
        np.testing.assert_allclose(boxes, frame.to_model(np.stack([box for _, box in image.objects])))
    assert torch.equal(store.features([11, 0]), torch.cat([store.features([11]), store.features([0])]))


def test_an_interrupted_build_goes_on(tiny_vlm: Any, tmp_path: Path, source: Source) -> None:
    asked: list[int] = []

    def tells(i: int) -> Labelled:
        asked.append(i)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return source(i)

    store = FeatureStore(tmp_path, tiny_vlm, tells, 12, {"seed": 0})
    with pytest.raises(KeyboardInterrupt):
        store.build()
    assert len(shards(store)) == 1
    again = FeatureStore(tmp_path, tiny_vlm, tells, 12, {"seed": 0}).build()
    assert asked[8:] == list(range(5, 12))  # the first shard is there
    assert len(shards(again)) == 3 and len(again.objects) == 12
    FeatureStore(tmp_path, tiny_vlm, tells, 12, {"seed": 0}).build()
    assert len(asked) == 15


def test_a_full_disk_costs_the_shard_that_is_being_written(
    tiny_vlm: Any, tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], stores.save_file

    def full(tensors: Any, path: Path, **kwargs: Any) -> None:
        written.append(path)
        real(tensors, path, **kwargs)
        if len(written) == 2:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(stores, "save_file", full)
    store = FeatureStore(tmp_path, tiny_vlm, source, 12, {"seed": 0})
    with pytest.raises(InputError, match=r"Cannot write to .*0000005-0000010.*No space left"):
        store.build()
    assert shards(store) == ["0000000-0000005.safetensors"]


def test_a_larger_store_goes_on_from_a_smaller_one(make_store: Any) -> None:
    """The small one ends in a short shard, which must not stand for a full one."""
    small, large, fresh = make_store(7, seed=0), make_store(12, seed=0), make_store(12, seed=1)
    assert small.folder == large.folder != fresh.folder
    assert len(large.objects) == 12
    everything = list(range(12))
    assert torch.equal(large.features(everything), fresh.features(everything))
    assert len(make_store(7, seed=0).objects) == 7


def test_other_settings_are_another_store(make_store: Any, tiny_vlm: Any, tmp_path: Path, source: Source) -> None:
    folders = {
        make_store(3, seed=0).folder,
        make_store(3, seed=1).folder,
        make_store(3, seed=0, split="held out").folder,
        FeatureStore(tmp_path / "cache", type(tiny_vlm)(grid=(2, 2)), source, 3, {"seed": 0}).folder,
    }
    assert len(folders) == 4
    assert make_store(3, seed=0).folder in folders
