"""What a PIN is asked in training, and that it learns by it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wherein.methods.insert import Insert, ask
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.methods.pin.method import NUMBERED
from wherein.methods.pin.numbers import number_codes, numbered
from wherein.training.adapters import calibrate
from wherein.training.boxes import RECIPES, BoxTask, Recipe
from wherein.training.store import FeatureStore
from wherein.training.trainer import TrainConfig, fit

BOXES = Recipe(batch=4)


@pytest.fixture
def make_task(tiny_vlm: Any, make_store: Any, names: tuple[str, ...]) -> Any:
    store = make_store(12)

    def make(recipe: Recipe = BOXES, seed: int = 0, insert: Insert | None = None) -> BoxTask:
        torch.manual_seed(seed)
        return BoxTask(tiny_vlm, insert or Pin.begin(tiny_vlm), recipe, store, store, names, seed)

    return make


@pytest.fixture
def asked(tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str, list[float]]]]:
    """For every image of every step: what was asked, (context, target, weights of the target) by branch."""
    seen: list[list[tuple[str, str, list[float]]]] = []
    real = tiny_vlm.loss

    def loss(prefix: Any, batch: Any, rivals: Any = None) -> Any:
        decode = tiny_vlm.tokenizer.decode
        for branches in batch:
            seen.append([(decode(list(b.context)), decode(list(b.target)), list(b.weights)) for b in branches])
        return real(prefix, batch, rivals)

    monkeypatch.setattr(tiny_vlm, "loss", loss)
    return seen


def test_every_object_and_one_absent_thing_are_asked_for(make_task: Any, asked: Any, names: tuple[str, ...]) -> None:
    task = make_task()
    for step in range(4):
        task.loss(step, 10)
    assert len(asked) == 4 * BOXES.batch
    refused = 0
    for rows in asked:
        boxes = [row for row in rows if row[1] != " not"]
        assert 1 <= len(boxes) <= 3 and len(rows) - len(boxes) <= 1
        refused += len(rows) - len(boxes)
        for context, target, weights in boxes:
            assert context.removeprefix(" a ").removesuffix(" located at") in names
            assert target.startswith(" [") and target.endswith("]") and len(target) == len(" [00,00,00,00]")
            digits = [weight for weight in weights if weight in (1.0, pytest.approx(0.3))]
            assert digits == pytest.approx([1.0, 0.3] * 4)
        absent = [context for context, target, _ in rows if target == " not"]
        assert not set(absent) & {context for context, *_ in boxes}
    assert refused > 0


def test_only_some_cells_are_shown(make_task: Any, monkeypatch: pytest.MonkeyPatch, tiny_vlm: Any) -> None:
    shapes = []
    real = tiny_vlm.prefix
    monkeypatch.setattr(tiny_vlm, "prefix", lambda x_v, **rest: (shapes.append(x_v.shape), real(x_v, **rest))[1])
    make_task(replace(BOXES, cells=0.5)).loss(0, 10)
    make_task(replace(BOXES, cells=1.0)).loss(0, 10)
    half, whole = (shape[1] for shape in shapes)
    assert whole == tiny_vlm.grid[0] * tiny_vlm.grid[1] and half == round(whole / 2)


def test_the_paper_s_recipe(make_task: Any, asked: Any, tiny_vlm: Any) -> None:
    task = make_task(replace(RECIPES["paper"], batch=4), insert=Pin.begin(tiny_vlm, "paper"))
    task.loss(0, 10)
    early, asked[:] = sum(asked, []), []
    task.loss(9, 10)
    late = sum(asked, [])
    assert len(early) == len(late) == 4  # one object an image, and nothing absent
    assert all(context == " a" and " located at [" in target for context, target, _ in early)
    assert all(context.endswith(" located at") and target.startswith(" [") for context, target, _ in late)
    numbers = {int(n) for _, target, _ in late for n in target.strip(" []").split(",")}
    assert all(n % 14 == 0 for n in numbers)
    config = task.module.config
    assert (config.code, config.codec, config.seam) == ("1d", "grid16", "features")
    assert not task.module().any()


def test_the_insert_starts_from_the_numbers_of_each_cell(make_task: Any, tiny_vlm: Any) -> None:
    """The column as a digit, the row as a number word, each embedding less the mean of its ten."""
    pi = make_task().module()
    first, second = number_codes(tiny_vlm)
    assert first.shape == second.shape == (10, tiny_vlm.width("connector_tokens"))
    for codes in (first, second):
        torch.testing.assert_close(codes.mean(0), torch.zeros_like(codes[0]), atol=1e-6, rtol=0)
        assert codes.norm(dim=1).mean() == pytest.approx(1.0)
    rows, columns = tiny_vlm.grid
    for cell in (0, columns + 1, rows * columns - 1):
        row, column = divmod(cell, columns)
        wanted = NUMBERED * (first[column * 10 // columns] + second[row * 10 // rows])
        torch.testing.assert_close(pi[cell], wanted, atol=1e-4, rtol=0)


def test_an_insert_may_have_another_codec(make_task: Any, asked: Any, tiny_vlm: Any) -> None:
    config = PinConfig(*tiny_vlm.grid, tiny_vlm.feature_dim, codec="ranges")
    make_task(insert=PositionalInsert(config)).loss(9, 10)
    boxes = [target for _, target, _ in sum(asked, []) if target != " not"]
    assert all(re.fullmatch(r" from\d and\d to\d and\d\.", box) for box in boxes)


def test_a_step_is_a_function_of_its_number(make_task: Any) -> None:
    a, b, other = make_task(), make_task(), make_task(seed=1)
    assert torch.equal(a.loss(3, 10), b.loss(3, 10))
    assert not torch.equal(a.loss(3, 10), a.loss(4, 10))
    assert not torch.equal(a.loss(3, 10), other.loss(3, 10))


def test_training_lowers_the_loss_and_leaves_the_model(make_task: Any, tiny_vlm: Any, tmp_path: Path) -> None:
    task, frozen = make_task(), [p.clone() for p in tiny_vlm.parameters()]
    before = float(task.loss(0, 1).detach())
    schedule = TrainConfig(steps=12, learning_rate=1e-2, warmup=1, evaluate_every=12, save_every=12)
    figures = fit(task, schedule, tmp_path / "run")
    assert float(task.loss(0, 1).detach()) < before
    assert set(figures) >= {"miou", "miou_written", "miou_other_image", "miou_centre", "seen_absent"}
    assert 0 <= figures["miou"] <= 1 and 0 <= figures["miou_other_image"] <= 1 and 0 <= figures["seen_absent"] <= 1
    with Image.open(tmp_path / "run" / "pictures" / "0000012.png") as sheet:
        assert sheet.size == (6 * 320, 320)
    assert all(torch.equal(p, was) for p, was in zip(tiny_vlm.parameters(), frozen, strict=True))


def test_predictions_of_a_batch_are_those_of_each_image(make_task: Any) -> None:
    task = make_task()
    torch.nn.init.normal_(task.module.layers[-1].weight, std=0.1)
    rows = task.predictions(5)
    assert [(image, name) for image, name, *_ in rows] == [
        (image, name) for image in range(5) for name, _ in task.held_out.objects[image]
    ]
    with task.module.installed(task.vlm):
        for image, name, _, written in rows:
            prefix = task.vlm.prefix(task.held_out.features([image]))
            (alone,) = ask(task.vlm, task.module, prefix, [0], [name])
            assert alone.text == written.text


def test_calibration_tells_present_from_absent(make_task: Any, names: tuple[str, ...]) -> None:
    scale, shift, balanced = calibrate(make_task(), names, 0)
    assert np.isfinite([scale, shift]).all() and 0.4 <= balanced <= 1


def teach_all_but_positions(vlm: Any, task: BoxTask, steps: int = 1500) -> None:
    """Teach a tiny model to write boxes, but from a secret code on its features alone: the cells come in any order.

    Frozen after that, it can do everything that PIN's task takes, but does not know where a cell lies.
    """
    secret = torch.randn(*task.module().shape, generator=torch.Generator().manual_seed(1))
    parameters = [*vlm.connector.parameters(), *vlm.language_model.parameters()]
    for p in parameters:
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters)
    for step in range(steps):
        rng = np.random.default_rng(step)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        indices = rng.integers(0, task.train.count, 32).tolist()
        rows = [task._branches(task.train.objects[i], None, 1.0, rng) for i in indices]
        order = torch.from_numpy(rng.permutation(len(secret)))
        loss = vlm.loss(vlm.prefix((task.train.features(indices) + secret)[:, order]), rows)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    for p in parameters:
        p.requires_grad_(False)


@pytest.mark.slow
def test_an_insert_unlocks_a_model_that_lacks_nothing_but_positions(
    tiny_vlm: Any, names: tuple[str, ...], source: Any, tmp_path: Path
) -> None:
    """PIN-5: on 64 images the trained insert reaches a mean IoU above 0.8, and at zero the model stays below 0.4."""
    vlm, recipe = type(tiny_vlm)(), replace(BOXES, batch=16, absent=False, units=1.0)
    config = PinConfig(*vlm.grid, vlm.width("connector_tokens"), codec=vlm.codec, seam="connector_tokens")

    def task_on(images: int) -> BoxTask:
        torch.manual_seed(0)
        store = FeatureStore(tmp_path, vlm, source, images, {}).build()
        insert = PositionalInsert(config)
        insert.start_from(NUMBERED * numbered(vlm))
        return BoxTask(vlm, insert, recipe, store, store, names, 0)

    teach_all_but_positions(vlm, task_on(1024))
    task = task_on(64)
    off = task.evaluate(0, tmp_path, 64)["miou"]
    fit(task, TrainConfig(steps=600, learning_rate=2e-3, evaluate_every=600, save_every=600), tmp_path / "run")
    on = task.evaluate(600, tmp_path, 64)["miou"]
    assert off < 0.4 and on > 0.8, (off, on)
