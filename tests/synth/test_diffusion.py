"""Pictures from a text-to-image model: the same in any batch, refused by its own checker, and never from a pickle."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from wherein.errors import InputError
from wherein.synth.diffusion import Diffusion, prompt_for, seed_of


@pytest.fixture(scope="module")
def tiny_objects() -> SimpleNamespace:
    """What makes tiny checkpoints; pytest's importlib mode has no packages of tests."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tiny_objects.py")))


@pytest.fixture(scope="module")
def checkpoint(tiny_objects: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_objects.diffusion(tmp_path_factory.mktemp("diffusion"))
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Diffusion:
    return Diffusion(str(checkpoint), "cpu", steps=3)


def test_a_batch_gives_what_each_picture_alone_gives(model: Diffusion) -> None:
    """Within one grey level of float32: a batched matrix product rounds in another order."""
    prompts = [prompt_for(name) for name in ("tea pot", "lamp", "lamp", "anvil")]
    seeds = [seed_of(0, prompt, index) for index, prompt in enumerate(prompts)]
    together = model.draw(prompts, seeds)
    for picture, prompt, seed in zip(together, prompts, seeds, strict=True):
        (alone,) = model.draw([prompt], [seed])
        assert picture is not None and alone is not None
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - alone).max() <= 1


def test_prompt_and_seed_both_count(model: Diffusion) -> None:
    first, other_prompt, other_seed = model.draw(["a lamp", "an anvil", "a lamp"], [1, 1, 2])
    assert first is not None and other_prompt is not None and other_seed is not None
    assert not np.array_equal(first, other_prompt) and not np.array_equal(first, other_seed)


def test_it_is_the_solver_the_steps_and_the_guidance_of_the_recipe(checkpoint: Path, model: Diffusion) -> None:
    """Equality with the loop written out: no pipeline, one picture."""
    pipe: Any = model.pipeline
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    ids = [
        pipe.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
        for text in ("", "a lamp")
    ]
    solver = type(pipe.scheduler).from_config(pipe.scheduler.config)
    assert type(solver).__name__ == "DPMSolverMultistepScheduler"
    solver.set_timesteps(3)
    with torch.inference_mode():
        texts = [pipe.text_encoder(one)[0] for one in ids]
        for step in solver.timesteps:
            without, with_text = (pipe.unet(noise, step, encoder_hidden_states=text).sample for text in texts)
            noise = solver.step(without + 7.5 * (with_text - without), step, noise).prev_sample
        decoded = pipe.vae.decode(noise / pipe.vae.config.scaling_factor).sample[0]
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    (picture,) = model.draw(["a lamp"], [5])
    assert picture is not None and np.abs(picture - expected).max() <= 1


def test_a_seed_is_of_the_run_the_name_and_the_index() -> None:
    seeds = {seed_of(run, name, index) for run in (0, 1) for name in ("lamp", "tea pot") for index in range(50)}
    assert len(seeds) == 200 and all(0 <= seed < 2**32 for seed in seeds)
    assert seed_of(0, "lamp", 0) == 3463881328  # never changes: folders in use name their seeds


def test_the_checkpoints_own_safety_checker_refuses(tiny_objects: Any, tmp_path: Path) -> None:
    for refuses in (True, False):
        model = Diffusion(str(tiny_objects.diffusion(tmp_path / str(refuses), refuses)), "cpu", steps=1)
        drawn = model.draw(["a lamp", "an anvil"], [1, 2])
        assert [picture is None for picture in drawn] == [refuses, refuses]


def test_weights_in_a_pickle_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    for part in ("unet", "text_encoder", "vae"):
        copy = Path(shutil.copytree(checkpoint, tmp_path / part))
        (file,) = (copy / part).glob("*.safetensors")
        torch.save({}, file.with_suffix(".bin"))
        file.unlink()
        with pytest.raises(InputError, match="Cannot read the weights"):
            Diffusion(str(copy), "cpu")


def test_code_of_the_checkpoints_own_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "UNet"]}))
    (copy / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match="takes its unet from 'mine'"):
        Diffusion(str(copy), "cpu")
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match="is a FluxPipeline"):
        Diffusion(str(copy), "cpu")


def test_a_missing_checkpoint_library_or_device_is_one_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="Cannot read the pipeline in the folder"):
        Diffusion(str(tmp_path), "cpu")
    with pytest.raises(InputError, match="Hub does not give it"):
        Diffusion("nobody/nothing", "cpu")
    with pytest.raises(InputError, match="No device 'mars'"):
        Diffusion(str(checkpoint), "mars")
    monkeypatch.setattr("wherein.synth.diffusion.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'wherein\[synth\]'"):
        Diffusion(str(checkpoint), "cpu")


def test_a_batch_that_does_not_fit_is_one_sentence(model: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "pipeline", full)
    with pytest.raises(InputError, match="lower --batch"):
        model.draw(["a lamp"], [0])
